"""`headrace validate`: raw rows against their contract, into validated and rejected tables."""

import headrace.dataframely_import  # noqa: F401  before a module here imports dataframely as it is
