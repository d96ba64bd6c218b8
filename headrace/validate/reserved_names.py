"""Names of columns that Headrace adds to those of a source."""

OBJECT = "_object"
"""In a table of rejected rows, of partitions of several objects: the key of the object that the row is from."""

ROW = "_row"
"""In a table of rejected rows: the number of the row in its source, from 1 on, of several objects in its own.
Tables written by 0.1 call it `row`."""

LINE = "_line"
"""In a table of rejected rows of delimited files with lines that cannot be read: the line of the object in which the
row begins, from 1 on, the header counted."""

FAILED_CHECKS = "_failed_checks"
"""In a table of rejected rows: the names of the checks that the row failed. Tables written by 0.1 call it `checks`."""

ROW_TEXT = "_row_text"
"""In a table of rejected rows of JSON or of delimited files: the text of a row that cannot be read."""

MARK = "\x1f"
"""What every column begins with that only a query has: the separator of units in ASCII, which no name of data holds."""

START = f"{MARK}start"
"""Start of the row's partition, in UTC."""

JSON_COLUMNS = NUMBER, RECORD, FAULT = f"{MARK}number", f"{MARK}text", f"{MARK}fault"
"""Columns that `read_json` gives: the number of the row in its source, and of one that cannot be read its text
and the name of the check that it fails."""

RAW_LINE = f"{MARK}line"
CSV_COLUMNS = (NUMBER, RAW_LINE, RECORD, FAULT)
"""The same of `read_csv`, for a file with lines that cannot be read, with the number of the line."""
