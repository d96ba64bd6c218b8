"""What can only fail in the declaration of a feature table or a derived table: keys, columns, times, parameters."""

from collections.abc import Iterator, Mapping

import polars as pl

from headrace.dataset import EVENT_TIME, KNOWN_TIME, UTC_MICROSECONDS, DerivedTable, FeatureTable, KernelTable
from headrace.project.faults import (
    Fault,
    argument,
    data_type,
    function_faults,
    key_types_faults,
    name_faults,
    number_faults,
    text_tuple_faults,
    type_of_key,
)
from headrace.project.findings import Level
from headrace.storage.parquet import keeps_type
from headrace.transform.kernel import takes_interval

RESERVED = {
    EVENT_TIME: "the time of each row",
    KNOWN_TIME: "the time from which each row is known",
    "event_timestamp": "the time of a request",
    "entity_key": "the online store's column of keys",
}
"""Name → what has it already, in a feature table, a request or the online store."""

KEY_TYPES: tuple[pl.DataType, ...] = (pl.String(), pl.Int64(), pl.Int32())
"""Types of a join key that the online store looks up exactly."""

ONLINE_TYPES: tuple[pl.DataType, ...] = (*KEY_TYPES, pl.Float64(), pl.Float32(), pl.Boolean())
"""Types of a feature that come out of the online store as they went in."""


def feature_faults(table: FeatureTable) -> Iterator[Fault]:
    """The faults of one feature table, but for its inputs."""
    yield from text_tuple_faults(table, "keys")
    yield from _kernel_faults(table)
    yield from key_faults(table)
    yield from _column_faults(table)


def derived_faults(table: DerivedTable) -> Iterator[Fault]:
    """The faults of one derived table, but for its inputs."""
    yield from text_tuple_faults(table, "key")
    yield from _kernel_faults(table)
    if not isinstance(argument(table, "columns"), Mapping) or not table.columns:
        yield Fault(table, ("columns",), f"expected column → Polars type, found {table.columns!r}")
        return
    if not table.key:
        yield Fault(table, ("key",), "expected the columns that identify a row, found none")
    for name in (it for it in table.key if it not in table.columns):
        yield Fault(
            table, ("key", name), f"the key {name!r} is none of its columns {', '.join(table.columns)}: add it there"
        )
    for name, declared in table.columns.items():
        yield from _kept_type_faults(table, "columns", "column", name, declared)
        if name in (EVENT_TIME, KNOWN_TIME) and data_type(declared) != UTC_MICROSECONDS:
            yield Fault(
                table,
                ("columns", name),
                f"{name!r} is {RESERVED[name]}: declare it as `UTC_MICROSECONDS`, or rename it",
            )
    if table.batch_size != 1 and EVENT_TIME not in table.columns:
        yield Fault(
            table,
            ("batch_size",),
            f"several partitions are computed together, and no column {EVENT_TIME!r} says to which one a row belongs:"
            " add it, or leave `batch_size` out",
        )


def _kernel_faults(table: KernelTable) -> Iterator[Fault]:
    """What every table with a kernel shares."""
    yield from name_faults(table)
    yield from text_tuple_faults(table, "files", "params")
    yield from number_faults(table, "batch_size", 1, whole=True)
    inputs = [str(name) for name in table.inputs] if isinstance(table.inputs, Mapping) else []
    times = ("interval",) if takes_interval(table) else ("day", "end_day") if table.batch_size != 1 else ("day",)
    params = ("params",) if table.params else ()
    yield from function_faults(table, "transform", *times, *params, *inputs)


def key_faults(table: FeatureTable) -> Iterator[Fault]:
    """Keys that no row can be found by."""
    if not table.keys:
        yield Fault(
            table, ("keys",), "expected at least one key, found none: name the column that a row is asked for by"
        )
    yield from key_types_faults(table)
    if not isinstance(argument(table, "key_types"), Mapping):
        return
    for key in table.keys:
        kind = type_of_key(table, key)
        if kind not in KEY_TYPES:
            yield Fault(
                table,
                ("key_types", key),
                f"the key {key!r} is declared as {table.key_types.get(key)!r}, by which no value can be looked up"
                f" exactly: declare {', '.join(map(str, KEY_TYPES))}, and convert it in the transform",
            )


def _column_faults(table: FeatureTable) -> Iterator[Fault]:
    """Names that are taken, and types that are not kept."""
    if not isinstance(argument(table, "features"), Mapping):
        yield Fault(table, ("features",), f"expected feature → Polars type, found {table.features!r}")
        return
    if not table.features:
        yield Fault(table, ("features",), "expected at least one feature, found none: declare feature → Polars type")
    for field, what, names in (("keys", "key", table.keys), ("features", "feature", table.features)):
        for name in names:
            if not isinstance(name, str) or not name:
                yield Fault(table, (field,), f"expected the name of a {what}, found {name!r}")
            elif name in RESERVED:
                yield Fault(table, (field, name), f"the {what} {name!r} has the name of {RESERVED[name]}: rename it")
    for name in (it for it in table.features if it in table.keys):
        yield Fault(table, ("features", str(name)), f"{name!r} is both a key and a feature: rename one of them")
    yield from _type_faults(table)


def _type_faults(table: FeatureTable) -> Iterator[Fault]:
    for name, declared in table.features.items():
        faults = list(_kept_type_faults(table, "features", "feature", name, declared))
        yield from faults
        if not faults and (kind := data_type(declared)) not in ONLINE_TYPES:
            level: Level = "warning"
            fault = (
                f"the online store would change {kind}: it can be retrieved for training, and `headrace publish`"
                f" refuses it. Published are {', '.join(map(str, ONLINE_TYPES))}"
            )
            yield Fault(table, ("features", str(name)), f"the feature {name!r}: {fault}", level)


def _kept_type_faults(table: KernelTable, field: str, what: str, name: str, declared: object) -> Iterator[Fault]:
    """A column of what is no type, or of one that Parquet does not keep."""
    fault = ""
    kind = data_type(declared)
    if kind is None:
        fault = f"expected a Polars type such as pl.Float64(), found {declared!r}"
    elif not keeps_type(kind):
        fault = f"Parquet does not keep {kind}: convert it to numbers or text"
    if fault:
        yield Fault(table, (field, str(name)), f"the {what} {name!r}: {fault}")
