"""Files that `headrace init` and `headrace new` write."""
