"""The columns of a table as every reader sees them, where the files of its partitions differ in theirs.

Columns are matched by field id, as in Iceberg: one that was renamed has its id in the files of both names. A file that
lacks a column has its initial default in every row, and a type that became wider is cast.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache, reduce
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError
from headrace.storage.field_ids import Default, Schema, SchemaField, TableColumn

if TYPE_CHECKING:
    import polars as pl

    from headrace.storage.manifest import Manifest

INTEGER = re.compile(r"(u?)int(\d+)")


class MixedTypesError(HeadraceError):
    """A column has types in the files of a table that no one type holds without loss."""


@dataclass(frozen=True)
class LogicalColumn:
    """A column as readers see it.

    Attributes:
        name: Its name.
        dtype: Its type.
        default: Its value in the rows of files that lack it.
    """

    name: str
    dtype: "pl.DataType"
    default: Any = None


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table whose files differ in theirs.

    Attributes:
        columns: Field id → column, in order.
        files: Entry → hash of the schema of its file.
        schemas: Hash → schema of files.
    """

    columns: Mapping[int, LogicalColumn]
    files: Mapping[str, str] = field(repr=False)
    schemas: Mapping[str, Schema]

    @property
    def types(self) -> "dict[str, pl.DataType]":
        """Column → type."""
        return {column.name: column.dtype for column in self.columns.values()}

    def select(self, entries: Iterable[str]) -> "TableSchema":
        """The same columns, for these files only."""
        files = {name: self.files[name] for name in entries}
        return TableSchema(self.columns, files, self.schemas)

    def scan(self, paths: Mapping[str, Path]) -> "pl.LazyFrame":
        """The rows of files, one after the other.

        Args:
            paths: Entry → file.
        """
        import polars as pl  # noqa: PLC0415  who looks at manifests alone does not pay for the import

        groups = groupby(paths.items(), lambda item: self.files[item[0]])
        scans = [self._scan(name, [path for _, path in files]) for name, files in groups]
        return pl.concat(scans) if scans else pl.LazyFrame(schema=self.types)

    def read(self, entry: str, path: Path) -> "pl.DataFrame":
        """The rows of one file."""
        return self.scan({entry: path}).collect()

    def _scan(self, schema: str, paths: Sequence[Path]) -> "pl.LazyFrame":
        import polars as pl  # noqa: PLC0415  as above

        there = {each.id: each for each in self.schemas[schema]}
        columns = []
        for number, column in self.columns.items():
            own = there.get(number)
            if own is None:
                columns.append(pl.lit(column.default, column.dtype).alias(column.name))
            elif polars_type(own) != column.dtype:
                columns.append(pl.col(own.name).cast(column.dtype).alias(column.name))
            elif own.name != column.name:
                columns.append(pl.col(own.name).alias(column.name))
        # In `select`, literals alone would give one row.
        return pl.scan_parquet(list(paths), glob=False).with_columns(columns).select(*self.types)

    def groups(self, paths: Mapping[str, Path]) -> "list[tuple[list[Path], list[tuple[LogicalColumn, str | None]]]]":
        """Files of one schema, each with the columns and their names in these files, None where they lack one."""
        found = []
        for name, files in groupby(paths.items(), lambda item: self.files[item[0]]):
            there = {each.id: each.name for each in self.schemas[name]}
            columns = [(column, there.get(number)) for number, column in self.columns.items()]
            found.append(([path for _, path in files], columns))
        return found


def table_schema(manifest: "Manifest", *, is_partial: bool = False) -> TableSchema | None:
    """The columns of a table whose files differ in theirs; None where one file has the columns of all.

    Args:
        manifest: The table.
        is_partial: Whether some entries stand for partitions that are not computed yet.

    Raises:
        MixedTypesError: Two files have types in a column that no one type holds.
    """
    if len(manifest.schemas) < 2 and not manifest.columns:  # noqa: PLR2004  a second schema
        return None
    files: dict[str, str | None] = manifest.entries.column("schema")
    known = {name: schema for name, schema in files.items() if schema and schema in manifest.schemas}
    if not known or (len(known) < len(files) and not is_partial):
        return None  # tables that 0.1 wrote do not name their schemas
    used = list(dict.fromkeys(known[name] for name in sorted(known)))
    if len(used) == 1 and _has_all(manifest.schemas[used[0]], manifest.columns):
        return None
    columns = _merge(manifest.table, [manifest.schemas[name] for name in used], manifest.columns)
    return TableSchema(columns, known, {name: manifest.schemas[name] for name in used})


def _has_all(schema: Schema, columns: Sequence[TableColumn]) -> bool:
    """Whether files of the schema have each of the columns as it is declared."""
    there = {each.id: each for each in schema}
    for column in columns:
        own = there.get(column.id)
        if own is None:
            if column.type:
                return False
        elif own.name != column.name or (column.type and common_type(own.type, column.type) not in (own.type, None)):
            return False
    return True


def _merge(table: str, schemas: Sequence[Schema], declared: Sequence[TableColumn]) -> dict[int, LogicalColumn]:
    """The columns of all files, in the order in which they came; a name is that of the newest file."""
    fields: dict[int, list[SchemaField]] = {}
    for schema in schemas:
        for each in schema:
            fields.setdefault(each.id, []).append(each)
    own = {column.id: column for column in declared}
    columns: dict[int, LogicalColumn] = {}
    for number, found in fields.items():
        column = own.get(number)
        dtype = _common_type(table, found, column.type if column else "")
        name = column.name if column else found[-1].name
        columns[number] = LogicalColumn(name, dtype, decode_default(column.default if column else None, dtype))
    for column in declared:
        if column.id not in columns and column.type:
            dtype = polars_type(SchemaField(column.id, column.name, column.type, column.fields))
            columns[column.id] = LogicalColumn(column.name, dtype, decode_default(column.default, dtype))
    return columns


def _common_type(table: str, fields: Sequence[SchemaField], declared: str) -> "pl.DataType":
    types = list(dict.fromkeys(polars_type(each) for each in fields))
    if len(types) == 1 and not declared:
        return types[0]
    if any(each.fields for each in fields):
        if len(types) == 1:
            return types[0]
        raise _mixed(table, fields)
    common = reduce(lambda one, each: one and common_type(one, each.type), fields[1:], fields[0].type)  # type: ignore[arg-type,return-value]
    if not common:
        raise _mixed(table, fields)
    wider = common_type(common, declared) if declared else None
    return polars_type(SchemaField(0, "", wider or common))


def _mixed(table: str, fields: Sequence[SchemaField]) -> MixedTypesError:
    dataset = table.split("/")[1]
    types = " and ".join(dict.fromkeys(str(polars_type(each)) for each in fields))
    return MixedTypesError(
        f"{table}: its partitions have the column {fields[0].name} as {types}, and no type holds the values of all."
        f" They were computed by different declarations: `headrace run {dataset}` computes those that are stale."
    )


def common_type(one: str, other: str) -> str | None:
    """Arrow's name of the type that holds every value of both types; None if there is none."""
    if one == other:
        return one
    for small, large in ((one, other), (other, one)):
        if is_wider(large, small):
            return large
    return None


def is_wider(large: str, small: str) -> bool:
    """Whether each value of the type `small` is exactly one of `large`."""
    bits, has_sign = _integer(small)
    if bits and large in ("float", "double"):
        return bits <= {"float": 16, "double": 32}[large]
    if bits and (larger := _integer(large))[0]:
        return larger[0] > bits and (larger[1] or not has_sign)
    if (one := _decimal(small)) and (other := _decimal(large)):
        return other != one and other[1] >= one[1] and other[0] - other[1] >= one[0] - one[1]
    return (small, large) == ("float", "double")


def _integer(name: str) -> tuple[int, bool]:
    """Bits, and whether it has a sign; 0 bits for other types."""
    match = INTEGER.fullmatch(name)
    return (int(match[2]), not match[1]) if match else (0, False)


def _decimal(name: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"decimal128\((\d+), (\d+)\)", name)
    return (int(match[1]), int(match[2])) if match else None


def polars_type(each: SchemaField) -> "pl.DataType":
    """The type in which Polars reads a column of a Parquet file."""
    import polars as pl  # noqa: PLC0415  as above

    if each.type == "list":
        return pl.List(polars_type(each.fields[0]))
    if each.type == "struct":
        return pl.Struct({part.name: polars_type(part) for part in each.fields})
    if decimal := _decimal(each.type):
        return pl.Decimal(*decimal)
    if match := re.fullmatch(r"timestamp\[(ms|us|ns)(?:, tz=(.+))?\]", each.type):
        return pl.Datetime(match[1], match[2])  # type: ignore[arg-type]  # one of the three units
    return _simple_types()[each.type]()


def arrow_type(dtype: "pl.DataType") -> str:
    """Arrow's name of a type, as schemas have it; empty for nested ones. Categories are text in a table."""
    import polars as pl  # noqa: PLC0415  as above

    if isinstance(dtype, pl.Enum | pl.Categorical):
        return "string"
    if isinstance(dtype, pl.Decimal):
        return f"decimal128({dtype.precision}, {dtype.scale})"
    if isinstance(dtype, pl.Datetime):
        return f"timestamp[{dtype.time_unit}{f', tz={dtype.time_zone}' if dtype.time_zone else ''}]"
    return next((name for name, kind in _simple_types().items() if dtype == kind), "")


def describe_type(name: str, dtype: "pl.DataType") -> SchemaField:
    """A column of that type without ids, as schemas have it; its type is empty where a table keeps none such."""
    import polars as pl  # noqa: PLC0415  as above

    from headrace.storage.nested import field_types, item_type  # noqa: PLC0415  as above

    parts: tuple[SchemaField, ...] = ()
    kind = ""
    if isinstance(dtype, pl.List):
        kind, parts = "list", (describe_type("element", item_type(dtype)),)
    elif isinstance(dtype, pl.Struct):
        kind, parts = "struct", tuple(describe_type(*part) for part in field_types(dtype).items())
    if all(part.type for part in parts):
        return SchemaField(0, name, kind or arrow_type(dtype), parts)
    return SchemaField(0, name, "")


def encode_default(value: object) -> Default:
    """A default as JSON holds it."""
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value if isinstance(value, bool | int | float | str) else None


def decode_default(value: Default, dtype: "pl.DataType") -> object:
    """The value that `encode_default` encoded, for a column of that type."""
    import polars as pl  # noqa: PLC0415  as above

    if not isinstance(value, str):
        return value
    if isinstance(dtype, pl.Decimal):
        return Decimal(value)
    if isinstance(dtype, pl.Datetime):
        return datetime.fromisoformat(value)
    if dtype == pl.Date:
        return date.fromisoformat(value)
    return time.fromisoformat(value) if dtype == pl.Time else value


@cache
def _simple_types() -> "dict[str, type[pl.DataType]]":
    import polars as pl  # noqa: PLC0415  as above

    numbers = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
    return {
        "bool": pl.Boolean,
        "string": pl.String,
        "binary": pl.Binary,
        "date32[day]": pl.Date,
        "time64[ns]": pl.Time,
        "float": pl.Float32,
        "double": pl.Float64,
        **{str(kind.__name__).lower(): kind for kind in numbers},
    }
