"""Label Studio over its HTTP API: to take each task once, to count, to tell what changed."""
