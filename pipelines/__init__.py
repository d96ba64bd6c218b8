"""What this project declares: one folder per dataset, each with a `DATASET`."""
