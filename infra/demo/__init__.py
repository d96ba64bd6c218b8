"""The demo: real data from the sources to a trained model, under a real scheduler. Not part of the pipeline."""
