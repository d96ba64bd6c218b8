"""Lineage: manifests traced back to objects, queries and annotations, and forward to tables and releases."""
