"""`headrace validate`: raw rows against their contract, into validated and rejected tables."""
