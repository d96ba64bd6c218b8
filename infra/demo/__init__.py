"""The demo: real data goes the whole way, under a real scheduler. No part of the pipeline."""
