"""Whether every file of a store is as it was written: its length and its checksum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from recsys_dask.errors import StoreError
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import manifest as manifests
from recsys_dask.store.files import Folder, checksum_of, reason
from recsys_dask.store.manifest import FileEntry, Manifest
from recsys_dask.store.tables import Store

TASK_BYTES = 256_000_000
"""Of files that one task reads, at most; a larger file is a task of its own."""


class Checked(NamedTuple):
    """What was checked: so many files of so many bytes."""

    files: int
    bytes: int


def check(cluster: Cluster, store: Store) -> Checked:
    """Read every file that the manifest lists. Raises `StoreError` naming all that are missing, cut short or altered,
    a line each with what to do."""
    from dask import delayed

    entries = _entries(store.manifest)
    work = [
        delayed(faults_of)(store.folder, group, dask_key_name=f"check-{number}-{group[0].checksum}")
        for number, group in enumerate(_groups(list(entries), cluster.n_threads))
    ]
    found = cluster.compute("check", work, lambda one: one[1], "bytes") if work else []
    faults = {file: why for several, _ in found for file, why in several}
    if faults:
        # A run may have replaced tables in the meantime; their old files are nobody's any more.
        now = manifests.load(store.folder)
        still = set(_entries(now)) if now else set()
        lines = [
            f"{store.folder.url}: table {entries[file][0]}, {file.path}: {why}; {_remedy(store, entries[file][1])}"
            for file, why in sorted(faults.items(), key=lambda pair: pair[0].path)
            if file in still
        ]
        if lines:
            raise StoreError("\n".join(lines))
    return Checked(len(entries), sum(file.bytes for file in entries))


def _entries(manifest: Manifest) -> dict[FileEntry, tuple[str, str]]:
    """Every file with its table and the key of the stage that made it."""
    return {
        file: (name, key)
        for key, stage in manifest.stages.items()
        for name in stage.tables
        for file in manifest.tables[name].files
    }


def _groups(files: Sequence[FileEntry], n_threads: int) -> list[list[FileEntry]]:
    aim = min(TASK_BYTES, -(-sum(file.bytes for file in files) // (4 * n_threads)))
    groups: list[list[FileEntry]] = []
    size = aim
    for file in files:
        if size + file.bytes / 2 > aim:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.bytes
    return groups


def faults_of(folder: Folder, files: Sequence[FileEntry]) -> tuple[list[tuple[FileEntry, str]], int]:
    """The task: what is wrong with some files, and the bytes that were read."""
    faults = []
    n_read = 0
    for file in files:
        try:
            n, found = checksum_of(folder, file.path)
        except FileNotFoundError:
            faults.append((file, "is missing"))
            continue
        except OSError as error:
            faults.append((file, f"cannot be read: {reason(error)}"))
            continue
        n_read += n
        if n != file.bytes:
            faults.append((file, f"is {n:,} bytes long, was written with {file.bytes:,}"))
        elif found != file.checksum:
            faults.append((file, "is altered: its checksum is another"))
    return faults, n_read


def _remedy(store: Store, key: str) -> str:
    """What makes a stage's files again."""
    command = manifests.command_for(key, store.folder.url)
    if key.startswith("export:"):
        return f"remove it, then make it again with: {command}"  # --rebuild would do all the rest again too
    return f"make it again with: {command} --rebuild"
