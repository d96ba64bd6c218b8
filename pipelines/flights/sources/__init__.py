"""The sources of `flights`, one module each: where it comes from, its contract, its tidy form."""
