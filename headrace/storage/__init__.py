"""Where bytes are: atomic writes, Parquet, manifests, the DVC cache and remote, object stores and git."""
