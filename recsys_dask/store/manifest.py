"""The one file that says what a store holds: which stages are complete, from what, and every file's checksum."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

import recsys_dask
from recsys_dask.errors import StoreError
from recsys_dask.params import FITTED, MODELS
from recsys_dask.schemas import STORE_FORMAT
from recsys_dask.store.files import Checked, Folder, reason

NAME = "manifest.json"


class FileEntry(msgspec.Struct, frozen=True):
    """One file of a table: `path` within the store, `checksum` XXH3 of its bytes, 128 bits."""

    path: str
    rows: int
    bytes: int
    checksum: str


class TableEntry(msgspec.Struct, frozen=True):
    """The files of a table, in its order."""

    files: list[FileEntry]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


class StageReport(msgspec.Struct):
    """What a stage did: rows and bytes that it wrote, wall seconds, the largest peak of a worker's memory, and what
    that was projected to be before it began."""

    rows: int = 0
    bytes: int = 0
    partitions: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    projected_bytes: int = 0
    facts: dict[str, int] = {}
    notes: list[str] = []
    history: list[dict[str, float | None]] = []
    """Of a training: epoch, train_loss, valid_loss, rows_per_s, … of each epoch."""


class StageEntry(msgspec.Struct):
    """A finished stage. made_from: the fingerprints, when it was made, of the stages that it reads, and of the ingest
    whose codes it has; lineage: of an
    ingest, the fingerprints before slices were appended, each with the number of files that `rows` had then."""

    fingerprint: str
    params: dict[str, Any]
    tables: list[str]
    report: StageReport
    finished_at: str
    made_from: dict[str, str] = {}
    lineage: dict[str, int] = {}


class InputFile(msgspec.Struct, frozen=True, order=True):
    """An input as it was when it was read: size in bytes, modification as the file system tells it."""

    path: str
    bytes: int
    modified: str


class Manifest(msgspec.Struct):
    """A store: its input, its finished stages and its tables."""

    format: int
    package: str
    inputs: list[InputFile] = []
    set_aside: list[str] = []
    stages: dict[str, StageEntry] = {}
    tables: dict[str, TableEntry] = {}

    @classmethod
    def new(cls) -> Manifest:
        return cls(format=STORE_FORMAT, package=recsys_dask.__version__)

    def files(self) -> set[str]:
        """Every file that belongs to the store."""
        return {file.path for table in self.tables.values() for file in table.files}

    def stage_of(self, table: str) -> str:
        """The key of the stage that made a table."""
        return next(key for key, stage in self.stages.items() if table in stage.tables)

    def has_codes_of_now(self, key: str) -> bool:
        """Whether a stage's codes are those of the vocabularies: slices that were appended since leave them alone."""
        made_from, ingest = self.stages[key].made_from.get("ingest"), self.stages.get("ingest")
        return not made_from or not ingest or made_from in (ingest.fingerprint, *ingest.lineage)

    def is_outdated(self, key: str) -> bool:
        """Whether a stage that this one was made from was done again since, with another result."""
        return any(
            need not in self.stages or self.stages[need].fingerprint != fingerprint_ or self.is_outdated(need)
            for need, fingerprint_ in self.stages[key].made_from.items()
        )


def load(folder: Folder) -> Manifest | None:
    """The store's manifest, or None where there is none. Raises `StoreError` for one that cannot be used."""
    try:
        data = folder.read(NAME)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{folder.full(NAME)}: cannot be read: {reason(error)}") from None
    try:
        head = json.loads(data)
        made = head["format"], head["package"]
        if made[0] == STORE_FORMAT:
            return msgspec.convert(head, Manifest)
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise StoreError(
            f"{folder.full(NAME)}: is not a store's manifest ({error}); remove the folder and run again"
        ) from None
    raise StoreError(
        f"{folder.url}: store of format {made[0]}, made by recsys_dask {made[1]}; this is recsys_dask "
        f"{recsys_dask.__version__} with format {STORE_FORMAT}: use that version, or another folder"
    )


def save(folder: Folder, manifest: Manifest) -> None:
    """The commit: readers see the new tables from here on."""
    folder.write(NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def stage_for(table: str) -> str:
    """The key of the stage that makes a table of this name."""
    family, _, rest = table.partition("_")
    item, _, which = rest.removeprefix("items_").partition("_")
    if family in ("titles", "evaluation"):
        return f"{'evaluate' if family == 'evaluation' else family}:{item}"
    if family == "popular":
        return "counts"
    if table == "near_duplicates":
        return table
    if family in ("embeddings", "model"):
        return f"train:{item}:{which}"
    if family == "recommender" or (family == "similar" and which in FITTED):
        return f"fit:{item}:{which}"
    if family == "similar" and which in MODELS:
        return f"neighbours:{item}:{which}"
    return f"{'pairs' if family == 'pair' else family}:{item}:{which}" if which else "ingest"


def command_for(key: str, url: str) -> str:
    """The command that does a stage."""
    stage, _, rest = key.partition(":")
    item, _, which = rest.partition(":")
    of_item = f" --item {item}" if item and item != "artist" else ""
    if stage in ("ingest", "export"):
        return f"recsys-dask {'run' if stage == 'export' else stage} INPUT {url}{of_item}"
    if stage == "similar":
        return f"recsys-dask pairs {url}{of_item} --measure {which}"
    if stage == "titles":
        return f"recsys-dask fit {url}{of_item}"
    if stage == "fit":
        return f"recsys-dask fit {url}{of_item} --method {which}"
    if stage in ("train", "neighbours"):
        return f"recsys-dask {stage} {url}{of_item} --model {which}"
    return f"recsys-dask {stage.replace('_', '-')} {url}{of_item}" + (f" --view {which}" if which else "")


def entry_of(name: str, rows: int, file: Checked) -> FileEntry:
    """The manifest's entry of a file that was just written."""
    return FileEntry(name, rows, file.bytes, file.checksum)


def put(folder: Folder, name: str, data: bytes, rows: int) -> FileEntry:
    """A whole file, and its entry for the manifest."""
    with folder.writing(name) as file:
        file.write(data)
    return entry_of(name, rows, file)


def fingerprint(*parts: Any) -> str:
    """A short name for what a stage was made from: equal parts, equal name."""
    text = json.dumps(msgspec.to_builtins(parts), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
