"""Slices written to a folder, those that are there already left alone."""

from __future__ import annotations

from functools import lru_cache

from recsys_dask import params
from recsys_dask.errors import StoreError
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.sampling.text import slice_text
from recsys_dask.sampling.world import World, make_world, slice_names
from recsys_dask.store.files import Folder

MARK = "sample.txt"
"""Beside the slices: the parameters that they were made with."""

SMALL = 2_000
"""Playlists that one process writes sooner than workers start."""


def sample(cluster: Cluster, folder: Folder, options: params.Sample) -> int:
    """Write the slices that are not there yet; returns how many that were.

    Raises `StoreError` if the folder holds slices of other parameters.
    """
    from dask import delayed

    mark = f"playlists {options.playlists}, seed {options.seed}, copies {options.copies}\n".encode()
    there = set(folder.names())
    if MARK in there and folder.read(MARK) != mark:
        raise StoreError(
            f"{folder.url}: holds another sample ({folder.read(MARK).decode().strip()}); name another folder"
        )
    if MARK not in there and any(name.endswith(".json") for name in there):
        raise StoreError(f"{folder.url}: holds other slices; name another folder")
    folder.write(MARK, mark)
    left = [number for number, name in enumerate(slice_names(options.playlists)) if name not in there]
    work = [delayed(write_slice)(folder, options, number) for number in left]
    if work:
        cluster.compute("sample", work, lambda size: size, "bytes")
    return len(left)


@lru_cache(maxsize=1)
def _world(options: params.Sample) -> World:
    """One world a worker."""
    return make_world(options.playlists, options.seed, options.copies)


def write_slice(folder: Folder, options: params.Sample, number: int) -> int:
    """The task: one slice; returns its bytes."""
    text = slice_text(_world(options), number)
    folder.write(slice_names(options.playlists)[number], text)
    return len(text)
