"""What this project declares: one folder per dataset, found by itself and named by its folder."""
