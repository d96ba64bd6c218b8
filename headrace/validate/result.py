"""What became of the rows of a partition: accepted, or rejected with the checks that each failed."""

from dataclasses import dataclass
from functools import cache

import polars as pl

ROW, CHECK, CHECKS = "row", "check", "checks"


@dataclass(frozen=True)
class Verdict:
    """What became of a partition's rows.

    Attributes:
        accepted: Tidy rows, in file order.
        rejected: Every raw column as text, `row` (counted from 1) and `checks`, the names of those it failed.
        raw: All rows as they came.
        numbers: The number (`row`) of each accepted row.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    raw: pl.DataFrame
    numbers: pl.Series

    @classmethod
    def of(cls, accepted: pl.DataFrame, raw: pl.DataFrame) -> "Verdict":
        """The verdict that accepts every row."""
        numbers = pl.int_range(1, raw.height + 1, dtype=pl.UInt32, eager=True)
        return cls(accepted, _no_rows(tuple(raw.columns)), raw, numbers)

    @property
    def rows_in(self) -> int:
        """Rows of the raw partition."""
        return self.accepted.height + self.rejected.height

    @property
    def counts(self) -> dict[str, int]:
        """Check → rows that failed it, most frequent first."""
        checks = self.rejected.get_column(CHECKS).explode(empty_as_null=False)
        counted = checks.value_counts(name="rows").sort(["rows", CHECKS], descending=[True, False])
        return dict(counted.iter_rows())

    @property
    def kept(self) -> pl.DataFrame:
        """The accepted rows as they came: raw columns as text and `row`, in the order of `accepted`."""
        return as_text(self.raw, self.numbers)

    def reject(self, failed: pl.Series, check: str) -> "Verdict":
        """The verdict after the accepted rows where `failed` is true have failed `check` too."""
        if not failed.any():
            return self
        more = as_text(self.raw, self.numbers.filter(failed))
        more.insert_column(more.width, pl.Series(CHECKS, [[check]] * more.height))
        rejected = pl.concat([self.rejected, more]).sort(ROW) if self.rejected.height else more
        return Verdict(self.accepted.filter(~failed), rejected, self.raw, self.numbers.filter(~failed))


def as_text(raw: pl.DataFrame, numbers: pl.Series | None = None) -> pl.DataFrame:
    """Rows with every column as text, and `row`, which counts from 1; by default all of them."""
    if numbers is None:
        return raw.select(pl.all().cast(pl.String)).with_row_index(ROW, offset=1)
    text = raw[numbers - 1].select(pl.all().cast(pl.String))
    return text.insert_column(0, numbers.alias(ROW))


@cache
def _no_rows(columns: tuple[str, ...]) -> pl.DataFrame:
    text = dict.fromkeys(columns, pl.String())
    return pl.DataFrame(schema={ROW: pl.UInt32(), **text, CHECKS: pl.List(pl.String)})
