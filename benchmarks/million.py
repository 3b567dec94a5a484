"""A folder of slices, such as the Million Playlist Dataset, beside what its disk takes to read it:
`python -m benchmarks.million FOLDER [--store STORE]`. Two workers of 2 GB.

The files are dropped from the page cache before each of the two. Run it at a quiet moment.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks.phases import ingest_phases, table
from benchmarks.reading import forget, read_seconds
from recsys_dask.formats.inputs import find

WORKERS = 2


def million(slices: Path, store: Path, memory_limit: str) -> None:
    """Ingest a folder into a new store and print what it took."""
    inputs = find(slices)
    paths, size = [file.path for file in inputs], sum(file.bytes for file in inputs)
    forget(paths)
    disk = read_seconds(paths, WORKERS)
    forget(paths)
    steps, report = ingest_phases(slices, store, workers=WORKERS, memory_limit=memory_limit)
    print(f"{len(paths):,} files, {size / 1e9:.2f} GB, {report.facts['playlists']:,} playlists, {report.rows:,} rows\n")
    print(table(steps, size))
    print(
        f"\ningest: {report.seconds:.1f} s, {size / report.seconds / 1e6:,.0f} MB/s with the workers up\n"
        f"disk: {disk:.1f} s to read the same files, {size / disk / 1e6:,.0f} MB/s; "
        f"ratio {report.seconds / disk:.2f}\n"
        f"memory of a worker: at most {report.peak_bytes / 1e6:,.0f} MB, projected "
        f"{report.projected_bytes / 1e6:,.0f} MB, limit {memory_limit}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", type=Path)
    parser.add_argument("--store", type=Path, help="kept; must not exist (default: a temporary one)")
    parser.add_argument("--memory-limit", default="2GB")
    given = parser.parse_args()
    if given.store and given.store.exists():
        parser.error(f"{given.store} exists")
    store = given.store or Path(tempfile.mkdtemp(prefix="recsys_dask-million-")) / "store"
    try:
        million(given.slices, store, given.memory_limit)
    finally:
        if not given.store:
            shutil.rmtree(store.parent)


if __name__ == "__main__":
    main()
