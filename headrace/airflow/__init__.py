"""What the DAG files are put together from; nothing here loads a data library."""
