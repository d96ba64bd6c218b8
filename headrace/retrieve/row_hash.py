"""rows → hashes of their columns: equal when, and only when, the values are, whatever file or batches they came in."""

import hashlib
from collections.abc import Iterable
from typing import Any

import polars as pl

DIGITS = 32


def hash_lines(lines: Iterable[str]) -> str:
    """Hash of some lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:DIGITS]


class RowHasher:
    """What a stream of frames holds, hashed as it passes."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, _Column] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Take in the next rows."""
        self.rows += frame.height
        for column in frame.get_columns():
            self._columns.setdefault(column.name, _Column(column.dtype)).add(column)

    def summary(self, columns: Iterable[str] | None = None) -> dict[str, Any]:
        """The number of rows, and the hash of each column, or of each of `columns`."""
        names = self._columns if columns is None else columns
        return {"rows": self.rows, "columns": {name: self._columns[name].digest() for name in names}}


class _Column:
    """Nulls, lengths and values of a column, hashed apart, so that where it was cut into frames does not matter."""

    def __init__(self, kind: pl.DataType) -> None:
        self.kind = kind
        self.nulls, self.lengths, self.values = (hashlib.sha256() for _ in range(3))

    def add(self, column: pl.Series) -> None:
        self.nulls.update(column.is_null().to_numpy().tobytes())
        if isinstance(column.dtype, pl.Categorical | pl.Enum):
            column = column.cast(pl.String)
        if column.dtype == pl.String:
            self.lengths.update(column.str.len_bytes().fill_null(0).to_numpy().tobytes())
            self.values.update("".join(column.drop_nulls()).encode())
        elif column.dtype.is_numeric() or column.dtype.is_temporal() or column.dtype == pl.Boolean:
            self.values.update(column.to_physical().drop_nulls().to_numpy().tobytes())
        else:
            for value in column:
                self.values.update(f"{value!r}\n".encode())

    def digest(self) -> str:
        whole = hashlib.sha256(str(self.kind).encode())
        for part in (self.nulls, self.lengths, self.values):
            whole.update(part.digest())
        return whole.hexdigest()[:DIGITS]
