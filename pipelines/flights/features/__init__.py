"""The feature tables of `flights`, one module each."""
