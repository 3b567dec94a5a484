"""The program. A local cluster's workers import this module as they start: what it needs is imported inside."""


def main() -> None:
    """Run the command line."""
    import gc

    # Imports make objects that stay: looking among them for garbage again and again takes a fifth of their time.
    gc.set_threshold(50_000, 20, 100)
    from recsys_dask.cli import main

    try:
        main()
    finally:
        gc.freeze()  # nor is there anything to be looked for at the end, for most of a second


if __name__ == "__main__":
    main()
