"""The columns of a raw partition as the contract has them, and back to how the partition is stored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from headrace.dataset import Source
from headrace.validate.column_history import ColumnHistory
from headrace.validate.compiled_contract import CompiledContract
from headrace.validate.json_values import JSON_VALUE
from headrace.validate.reserved_names import CSV_COLUMNS
from headrace.validate.schema_check import check_columns


@dataclass(frozen=True)
class RawRows:
    """The rows of a partition or an object.

    Attributes:
        frame: The columns of `contract`, then those that readers add.
        contract: The contract as it holds for these rows.
        names: Column → the earlier name that the partition keeps, where it has one.
    """

    frame: pl.DataFrame
    contract: CompiledContract
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredColumns:
    """How the columns of a partition differ from those that the contract names.

    Attributes:
        absent: Columns that it lacks.
        names: Column → the earlier name that it has there.
        histories: Column → how it changed.
    """

    absent: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    histories: Mapping[str, ColumnHistory] = field(default_factory=dict)

    @classmethod
    def of(cls, contract: CompiledContract, parts: Sequence[RawRows]) -> "StoredColumns":
        """Those of the objects of a partition together: a column that one has is there, in its name if all agree."""
        if not contract.histories:
            return cls()
        present = {name for part in parts for name in part.contract.columns}
        names = {name: {part.names.get(name) for part in parts if name in part.contract.columns} for name in present}
        return cls(
            frozenset(contract.columns.keys() - present),
            {name: found.pop() or name for name, found in names.items() if len(found) == 1 and found != {None}},
            contract.histories,
        )

    def accepted(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The validated rows as they are stored: without what was filled in, under the names that the partition has."""
        filled = {name for absent in self.absent for name in (absent, *self.histories[absent].derived)}
        return self._rename(rows.select(pl.exclude(filled & {*rows.columns})) if filled else rows)

    def rejected(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rejected rows as they are stored."""
        return self._rename(rows)

    def _rename(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.rename({name: own for name, own in self.names.items() if name in rows.columns})


def select_columns(where: str, frame: pl.DataFrame, contract: CompiledContract, source: Source, name: str) -> RawRows:
    """The columns that the contract names, and those that readers add.

    Args:
        where: Source, partition and object, for messages.
        frame: The rows as `read` gives them.
        contract: The contract.
        source: The source.
        name: The partition.

    Raises:
        SchemaChangedError: A column is missing, renamed or added, and the contract does not say so.
    """
    added = [name for name in CSV_COLUMNS if name in frame.columns]
    own = [dtype for it, dtype in frame.schema.items() if it not in added]
    is_json = bool(added) and (JSON_VALUE in own or not own)
    rows = _with_every_key(frame, contract) if is_json else frame
    renamed = _renamed_columns(rows.columns, contract.histories)
    known = rows.rename(renamed) if renamed else rows
    absent = {it for it, history in contract.histories.items() if _is_absent(known, it, history, name)}
    check_columns(where, rows[[it for it in rows.columns if it not in added]], contract, source, name, absent)
    present = [it for it in contract.columns if it not in absent]
    names = {new: contract.histories[new].stored_name(old) for old, new in renamed.items() if new in present}
    return RawRows(
        known[[*present, *added]],
        contract.fitted(name, frozenset(present)),
        {new: earlier for new, earlier in names.items() if earlier},
    )


def fill_absent(rows: pl.DataFrame, contract: CompiledContract) -> pl.DataFrame:
    """Typed rows with all columns of the contract: those that they lack have their default."""
    if rows.width == len(contract.columns):
        return rows
    lacking = (name for name in contract.columns if name not in rows.columns)
    filled = [pl.lit(contract.histories[name].default, contract.columns[name]).alias(name) for name in lacking]
    return rows.with_columns(filled).select(*contract.columns)


def _renamed_columns(found: Iterable[str], histories: Mapping[str, ColumnHistory]) -> dict[str, str]:
    """Name in the file → name in the contract, of columns of which the file has one name only."""
    there = {*found}
    names: dict[str, str] = {}
    for name, history in histories.items():
        others = [other for other in history.other_names if other in there]
        if len(others) == 1 and name not in there:
            names[others[0]] = name
    return names


def _is_absent(rows: pl.DataFrame, name: str, history: ColumnHistory, partition: str) -> bool:
    """Whether a partition that need not have the column lacks it, or has no value in it."""
    if history.is_required(partition):
        return False
    return name not in rows.columns or rows.get_column(name).null_count() == rows.height


def _with_every_key(frame: pl.DataFrame, contract: CompiledContract) -> pl.DataFrame:
    """Rows of objects: a key that occurs in none of them is null in all."""
    there = {*frame.columns, *_renamed_columns(frame.columns, contract.histories).values()}
    missing = [name for name in contract.columns if name not in there]
    return pl.concat([frame, pl.DataFrame(schema=dict.fromkeys(missing, JSON_VALUE))], how="diagonal")
