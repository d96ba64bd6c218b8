"""Field ids: the number of a column in every Parquet file of a table, also after other columns came or went.

Readers of Iceberg tables find columns by id, not by name. An id is a hash of the column's path, so it needs no
registry: the same rows give the same bytes in every clone and on every worker, a column that comes back has its id
again, and no other column ever gets it.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa  # commands that only plan import this module and do not pay for pyarrow

FIELD_ID = b"PARQUET:field_id"
MAX_FIELD_ID = 2_147_483_446
"""Iceberg reserves the ids from Integer.MAX_VALUE - 200 on (its specification, "Reserved Field IDs")."""


class SchemaField(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column, or a part of a nested one.

    Attributes:
        id: Its id in the Parquet files.
        name: Its name; the item of a list is `element`.
        type: Arrow's name of its type, `list` or `struct`.
        fields: The parts of a nested column.
    """

    id: int
    name: str
    type: str
    fields: tuple["SchemaField", ...] = ()


Schema = tuple[SchemaField, ...]

Default = bool | int | float | str | None
"""The default of a column as JSON holds it: times, dates and decimals are text."""


class TableColumn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column that not every file of the table has under its name and type, as the declaration has it.

    Attributes:
        id: Its field id.
        name: Its name.
        type: Arrow's name of its type; empty if only files know it.
        default: Its value in the rows of files that lack it.
        fields: The parts of a nested column, without ids.
    """

    id: int
    name: str
    type: str = ""
    default: Default = None
    fields: tuple[SchemaField, ...] = ()


Renamed = tuple[tuple[str, str], ...]
"""Names of columns, each with the first name that the column had: its id stays."""


@lru_cache(maxsize=256)
def with_field_ids(schema: "pa.Schema", renamed: Renamed = ()) -> "pa.Schema":
    """The schema with an id on every field, nested ones included."""
    import pyarrow as pa  # noqa: PLC0415

    first_names = dict(renamed)
    named = [(field, field.with_name(first_names.get(field.name, field.name))) for field in schema]
    ids = assign_field_ids([path for _, field in named for path in _paths(field, ())])
    return pa.schema([_number(first, (), ids).with_name(field.name) for field, first in named])


def describe_schema(schema: "pa.Schema") -> Schema:
    """The columns of a schema that has ids, in types that a Parquet file keeps."""
    return tuple(_describe(field) for field in schema)


def schema_hash(schema: Schema) -> str:
    """Short hash of a schema, by which partitions name theirs."""
    return hashlib.sha256(msgspec.json.encode(schema)).hexdigest()[:16]


@lru_cache(maxsize=256)
def hash_of_arrow_schema(schema: "pa.Schema") -> str:
    """The hash of an Arrow schema with ids."""
    return schema_hash(describe_schema(schema))


def assign_field_ids(paths: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Path → id. Of two paths with one hash (1 in 100,000 tables of 200 columns) the later gets the next free id."""
    ids: dict[tuple[str, ...], int] = {}
    taken: set[int] = set()
    for path in sorted(paths):
        number = _hash_path(path)
        while number in taken:
            number = number % MAX_FIELD_ID + 1
        taken.add(number)
        ids[path] = number
    return ids


def column_id(name: str) -> int:
    """The id of a column of that name, unless two names of its table have one hash."""
    return _hash_path((name,))


def _hash_path(path: tuple[str, ...]) -> int:
    digest = hashlib.sha256(msgspec.json.encode(path)).digest()
    return int.from_bytes(digest[:8], "big") % MAX_FIELD_ID + 1


def _paths(field: "pa.Field", above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    path = (*above, field.name)
    yield path
    for name, part in _parts(field.type):
        yield from _paths(part.with_name(name), path)


def _number(field: "pa.Field", above: tuple[str, ...], ids: dict[tuple[str, ...], int]) -> "pa.Field":
    import pyarrow as pa  # noqa: PLC0415

    path, kind = (*above, field.name), field.type
    parts = [_number(part.with_name(name), path, ids) for name, part in _parts(kind)]
    if pa.types.is_struct(kind):
        kind = pa.struct(parts)
    elif parts:
        kind = (pa.large_list if pa.types.is_large_list(kind) else pa.list_)(parts[0])
    return pa.field(field.name, kind, field.nullable, {FIELD_ID: str(ids[path]).encode()})


def _parts(kind: "pa.DataType") -> list[tuple[str, "pa.Field"]]:
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_struct(kind):
        return [(part.name, part) for part in kind]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [("element", kind.value_field)]
    return []


def _describe(field: "pa.Field") -> SchemaField:
    import pyarrow as pa  # noqa: PLC0415

    metadata: dict[bytes, Any] = field.metadata or {}
    parts = tuple(_describe(part.with_name(name)) for name, part in _parts(field.type))
    name = "struct" if pa.types.is_struct(field.type) else "list" if parts else _type_name(field.type)
    return SchemaField(int(metadata.get(FIELD_ID, 0)), field.name, name, parts)


def _type_name(kind: "pa.DataType") -> str:
    """Arrow's name; large types are stored as the others are."""
    return re.sub(r"^large_", "", str(kind))
