"""The program. A local cluster's workers import this module as they start: what it needs is imported inside."""


def main() -> None:
    """Run the command line."""
    from recsys_dask.cli import main

    main()


if __name__ == "__main__":
    main()
