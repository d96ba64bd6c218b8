"""Errors of opening tables."""

from headrace.errors import HeadraceError


class NoSuchTableError(HeadraceError, KeyError):
    """The dataset has no table of that name, or the table no such partition."""

    __str__ = Exception.__str__  # that of KeyError quotes the message


class EmptyTableError(HeadraceError):
    """The table has no partition, so it has neither rows nor a schema."""


class NotParquetError(HeadraceError):
    """The files of the table are not Parquet, so they cannot be read as rows."""
