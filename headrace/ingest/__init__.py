"""`headrace ingest`: what the sources offer, read into raw tables."""
