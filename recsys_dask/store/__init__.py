"""Tables, manifest and files: the only code that knows Parquet and fsspec."""
