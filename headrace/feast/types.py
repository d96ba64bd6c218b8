"""Polars types and Feast's: only those that come out of the online store exactly as they went in."""

from dataclasses import dataclass

import polars as pl
from feast.types import Bool, FeastType, Float32, Float64, Int32, Int64, String

from headrace.retrieve.errors import UnsupportedTypeError

KEY = "entity_key"
"""Column of encoded rows, and of the tables of the SQL online stores: Feast's bytes of the join keys."""

STAMP = "event_timestamp"
"""The same for the event time: microseconds, then whatever the store makes of it."""


@dataclass(frozen=True)
class Kind:
    """How Feast calls a Polars type, and the field of its value message that holds one."""

    feast: FeastType
    field: str


KINDS: dict[pl.DataType, Kind] = {
    pl.Float64(): Kind(Float64, "double_val"),
    pl.Float32(): Kind(Float32, "float_val"),
    pl.Int64(): Kind(Int64, "int64_val"),
    pl.Int32(): Kind(Int32, "int32_val"),
    pl.String(): Kind(String, "string_val"),
    pl.Boolean(): Kind(Bool, "bool_val"),
}


def kind_of(name: str, dtype: pl.DataType) -> Kind:
    """Feast's type for the column `name`.

    Raises:
        UnsupportedTypeError: Feast would change such values silently: it truncates times to seconds, for example.
    """
    found = KINDS.get(dtype() if isinstance(dtype, type) else dtype)
    if found is None:
        names = ", ".join(str(kind) for kind in KINDS)
        raise UnsupportedTypeError(
            f"{name} is declared as {dtype}, whose values the online store would change. Declare one of {names}; a time"
            " can be a count of seconds or days, of type Int64."
        )
    return found
