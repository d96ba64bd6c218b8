"""Raw rows → typed rows and one Boolean per check: one Polars query for the rows of a partition, or of several."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import polars as pl

from headrace.dataset import UTC_MICROSECONDS
from headrace.validate.as_text import as_text
from headrace.validate.column_history import EarlierType
from headrace.validate.compiled_contract import QUERY_ERRORS, CompiledContract, RowCheck, query_reason
from headrace.validate.errors import InvalidContractError
from headrace.validate.json_values import JSON_VALUE
from headrace.validate.parsing import holds_times, is_naive_time, parse
from headrace.validate.reserved_names import MARK, START
from headrace.validate.text_formats import TextFormats, formats_of

RAW = f"{MARK}raw "
"""Before the name of a column as it came."""

IS_BAD = f"{MARK}is bad"


@dataclass(frozen=True)
class CheckedRows:
    """What the query found.

    Attributes:
        typed: The contract's columns, null where a value is not one of its type.
        failed: Check → True for each row that fails it.
        is_bad: True for each row that fails a check.
    """

    typed: pl.DataFrame
    failed: pl.DataFrame
    is_bad: pl.Series

    def split(self, heights: Iterable[int]) -> Iterator["CheckedRows"]:
        """The rows in parts of these heights."""
        start = 0
        for height in heights:
            typed, failed = self.typed.slice(start, height), self.failed.slice(start, height)
            yield CheckedRows(typed, failed, self.is_bad.slice(start, height))
            start += height

    def good_rows(self) -> pl.DataFrame:
        """The typed rows that fail no check."""
        return self.typed.filter(~self.is_bad) if self.is_bad.any() else self.typed

    def failed_checks(self) -> pl.Series:
        """The names of the checks that each bad row fails, in the contract's order; there is at least one such row."""
        failed = self.failed.filter(self.is_bad)
        names = [pl.when(column.name).then(pl.lit(column.name)) for column in failed if column.any()]
        return failed.select(pl.concat_list(names).list.drop_nulls()).to_series()


@dataclass(frozen=True, eq=False)
class RowQuery:
    """The query for raw rows of one schema.

    A check says nothing about a row in which a column that it reads did not parse: that row fails `<column>|dtype`.
    A check whose answer is null passes, as in dataframely.

    Attributes:
        schema: Column → type of the raw rows, the contract's columns only.
        contract: The compiled contract.
    """

    schema: Mapping[str, pl.DataType]
    contract: CompiledContract

    @cached_property
    def typed(self) -> dict[str, pl.Expr | None]:
        """Column → expression that parses it; None where no value of the raw type can be one of the declared type."""
        return {name: self._typed(name, dtype) for name, dtype in self.contract.columns.items()}

    def _typed(self, name: str, dtype: pl.DataType) -> pl.Expr | None:
        earlier, raw, words = self.contract.earlier_types.get(name), self.schema[name], self.contract.words.get(name)
        if earlier is None or earlier.parse is None:
            return parse(pl.col(name), raw, dtype, words)
        known = parse(pl.col(name), raw, earlier.dtype)
        return None if known is None else parse_earlier(known, earlier, dtype, formats_of(raw), words)

    def run(self, raw: pl.DataFrame) -> CheckedRows:
        """Apply all checks at once.

        Args:
            raw: The rows, with `START` if the contract needs it.

        Raises:
            One of `QUERY_ERRORS`: a check cannot be applied to some value.
        """
        return self._checked(self._parse(raw).with_columns(self._checks))

    def run_apart(self, raw: pl.DataFrame) -> CheckedRows:
        """The same check by check, for rows at which `run` fails: it gets by without a failure, or names the check.

        A check of several columns sees null in place of a value that fails a check of its own column, and says nothing
        about that row: a delay of a million years is rejected by its limit, and no time is computed from it.

        Raises:
            InvalidContractError: A check cannot be applied to a value that its column's checks let pass.
        """
        frame = self._parse(raw).collect()
        own = {name: list(self._unparsed(name)) for name in self.contract.columns}
        for check in self.contract.checks:
            if len(check.reads) == 1:
                frame = frame.with_columns(_apply(frame, check, self._failed(check)))
                own[min(check.reads)].append(MARK + check.name)
        passing = frame.with_columns(
            pl.when(~pl.any_horizontal(marks)).then(pl.col(name)).alias(name) for name, marks in own.items() if marks
        )
        for check in self.contract.checks:
            if len(check.reads) != 1:
                silent = [mark for name in check.reads - {START} for mark in own[name]]
                frame = frame.with_columns(_apply(passing, check, self._failed(check, silent)))
        return self._checked(frame.lazy())

    def _parse(self, raw: pl.DataFrame) -> pl.LazyFrame:
        """Typed columns, raw ones where they differ, and the checks of parsing."""
        start = [START] * self.contract.needs_start
        as_they_came = [pl.col(name).alias(RAW + name) for name in self.typed if self._can_fail(name)]
        typed = [expr.alias(name) for name, expr in self.typed.items() if expr is not None]
        return raw.lazy().select(*start, *as_they_came, *typed).with_columns(**self._parse_checks)

    def _can_fail(self, name: str) -> bool:
        """Whether a value of the column can become null by parsing."""
        dtype = self.contract.columns[name]
        return self.schema[name] != dtype or holds_times(dtype) or name in self.contract.earlier_types

    @cached_property
    def _parse_checks(self) -> dict[str, pl.Expr]:
        """Check, marked → True for each row that fails it."""
        failures = {}
        for name, dtype in self.contract.columns.items():
            raw = pl.col(name)
            if self._can_fail(name):
                raw = pl.col(RAW + name)
                failed = raw.is_not_null() & pl.col(name).is_null()
                if _is_text(self.schema[name]) and dtype == UTC_MICROSECONDS:
                    text = as_text(raw, self.schema[name])
                    naive = is_naive_time(pl.when(failed).then(text)).fill_null(value=False)
                    failures[f"{MARK}{name}|zone"] = naive
                    failed &= ~naive
                failures[f"{MARK}{name}|dtype"] = failed
            if name in self.contract.required:
                failures[f"{MARK}{name}|nullability"] = raw.is_null()
        return failures

    @cached_property
    def _checks(self) -> list[pl.Expr]:
        return [self._failed(check) for check in self.contract.checks]

    def _unparsed(self, name: str) -> Iterable[str]:
        """The columns that tell where a value does not parse."""
        return (mark for rule in ("zone", "dtype") if (mark := f"{MARK}{name}|{rule}") in self._parse_checks)

    def _failed(self, check: RowCheck, silent: Iterable[str] = ()) -> pl.Expr:
        """True for each row that fails the check, unless one of the columns `silent` is true."""
        silent = [*silent, *(mark for name in sorted(check.reads) for mark in self._unparsed(name))]
        failed = ~check.passes & ~pl.any_horizontal(silent) if silent else ~check.passes
        return failed.fill_null(value=False).alias(MARK + check.name)

    def _checked(self, query: pl.LazyFrame) -> CheckedRows:
        marks = [*self._parse_checks, *(MARK + check.name for check in self.contract.checks)]
        checked = query.with_columns(pl.any_horizontal(pl.lit(value=False), *marks).alias(IS_BAD)).collect()
        failed = checked.select(pl.col(mark).alias(mark.removeprefix(MARK)) for mark in marks)
        return CheckedRows(checked.select(list(self.typed)), failed, checked.get_column(IS_BAD))


def parse_earlier(
    known: pl.Expr,
    earlier: EarlierType,
    wanted: pl.DataType,
    formats: TextFormats | None = None,
    words: Mapping[str, bool] | None = None,
) -> pl.Expr:
    """Values of an earlier type as those of the declared one, by the declared function.

    Args:
        known: Values of the earlier type.
        earlier: That type, and the function.
        wanted: The declared type.
        formats: In which forms the file writes: a text that the function gives is read as any text of the file.
        words: Text in lower case → Boolean, where `boolean` declares it.

    Raises:
        InvalidContractError: It cannot be applied to that type, or gives values that cannot be of the declared one.
    """
    if earlier.parse is None:
        return known.cast(wanted)
    convert = earlier.parse
    place = f"`parse` of the values of {earlier.dtype} before {earlier.until}"
    try:
        found = pl.LazyFrame(schema={"v": earlier.dtype}).select(v=convert(pl.col("v"))).collect_schema()["v"]
        values = convert(known)
        if formats is not None and found == pl.String:
            values, found = formats.cells(values), formats.dtype
        converted = parse(values, found, wanted, words)
    except Exception as error:  # whatever the team's function raises
        raise InvalidContractError(f"{place} raised {type(error).__name__}: {error}") from error
    if converted is None:
        raise InvalidContractError(f"{place} gives {found}, expected {wanted}, or text that is read as that")
    return converted


@cache
def row_query(contract: CompiledContract, types: tuple[pl.DataType, ...]) -> RowQuery:
    """The query for raw rows of these types, in the order of the contract's columns."""
    return RowQuery(dict(zip(contract.columns, types, strict=True)), contract)


def _is_text(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, JSON_VALUE) or formats_of(dtype) is not None


def _apply(frame: pl.DataFrame, check: RowCheck, failed: pl.Expr) -> pl.Series:
    try:
        return frame.select(failed).to_series()
    except QUERY_ERRORS as error:
        reason = query_reason(error)
        raise InvalidContractError(f"the check {check.name!r} cannot be applied to these rows: {reason}") from None
