"""Readers, by the name of the module that projects of 0.2.0 import them from. New code imports them from `headrace`."""

from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.unreadable import UnreadableError

__all__ = ["CsvDialect", "UnreadableError", "read_csv", "read_parquet"]
