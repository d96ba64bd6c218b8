"""`headrace label`: samples sent to Label Studio, answers collected, labels aggregated."""
