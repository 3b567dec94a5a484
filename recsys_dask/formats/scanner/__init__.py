"""The scanner: slices of the Million Playlist Dataset to columns, at the disk's speed. docs/scanner.md explains it."""


def warm() -> None:
    """Compile the kernels."""
    from recsys_dask.formats.scanner.columns import warm

    warm()
