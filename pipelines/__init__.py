"""Headrace: raw → validated → features → labels → release → served features, one verb a module."""
