"""A contract as one Polars query evaluates it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import polars as pl

from headrace.validate.column_history import ColumnHistory, EarlierType
from headrace.validate.reserved_names import START

QUERY_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What a query raises. A panic of Polars is not an `Exception`, so whoever catches only those lets it through."""


def query_reason(error: BaseException) -> str:
    """Why a query failed, in one line: the first one, and where it only says that a pattern is wrong, what is wrong."""
    lines = str(error).strip().splitlines()
    causes = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return " ".join([lines[0], *causes]) if lines else type(error).__name__


@dataclass(frozen=True)
class RowCheck:
    """One check of each row.

    Attributes:
        name: `<column>|<rule>`, or the name of the schema's method.
        passes: True or null for a good row.
        reads: The columns that it looks at.
        limit: What it holds values to, for a message: `at most 200`.
    """

    name: str
    passes: pl.Expr
    reads: frozenset[str]
    limit: str = ""


@dataclass(frozen=True, eq=False)
class CompiledContract:
    """The type of each column and the checks of each row.

    Attributes:
        columns: Column → type.
        required: The columns in which null is a failure.
        checks: All checks but those of types and nulls.
        needs_start: Whether a check counts from the start of the row's partition, which is then in the column `START`.
        histories: Column → how it changed, of those that did.
        earlier_types: Column → the type in which these rows have it, if that is parsed into the declared one.
        words: Column of Booleans → text in lower case → what it stands for, where `boolean` declares it.
    """

    columns: Mapping[str, pl.DataType]
    required: frozenset[str]
    checks: tuple[RowCheck, ...]
    needs_start: bool
    histories: Mapping[str, ColumnHistory] = field(default_factory=dict)
    earlier_types: Mapping[str, EarlierType] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)

    def fitted(self, partition: str, present: frozenset[str]) -> "CompiledContract":
        """The contract as it holds for rows of a partition that have these of its columns.

        Checks that read a column which the rows lack say nothing about them.
        """
        if not self.histories:
            return self
        types = {name: history.earlier_type(partition) for name, history in self.histories.items() if name in present}
        return _fit(self, present, tuple((name, each) for name, each in types.items() if each))

    def describe(self, check: str) -> str:
        """The name of a check, with its limit: `wind_speed|max (at most 200)`."""
        limit = next((each.limit for each in self.checks if each.name == check), "")
        return f"{check} ({limit})" if limit else check


@cache
def _fit(
    contract: CompiledContract, present: frozenset[str], earlier: tuple[tuple[str, EarlierType], ...]
) -> CompiledContract:
    own = {name: each.dtype for name, each in earlier if each.parse is None}
    checks = tuple(check for check in contract.checks if not (check.reads & contract.columns.keys()) - present)
    return replace(
        contract,
        columns={name: own.get(name, dtype) for name, dtype in contract.columns.items() if name in present},
        required=contract.required & present,
        checks=checks,
        needs_start=any(START in check.passes.meta.root_names() for check in checks),
        earlier_types={name: each for name, each in earlier if each.parse is not None},
    )
