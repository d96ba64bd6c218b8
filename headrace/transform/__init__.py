"""`headrace transform`: validated rows to feature tables, by the declared kernels."""
