"""The questions that people answer about `flights`."""
