"""`headrace ingest`: reads new and changed data of the sources into raw tables."""
