"""One stage a file: compute on Dask, then commit whole tables."""
