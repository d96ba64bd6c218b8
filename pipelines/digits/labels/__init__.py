"""What people are asked about `digits`."""
