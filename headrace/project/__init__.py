"""The project: its datasets, their graph of stages, and the executors that compute them."""
