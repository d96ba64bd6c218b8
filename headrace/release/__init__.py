"""`headrace release`: audit, push and tag the tables of a dataset."""
