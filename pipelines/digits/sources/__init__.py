"""Where the raw tables of `digits` come from, and which of their rows are good."""
