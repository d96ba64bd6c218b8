"""Where data came from and where it went: manifests walked back to objects, queries and people, forward to releases."""
