"""DVC's files, read and written directly, at a cost that follows what is new instead of what there is.

What is written here is byte for byte what `dvc commit` and `dvc add` write (test_version.py compares the two).
"""
