"""What `headrace init` and `headrace new` write: a project from the files in `project/`, a dataset from a sample."""
