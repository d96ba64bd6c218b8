"""PostgreSQL and SQLite, to read from: the rows of a table a partition at a time, all as of one moment."""
