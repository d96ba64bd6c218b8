"""Headrace carries raw data and labels to versioned releases, features and training tables."""

__version__ = "0.2.0"
