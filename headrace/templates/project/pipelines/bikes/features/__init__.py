"""Feature tables: what was known at each time."""
