"""Checks that a project runs on its own declarations: `from headrace.testing import ...`."""
