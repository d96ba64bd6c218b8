"""The tables of a dataset, at a release or in the workspace, for notebooks, scripts and SQL."""
