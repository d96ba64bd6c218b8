"""Where the raw data comes from, and which rows are good."""
