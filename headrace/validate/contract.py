"""raw → validated: which rows of a partition meet the contract of its source.

Rows in = rows accepted + rows rejected, and a rejected row keeps its text and the name of every check that it
failed. A pure function of the rows, the contract and the partition's name: it reads no clock and no file.

What a contract is: a `pandera.polars.DataFrameSchema` of the raw columns. Beyond Pandera's own checks,
- a value that does not parse as its column's type fails `dtype(...)`, a time without a zone fails `zone`;
- NaN and infinities fail `finite`, unless the column's metadata says `{"finite": False}`;
- a time outside its column's `{"within": Within(...)}` fails `not_before(...)` or `before(...)`;
- of several rows with one key, the first in file order stays and the others fail `unique(...)`;
- `strict=True` refuses columns that it does not name, anything else leaves them behind.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from headrace.dataset import UNPARTITIONED, UTC_MICROSECONDS, Source
from headrace.errors import HeadraceError
from headrace.validate.fast_path import Look, look, parsed_time
from headrace.validate.result import CHECK, CHECKS, ROW, Verdict, as_text

ISO_WITHOUT_ZONE = "%Y-%m-%dT%H:%M:%S%.f"
WHICH = "which partition"


class SchemaChangedError(HeadraceError):
    """The columns of a raw partition are not the contract's."""


class RetypedColumnError(HeadraceError):
    """No value of a column is of the type that the contract names."""


class NaiveTimeError(HeadraceError):
    """A column of times names no zone."""


class ContractFaultError(HeadraceError):
    """The contract itself cannot be applied: a check or the tidying is wrong, not the data."""


@dataclass(frozen=True)
class TimeBounds:
    """What times a column may hold: from `first`, up to and without `last`.

    A duration counts from the start (UTC) of the partition's day; a source of one partition gives times.
    """

    first: timedelta | datetime
    last: timedelta | datetime

    def bounds(self, partition: str) -> tuple[datetime, datetime]:
        """Both ends for one partition, in UTC."""
        return _instant(self.first, partition), _instant(self.last, partition)


def split(frame: pl.DataFrame, source: Source, partition: str) -> Verdict:
    """Decides for each row of a raw partition whether it meets the contract.

    Raises:
        SchemaChangedError: A column is missing, renamed or added.
        RetypedColumnError: No value of a column parses as its type.
        NaiveTimeError: A column of times has no zone.
    """
    where = f"{source.name} {partition}"
    _check_columns(where, frame.columns, source.contract)
    raw = frame.select(*source.contract.columns).rechunk()
    seen = look(raw, source.contract)
    if seen and _is_fine(seen, partition):
        verdict = Verdict.of(_tidied(where, source, seen.typed), raw)
    else:
        verdict = _sorted_out(where, source, raw, partition)
    return verdict.reject(~first_of_key(verdict.accepted, source.key), unique_check(source.key))


def split_together(frames: Mapping[str, pl.DataFrame], source: Source) -> dict[str, Verdict]:
    """What `split` would say of these partitions, of all that it would not refuse; nothing where only Pandera can say.

    Raises:
        SchemaChangedError: A column is missing, renamed or added.
    """
    for name, frame in frames.items():
        _check_columns(f"{source.name} {name}", frame.columns, source.contract)
    raws = {name: frame.select(*source.contract.columns) for name, frame in frames.items()}
    if len({tuple(raw.schema.items()) for raw in raws.values()}) > 1:
        return {}
    seen = look(pl.concat(raws.values(), rechunk=True), source.contract)
    fine = dict(_fine(seen, raws)) if seen else {}
    if not seen:
        return {}
    verdicts = dict(_each_sorted_out({name: raw for name, raw in raws.items() if name not in fine}, source))
    if fine:
        typed = seen.typed if len(fine) == len(raws) else pl.concat(fine.values(), rechunk=True)
        verdicts |= _all_accepted({name: raws[name] for name in fine}, typed, source)
    return verdicts


def _each_sorted_out(raws: Mapping[str, pl.DataFrame], source: Source) -> Iterator[tuple[str, Verdict]]:
    """The verdicts over partitions with bad rows, but for those that are refused."""
    for name, raw in raws.items():
        with suppress(HeadraceError):
            verdict = _sorted_out(f"{source.name} {name}", source, raw, name)
            yield name, verdict.reject(~first_of_key(verdict.accepted, source.key), unique_check(source.key))


def _fine(seen: Look, raws: Mapping[str, pl.DataFrame]) -> Iterator[tuple[str, pl.DataFrame]]:
    """The typed rows of each partition that has no bad one."""
    start, is_good = 0, seen.is_good
    for name, raw in raws.items():
        part = seen.part(start, raw.height)
        if (is_good or part.is_good) and _is_inside(part.typed, seen.schema, name):
            yield name, part.typed
        start += raw.height


def _all_accepted(raws: Mapping[str, pl.DataFrame], typed: pl.DataFrame, source: Source) -> dict[str, Verdict]:
    """The verdicts over partitions whose rows are good, but for keys that stand twice in one."""
    tidy = _tidied(source.name, source, typed)
    parts = (pl.repeat(number, raw.height, dtype=pl.UInt32, eager=True) for number, raw in enumerate(raws.values()))
    again = ~first_of_key(tidy.with_columns(pl.concat(parts).alias(WHICH)), (WHICH, *source.key))
    verdicts, start = {}, 0
    for name, raw in raws.items():
        verdict = Verdict.of(tidy.slice(start, raw.height), raw)
        verdicts[name] = verdict.reject(again.slice(start, raw.height), unique_check(source.key))
        start += raw.height
    return verdicts


def _sorted_out(where: str, source: Source, raw: pl.DataFrame, partition: str) -> Verdict:
    """The verdict before keys are looked at, with the checks that each bad row failed."""
    schema: pa.DataFrameSchema = source.contract
    typed, unparsed = _parsed(where, raw, schema)
    failures = pl.concat([unparsed, _broken(where, typed, schema, unparsed), _outside(typed, schema, partition)])
    checks = failures.group_by(ROW, maintain_order=True).agg(pl.col(CHECK).unique(maintain_order=True).alias(CHECKS))
    text = as_text(raw)
    rejected = text.join(checks, on=ROW, how="inner", maintain_order="left")
    good = ~text.get_column(ROW).is_in(rejected.get_column(ROW).implode())
    return Verdict(_tidied(where, source, typed.filter(good)), rejected, raw, text.get_column(ROW).filter(good))


def unique_check(key: Sequence[str]) -> str:
    """The name of the check that a key stands once in the whole table."""
    return f"unique({', '.join(key)})"


def first_of_key(tidy: pl.DataFrame, key: Sequence[str]) -> pl.Series:
    """True for the first row of each key, in file order."""
    return tidy.select(pl.struct(key).is_first_distinct()).to_series()


def _check_columns(where: str, seen: Sequence[str], schema: pa.DataFrameSchema) -> None:
    missing = [name for name in schema.columns if name not in seen]
    added = [name for name in seen if name not in schema.columns]
    if not missing and (not added or schema.strict is not True):
        return
    findings = [f"missing {', '.join(missing)}"] * bool(missing) + [f"new {', '.join(added)}"] * bool(added)
    hint = f" Renamed: new {added[0]}, missing {missing[0]}?" if missing and added else ""
    raise SchemaChangedError(
        f"{where}: the columns changed: {'; '.join(findings)}. Expected {', '.join(schema.columns)}.{hint}"
        " Nothing of this partition was accepted. Fix the source, or name the column in its contract, then run"
        " `headrace validate` again."
    )


def _parsed(where: str, raw: pl.DataFrame, schema: pa.DataFrameSchema) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The typed frame, and (row, check) of every value that could not be parsed."""
    columns, failures = [], [_failures(raw.height, {})]
    for name, column in schema.columns.items():
        series, wanted = raw.get_column(name), column.dtype.type
        parsed = _typed(where, series, wanted)
        failed = series.is_not_null() & parsed.is_null()
        if failed.any():
            failures.append(_unparsed(where, series, wanted, failed))
        columns.append(parsed)
    return pl.DataFrame(columns), pl.concat(failures)


def _typed(where: str, series: pl.Series, wanted: pl.DataType) -> pl.Series:
    """`series` as the wanted type, null where a value does not fit."""
    seen = series.dtype
    if isinstance(wanted, pl.Datetime):
        return _timed(where, series)
    if seen in (wanted, pl.Null) or (seen == pl.String and wanted.is_numeric()):
        return series.cast(wanted, strict=False)
    if seen.is_numeric() and wanted.is_numeric():
        number = series.cast(wanted, strict=False)
        lossless = number.cast(pl.Float64) == series.cast(pl.Float64)
        return number if wanted.is_float() else number.set(~lossless, None)
    raise _retyped(where, series, wanted)


def _timed(where: str, series: pl.Series) -> pl.Series:
    """Times as UTC microseconds."""
    if series.dtype == pl.Null:
        return series.cast(UTC_MICROSECONDS)
    if series.dtype == pl.String:
        return series.to_frame().select(parsed_time(series.name)).to_series()
    if not isinstance(series.dtype, pl.Datetime):
        raise _retyped(where, series, UTC_MICROSECONDS)
    if series.dtype.time_zone is None:
        raise _naive(where, series)
    return series.dt.cast_time_unit("us").dt.convert_time_zone("UTC")


def _unparsed(where: str, series: pl.Series, wanted: pl.DataType, failed: pl.Series) -> pl.DataFrame:
    """The failures of one column; if no value at all could be parsed, the column is another one."""
    naive = pl.repeat(value=False, n=len(series), eager=True)
    if isinstance(wanted, pl.Datetime):
        naive = failed & series.to_frame().select(parsed_time(series.name, ISO_WITHOUT_ZONE)).to_series().is_not_null()
    if failed.sum() == series.count():
        raise _naive(where, series) if naive.all() else _retyped(where, series, wanted)
    return _failures(
        len(series),
        {f"{series.name}: zone": naive, f"{series.name}: dtype({_type_name(wanted)})": failed & ~naive},
    )


def _broken(where: str, typed: pl.DataFrame, schema: pa.DataFrameSchema, unparsed: pl.DataFrame) -> pl.DataFrame:
    """(row, check) of everything that Pandera finds, and of numbers that are not finite."""
    finite = {
        f"{name}: finite": ~typed.get_column(name).is_finite().fill_null(value=True)
        for name, column in schema.columns.items()
        if column.dtype.type.is_float() and (column.metadata or {}).get("finite", True)
    }
    found = pl.concat([_failures(typed.height, finite), _pandera_failures(where, typed, schema)])
    blank = unparsed.select(ROW, pl.concat_str(pl.col(CHECK).str.extract("^(.*): "), pl.lit(": not_null")))
    return found.join(blank.rename({"check": CHECK}), on=[ROW, CHECK], how="anti", maintain_order="left")


def _pandera_failures(where: str, typed: pl.DataFrame, schema: pa.DataFrameSchema) -> pl.DataFrame:
    try:
        schema.validate(typed, lazy=True)
    except SchemaErrors as error:
        cases: pl.DataFrame = error.failure_cases
    else:
        return _failures(typed.height, {})
    if cases.get_column("index").null_count():
        fault = cases.filter(pl.col("index").is_null()).row(0, named=True)
        raise ContractFaultError(
            f"{where}: the check {fault['check']!r} could not be applied: {fault['failure_case'].splitlines()[0]}."
            " The contract is at fault, not the data; mend it, then run `headrace validate` again."
        )
    name = pl.col("check").str.replace("^not_nullable$", "not_null")
    by_column = pl.concat_str("column", name, separator=": ")
    return cases.select((pl.col("index") + 1).cast(pl.UInt32).alias(ROW), pl.coalesce(by_column, name).alias(CHECK))


def _is_fine(seen: Look, partition: str) -> bool:
    return seen.is_good and _is_inside(seen.typed, seen.schema, partition)


def _is_inside(typed: pl.DataFrame, schema: pa.DataFrameSchema, partition: str) -> bool:
    """Whether every time is within its column's bounds."""
    for name, column in schema.columns.items():
        within: TimeBounds | None = (column.metadata or {}).get("within")
        if within is not None:
            times, (first, last) = typed.get_column(name), within.bounds(partition)
            if times.count() and not first <= times.min() <= times.max() < last:  # type: ignore[operator]
                return False
    return True


def _outside(typed: pl.DataFrame, schema: pa.DataFrameSchema, partition: str) -> pl.DataFrame:
    """(row, check) of every time outside its column's bounds."""
    failed = {}
    for name, column in schema.columns.items():
        within: TimeBounds | None = (column.metadata or {}).get("within")
        if within is not None:
            times, (first, last) = typed.get_column(name), within.bounds(partition)
            failed[f"{name}: not_before({_bound_name(within.first)})"] = (times < first).fill_null(value=False)
            failed[f"{name}: before({_bound_name(within.last)})"] = (times >= last).fill_null(value=False)
    return _failures(typed.height, failed)


def _failures(height: int, failed: Mapping[str, pl.Series]) -> pl.DataFrame:
    """Check → mask as rows of (row, check)."""
    rows = pl.int_range(1, height + 1, dtype=pl.UInt32, eager=True)
    parts = [
        pl.DataFrame({ROW: rows.filter(mask)}).with_columns(pl.lit(name).alias(CHECK)) for name, mask in failed.items()
    ]
    return pl.concat([pl.DataFrame(schema={ROW: pl.UInt32, CHECK: pl.String}), *parts])


def _tidied(where: str, source: Source, typed: pl.DataFrame) -> pl.DataFrame:
    tidy = source.transform(typed)
    if tidy.height != typed.height:
        raise ContractFaultError(
            f"{where}: tidying made {tidy.height} of {typed.height} rows. It must keep every row and their"
            " order; what has to go is rejected by a check of the contract."
        )
    return tidy


def _instant(bound: timedelta | datetime, partition: str) -> datetime:
    if isinstance(bound, datetime):
        return bound
    if partition == UNPARTITIONED:
        raise ContractFaultError("A source of one partition needs fixed times in `Within`, not durations.")
    return datetime.combine(date.fromisoformat(partition), datetime.min.time(), UTC) + bound


def _bound_name(bound: timedelta | datetime) -> str:
    if isinstance(bound, datetime):
        return f"{bound:%Y-%m-%d}"
    return f"day {bound // timedelta(hours=1):+d} h"


def _type_name(wanted: pl.DataType) -> str:
    return "time in UTC" if isinstance(wanted, pl.Datetime) else str(wanted)


def _retyped(where: str, series: pl.Series, wanted: pl.DataType) -> RetypedColumnError:
    return RetypedColumnError(
        f"{where}: the column {series.name} was retyped: expected {_type_name(wanted)}, but none of its"
        f" {series.count():,} values is; seen as {series.dtype}: {_examples(series)}. Nothing of this partition"
        " was accepted. Fix the source or its contract, then run `headrace validate` again."
    )


def _naive(where: str, series: pl.Series) -> NaiveTimeError:
    return NaiveTimeError(
        f"{where}: the times of the column {series.name} name no zone: {_examples(series)}. Expected times with"
        " their zone, as in 2013-01-01T10:00:00Z; none is guessed. Fix the source (for PostgreSQL: `timestamptz`"
        " columns), then run `headrace ingest` and `headrace validate` again."
    )


def _examples(series: pl.Series) -> str:
    return ", ".join(repr(str(value)) for value in series.drop_nulls().unique(maintain_order=True).head(3))
