"""Label Studio through its SDK: every task sent exactly once, annotations read as far as they changed."""
