"""A raw partition of several objects → accepted and rejected rows, as if one object held the rows of all of them.

The objects are taken in the order of their keys, in batches of limited memory: what grows with their number are the
accepted rows alone. Each rejected row names its object, and its number in that object.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Self

import polars as pl

from headrace.dataset import UTC_MICROSECONDS, Source
from headrace.errors import HeadraceError
from headrace.storage.partition_names import entries_by_partition
from headrace.validate.apply_transform import apply_transform
from headrace.validate.compile_contract import contract_of
from headrace.validate.compiled_contract import QUERY_ERRORS, CompiledContract
from headrace.validate.contract_faults import are_rowwise
from headrace.validate.fit_columns import RawRows, StoredColumns, fill_absent, select_columns
from headrace.validate.partition_check import reject_rows_of_other_partitions
from headrace.validate.query import CheckedRows, row_query
from headrace.validate.reserved_names import FAILED_CHECKS, LINE, OBJECT, ROW, ROW_TEXT, START
from headrace.validate.result import (
    ValidationResult,
    no_rejected_rows,
    readable_rows,
    rejected_rows,
    rows_as_text,
    unreadable_rows,
)
from headrace.validate.schema_check import column_refusal, value_refusals
from headrace.validate.uniqueness import is_first_of_key, is_known_key, key_span, keys_together, unique_check
from headrace.validate.validate_partition import (
    change_start,
    read_raw,
    run_apart,
    start_of,
    validate_frame,
    validate_partition,
)

BATCH_BYTES = 32 << 20
"""Memory of the raw rows of objects that are checked together, unless one object alone has more."""


def validate_entries(
    source: Source, partition: str, files: Mapping[str, Path], keys: Mapping[str, str]
) -> ValidationResult:
    """Validate one partition against its contract and the keys of other partitions.

    Args:
        source: The source.
        partition: The partition to validate.
        files: Entry of the raw table → file, of that partition and of the earlier ones that may hold its keys.
        keys: Entry → key of its object, of partitions of several objects.

    Raises:
        HeadraceError: The partition is refused whole.
    """
    entries = entries_by_partition(files)
    if all(names == [name] for name, names in entries.items()):
        return validate_partition(source, partition, files)
    objects = {name: {keys.get(entry, entry): files[entry] for entry in names} for name, names in entries.items()}
    result = _validate(source, partition, objects.pop(partition))
    known = [_validate(source, name, each).accepted.select(source.key) for name, each in objects.items()]
    if not known:
        return result
    earlier = keys_together(result.accepted, known, source.key)
    return result.reject(is_known_key(result.accepted, earlier, source.key), unique_check(source.key))


def _validate(source: Source, partition: str, objects: Mapping[str, Path]) -> ValidationResult:
    if [*objects] == [partition]:
        return validate_frame(read_raw(source, partition, objects[partition]), source, partition)
    return validate_objects(source, partition, objects)


@dataclass(frozen=True)
class ObjectsResult(ValidationResult):
    """What became of the rows of several objects. Their raw rows are not kept: they are read again where needed.

    Attributes:
        rejected: As of one object, after a column `_object` with the key.
        raw: No rows, with the columns of all.
        row_numbers: The place, in its object, of each accepted row.
        object_numbers: The object of each accepted row, by its place in `keys`.
        keys: Keys of the objects.
        read_object: Place in `keys` → the rows of the object that can be read, as they came.
    """

    object_numbers: pl.Series = field(default_factory=pl.Series)
    keys: Sequence[str] = ()
    read_object: Callable[[int], pl.DataFrame] = lambda _number: pl.DataFrame()

    def origins(self, chosen: pl.Series) -> list[tuple[str, int]]:
        """Key of the object, and number in it, of each chosen accepted row."""
        objects = self._read_again(chosen)
        return [(key, number) for key, raw, rows in objects for number in rows_as_text(raw, rows).get_column(ROW)]

    def reject(self, failed: pl.Series, check: str) -> Self:
        """The result after the accepted rows where `failed` is true have failed `check` too."""
        if not failed.any():
            return self
        more = (
            _named(key, rejected_rows(raw, numbers, pl.Series([[check]] * len(numbers))))
            for key, raw, numbers in self._read_again(failed)
        )
        return replace(
            self,
            accepted=self.accepted.filter(~failed),
            rejected=_together([self.rejected, *more]),
            row_numbers=self.row_numbers.filter(~failed),
            object_numbers=self.object_numbers.filter(~failed),
        )

    def _read_again(self, chosen: pl.Series) -> Iterator[tuple[str, pl.DataFrame, pl.Series]]:
        """Key, raw rows and chosen places of each object that has one of the chosen accepted rows."""
        places = pl.DataFrame({OBJECT: self.object_numbers, ROW: self.row_numbers}).filter(chosen)
        for (number,), rows in places.partition_by(OBJECT, as_dict=True, maintain_order=True).items():
            yield self.keys[number], self.read_object(number), rows.get_column(ROW)


def validate_objects(source: Source, partition: str, objects: Mapping[str, Path]) -> ObjectsResult:
    """Validate one partition of several objects against its contract.

    Args:
        source: The source.
        partition: The partition.
        objects: Key → file.

    Raises:
        SchemaChangedError: An object has other columns than the contract; it is named.
        HeadraceError: The partition is refused whole.
    """
    keys = sorted(objects)
    read = partial(_read_object, source, partition, keys, objects)
    checked = CheckedObjects(source, partition, keys)
    for batch in _batches(read, len(keys), contract_of(source)):
        checked.add(batch)
    checked.refuse_retyped_columns()
    good = pl.concat(checked.good, rechunk=True)
    checked.good.clear()  # the rows are in memory twice otherwise
    rows = apply_transform(f"{source.name} {partition}", source, good)
    places = pl.concat(checked.places)
    result = ObjectsResult(
        rows,
        _together(checked.rejected),
        checked.columns,
        places.get_column(ROW),
        key_span(rows.get_column(source.key[0])),
        StoredColumns.of(checked.contract, [*checked.forms.values()]),
        places.get_column(OBJECT),
        keys,
        lambda number: readable_rows(read(number).frame),
    )
    if source.partitions is not None:
        result = reject_rows_of_other_partitions(result, source, partition)
    rows = result.accepted
    return result.reject(~is_first_of_key(rows, source.key, [rows.height]), unique_check(source.key))


class CheckedObjects:
    """The rows of objects, as far as they are checked."""

    def __init__(self, source: Source, partition: str, keys: Sequence[str]) -> None:
        self.source, self.partition, self.keys, self.contract = source, partition, keys, contract_of(source)
        self.good: list[pl.DataFrame] = []
        self.places: list[pl.DataFrame] = []
        self.rejected: list[pl.DataFrame] = []
        self.columns = pl.DataFrame()
        self.forms: dict[tuple[CompiledContract, tuple[tuple[str, str], ...]], RawRows] = {}
        self._retyped: dict[str, HeadraceError] = {}
        self._has_values: set[str] = set()

    def add(self, batch: Mapping[int, RawRows]) -> None:
        """Check the rows of some objects, given by the places of their keys."""
        parts: dict[int, CheckedRows] = {}
        readable = {number: readable_rows(rows.frame) for number, rows in batch.items()}
        by_schema: dict[tuple[CompiledContract, tuple[tuple[str, pl.DataType], ...]], dict[int, pl.DataFrame]] = {}
        for number, raw in readable.items():
            fitted, names = batch[number].contract, batch[number].names
            self.forms.setdefault((fitted, tuple(names.items())), RawRows(raw.clear(), fitted, names))
            by_schema.setdefault((fitted, tuple(raw.schema.items())), {})[number] = raw
        for (fitted, _), raws in by_schema.items():
            parts |= self._check(raws, fitted)
        self.columns = readable[min(readable)].clear()
        good, places, rejected = [], [], [_named("", no_rejected_rows(self.columns))]
        for number, raw in readable.items():
            key, part = self.keys[number], parts[number]
            rows = pl.int_range(1, raw.height + 1, dtype=pl.UInt32, eager=True)
            if part.is_bad.any():
                rejected.append(_named(key, rejected_rows(raw, rows.filter(part.is_bad), part.failed_checks())))
                rows = rows.filter(~part.is_bad)
            if (unreadable := unreadable_rows(batch[number].frame)) is not None:
                rejected.append(_named(key, unreadable))
            good.append(fill_absent(part.good_rows(), self.contract))
            places.append(pl.DataFrame({OBJECT: pl.repeat(number, len(rows), dtype=pl.UInt32, eager=True), ROW: rows}))
        self.good.append(pl.concat(good, rechunk=True))
        self.places.append(pl.concat(places, rechunk=True))
        self.rejected.append(pl.concat(rejected, how="diagonal"))

    def refuse_retyped_columns(self) -> None:
        """Refuse the partition if a column has values in it, and none of its type.

        Raises:
            HeadraceError: One has.
        """
        for name in self.contract.columns:
            if name in self._retyped and name not in self._has_values:
                raise self._retyped[name]

    def _check(self, raws: Mapping[int, pl.DataFrame], fitted: CompiledContract) -> dict[int, CheckedRows]:
        """Check the rows of objects whose columns have the same types, in one query."""
        first = next(iter(raws))
        query = row_query(fitted, tuple(raws[first].dtypes[: len(fitted.columns)]))
        if error := column_refusal(self._where(first), raws[first], query, change_start(self.source, self.partition)):
            raise error
        rows = pl.concat(raws.values()).rechunk()  # Polars panics at a mask over structs in several chunks
        if fitted.needs_start:
            rows = rows.with_columns(pl.lit(start_of(self.source, self.partition), UTC_MICROSECONDS).alias(START))
        try:
            checked = query.run(rows)
        except QUERY_ERRORS:  # each object by itself, so that what its rows fail depends on no other
            if len(raws) > 1 and _is_rowwise(fitted):
                alone = (self._check({number: raw}, fitted) for number, raw in raws.items())
                return {number: part for each in alone for number, part in each.items()}
            checked = run_apart(query, rows, self._where(*raws))
        self._note_types(rows, checked, self._where(*raws), fitted)
        return dict(zip(raws, checked.split([raw.height for raw in raws.values()]), strict=True))

    def _note_types(self, rows: pl.DataFrame, checked: CheckedRows, where: str, fitted: CompiledContract) -> None:
        refusals = value_refusals(where, rows, checked, fitted, change_start(self.source, self.partition))
        self._retyped = refusals | self._retyped
        self._has_values |= {
            name for name in fitted.columns if name not in refusals and rows.get_column(name).null_count() < rows.height
        }

    def _where(self, first: int, *others: int) -> str:
        last = f" … {self.keys[others[-1]]}" if others else ""
        return f"{self.source.name} {self.partition} ({self.keys[first]}{last})"


def _batches(read: Callable[[int], RawRows], count: int, contract: CompiledContract) -> Iterator[dict[int, RawRows]]:
    """Objects in batches of limited memory; all of them where a check compares rows."""
    most = BATCH_BYTES if _is_rowwise(contract) else None
    batch: dict[int, RawRows] = {}
    size: float = 0
    for number in range(count):
        batch[number] = read(number)
        size += batch[number].frame.estimated_size()
        if most is not None and size > most:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


@cache
def _is_rowwise(contract: CompiledContract) -> bool:
    return are_rowwise(contract.columns, contract.checks)


def _read_object(
    source: Source, partition: str, keys: Sequence[str], objects: Mapping[str, Path], number: int
) -> RawRows:
    """The rows of an object, in the columns of the contract."""
    key = keys[number]
    frame = read_raw(source, partition, objects[key], key)
    return select_columns(f"{source.name} {partition} ({key})", frame, contract_of(source), source, partition)


def _together(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Rejected rows of objects, in the order of keys and rows. Columns that readers give of some objects come late."""
    rows = pl.concat(parts, how="diagonal").sort(OBJECT, ROW)
    late = [name for name in (LINE, ROW_TEXT, FAILED_CHECKS) if name in rows.columns]
    return rows.select(pl.exclude(late), *late)


def _named(key: str, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(pl.lit(key, pl.String).alias(OBJECT), pl.all())
