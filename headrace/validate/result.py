"""What became of the rows of a partition: accepted, or rejected with the checks that each failed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Self

import polars as pl

from headrace.validate.as_text import as_text
from headrace.validate.fit_columns import StoredColumns
from headrace.validate.query import CheckedRows
from headrace.validate.reserved_names import (
    CSV_COLUMNS,
    FAILED_CHECKS,
    FAULT,
    LINE,
    NUMBER,
    RAW_LINE,
    RECORD,
    ROW,
    ROW_TEXT,
)
from headrace.validate.uniqueness import Span, key_span


@dataclass(frozen=True)
class ValidationResult:
    """What became of a partition's rows.

    Attributes:
        accepted: The rows that meet the contract, transformed, in the order of the source.
        rejected: The others: `_row`, every raw column as text, and `_failed_checks`, names of checks. Of JSON also
            `_row_text`, of rows that cannot be read; of delimited files that have such rows, `_line` and `_row_text`.
        raw: All rows that can be read, as they came.
        row_numbers: The place in `raw`, from 1 on, of each accepted row.
        stored: How the columns of the partition differ from those of `accepted` and `rejected`.
        key_span: Span of the leading key column of all rows that meet the contract, whatever other partitions hold.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    raw: pl.DataFrame
    row_numbers: pl.Series
    key_span: Span | None = None
    stored: StoredColumns = field(default_factory=StoredColumns)

    @classmethod
    def before_key_check(
        cls, raw: pl.DataFrame, checked: CheckedRows, accepted: pl.DataFrame, key: Sequence[str]
    ) -> "ValidationResult":
        """The result before keys are compared; `accepted` are the good rows, transformed."""
        span = key_span(accepted.get_column(key[0]))
        numbers = pl.int_range(1, raw.height + 1, dtype=pl.UInt32, eager=True)
        if not checked.is_bad.any():
            return cls(accepted, no_rejected_rows(raw), raw, numbers, span)
        rejected = rejected_rows(raw, numbers.filter(checked.is_bad), checked.failed_checks())
        return cls(accepted, rejected, raw, numbers.filter(~checked.is_bad), span)

    @property
    def rows_in(self) -> int:
        """Rows of the raw partition."""
        return self.accepted.height + self.rejected.height

    @cached_property
    def counts(self) -> dict[str, int]:
        """Check → rows that failed it, most frequent first."""
        checks = self.rejected.get_column(FAILED_CHECKS).explode(empty_as_null=False)
        counted = checks.value_counts(name="rows").sort(["rows", FAILED_CHECKS], descending=[True, False])
        return dict(counted.iter_rows())

    def origins(self, chosen: pl.Series) -> list[tuple[str, int]]:
        """Key of the object, empty if it is the only one, and number in it of each chosen accepted row."""
        rows = rows_as_text(self.raw, self.row_numbers.filter(chosen))
        return [("", number) for number in rows.get_column(ROW)]

    def with_unreadable_rows(self, raw: pl.DataFrame) -> "ValidationResult":
        """The result with the rows of a source that cannot be read as rejected ones."""
        rejected = unreadable_rows(raw)
        return self if rejected is None else replace(self, rejected=pl.concat([self.rejected, rejected]).sort(ROW))

    def reject(self, failed: pl.Series, check: str) -> Self:
        """The result after the accepted rows where `failed` is true have failed `check` too."""
        if not failed.any():
            return self
        numbers = self.row_numbers.filter(failed)
        more = rejected_rows(self.raw, numbers, pl.Series([[check]] * len(numbers)))
        return replace(
            self,
            accepted=self.accepted.filter(~failed),
            rejected=pl.concat([self.rejected, more]).sort(ROW),
            row_numbers=self.row_numbers.filter(~failed),
        )


def unreadable_rows(raw: pl.DataFrame) -> pl.DataFrame | None:
    """The rows that cannot be read, as the table of rejected rows holds them; None if there are none."""
    if FAULT not in raw.columns or raw.get_column(FAULT).null_count() == raw.height:
        return None
    unreadable = raw.filter(pl.col(FAULT).is_not_null())
    failed = unreadable.get_column(FAULT).reshape((-1, 1)).cast(pl.List(pl.String))
    return rejected_rows(unreadable, pl.int_range(1, unreadable.height + 1, dtype=pl.UInt32, eager=True), failed)


def rejected_rows(raw: pl.DataFrame, row_numbers: pl.Series, failed_checks: pl.Series) -> pl.DataFrame:
    """Rows of a partition as the table of rejected rows holds them."""
    return rows_as_text(raw, row_numbers).with_columns(failed_checks.alias(FAILED_CHECKS))


def rows_as_text(raw: pl.DataFrame, row_numbers: pl.Series) -> pl.DataFrame:
    """The rows at these places: `_row`, and every column as text."""
    rows = raw[row_numbers - 1]
    numbers = rows.get_column(NUMBER) if NUMBER in raw.columns else row_numbers
    return rows.select(numbers.alias(ROW), *_text_columns(raw).values())


def _text_columns(raw: pl.DataFrame) -> dict[str, pl.Expr]:
    """Column of a table of rejected rows → how it is computed, but for `_row` and `_failed_checks`."""
    own = {name: as_text(pl.col(name), dtype) for name, dtype in raw.schema.items() if name not in CSV_COLUMNS}
    of_reader = {name: pl.col(found) for name, found in ((LINE, RAW_LINE), (ROW_TEXT, RECORD)) if found in raw.columns}
    return {name: text.alias(name) for name, text in (own | of_reader).items()}


def readable_rows(raw: pl.DataFrame) -> pl.DataFrame:
    """The rows that can be read: all but lines that are no rows."""
    return raw.filter(pl.col(FAULT).is_null()) if FAULT in raw.columns else raw


def no_rejected_rows(raw: pl.DataFrame) -> pl.DataFrame:
    """A table of rejected rows without a row."""
    return _no_rejected_rows(tuple(_text_columns(raw)))


@cache
def _no_rejected_rows(columns: tuple[str, ...]) -> pl.DataFrame:
    types = {name: pl.UInt32() if name == LINE else pl.String() for name in columns}
    return pl.DataFrame(schema={ROW: pl.UInt32(), **types, FAILED_CHECKS: pl.List(pl.String)})
