"""The engine: what a table is, which of its partitions are stale, and how they are computed and shown."""
