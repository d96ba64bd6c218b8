"""Names of columns that Headrace adds to those of a source."""

ROW = "_row"
"""In a table of rejected rows: the number of the row in its source, from 1 on. Tables written by 0.1 call it `row`."""

FAILED_CHECKS = "_failed_checks"
"""In a table of rejected rows: the names of the checks that the row failed. Tables written by 0.1 call it `checks`."""

MARK = "\x1f"
"""What every column begins with that only a query has: the separator of units in ASCII, which no name of data holds."""

START = f"{MARK}start"
"""Start of the row's partition, in UTC."""
