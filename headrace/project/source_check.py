"""What can only fail in the declaration of a source: names, patterns, keys, bounds, the contract."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from headrace.dataset import ObjectSource, Source, TableSource
from headrace.ingest.database.query_text import QueryTextError, check_query
from headrace.object_location import FOLDER_SCHEME, InvalidLocationError
from headrace.partitions import Partitions, Static, TimePartitions, Unpartitioned
from headrace.project.faults import (
    Fault,
    argument,
    function_faults,
    function_name,
    name_faults,
    number_faults,
    text_tuple_faults,
)
from headrace.settings import CONNECTION
from headrace.unexpected_errors import describe_error, is_failure
from headrace.validate.columns import bounds_of
from headrace.validate.compile_contract import contract_of
from headrace.validate.errors import InvalidContractError

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|()]")
"""Characters with a meaning in a regular expression."""

NAMED_ATTRIBUTE = re.compile(r"(?:column|check) '([^']+)'")


def source_faults(source: Source, params: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults of one source, with these values of its parameters."""
    yield from name_faults(source)
    yield from text_tuple_faults(source, "key", "pii_columns", "files", "params")
    if not source.key:
        yield Fault(source, ("key",), "expected at least one column that identifies a row, found none: name it")
    yield from number_faults(source, "max_rejected_share", 0, 1)
    yield from number_faults(source, "batch_size", 1, whole=True)
    if source.extra_columns not in ("refuse", "drop"):
        yield Fault(
            source, ("extra_columns",), f"expected extra_columns 'refuse' or 'drop', found {source.extra_columns!r}"
        )
    yield from function_faults(source, "read")
    yield from function_faults(source, "transform", *(["params"] if source.params else []), positional=1)
    location = argument(source, "location")
    if isinstance(location, ObjectSource):
        yield from _object_faults(source, location)
    elif isinstance(location, TableSource):
        yield from _table_faults(source, location)
    else:
        yield Fault(source, ("location",), f"expected an ObjectSource or a TableSource, found {location!r}")
    yield from _partition_faults(source, location)
    yield from _contract_faults(source, params)


def same_place_faults(sources: Sequence[Source]) -> Iterator[Fault]:
    """Sources that read what another one reads: the bytes are stored once, and everything else is done twice."""
    first: dict[object, Source] = {}
    for source in sources:
        what = "the same objects" if isinstance(source.location, ObjectSource) else "the same rows"
        other = first.setdefault(_read_from(source), source)
        if other is not source and other.name != source.name:
            text = f"it reads {what} as {other.name}: if that is not meant, correct the location"
            yield Fault(source, ("location",), text, "warning")


def _read_from(source: Source) -> object:
    """What a source reads; equal if two read the same."""
    location = source.location
    if isinstance(location, TableSource):
        return location.database, location.table, location.query
    try:
        place = location.parsed_location
    except InvalidLocationError:
        return id(source)
    pattern = location.partition if not place.is_base else re.escape(place.prefix) + location.partition
    return place.bucket, place.prefix, pattern, location.connection


def _partition_faults(source: Source, location: ObjectSource | TableSource) -> Iterator[Fault]:
    """Partitions that do not fit where the source comes from."""
    declared, at = argument(source, "partitions"), ("partitions",)
    if declared is None:
        return
    if not isinstance(declared, Partitions):
        yield Fault(source, at, f"expected partitions such as Daily(), found {declared!r}")
        return
    is_object = isinstance(location, ObjectSource)
    is_cut = not isinstance(replace(source, partitions=None).partitioning, Unpartitioned)
    if isinstance(declared, Unpartitioned) and source.is_history:
        yield Fault(
            source, at, "a history is cut by the time when changes became known: declare Daily(), or leave it out"
        )
    elif isinstance(declared, Unpartitioned) and is_cut:
        what = "its pattern has a group `partition`" if is_object else "it has a `partition_by`"
        yield Fault(source, at, f"it is declared as Unpartitioned(), but {what}: leave one of them out")
    elif isinstance(declared, Static) and not is_object:
        yield Fault(source, at, "a database table is cut by time or not at all, found Static(…): declare one of those")
    elif not isinstance(declared, Unpartitioned) and not is_cut:
        what = "its pattern has no group `partition`" if is_object else "no `partition_by` says by which column"
        yield Fault(source, at, f"each partition is declared as a {declared.label}, but {what}: add it")


def contract_place(source: Source, message: str) -> tuple[str, str, str]:
    """Module, class and attribute of a contract that a message is about."""
    named = set(NAMED_ATTRIBUTE.findall(message))
    attribute = named.pop().partition("|")[0] if len(named) == 1 else ""
    contract = source.contract
    return getattr(contract, "__module__", ""), getattr(contract, "__qualname__", ""), attribute


def module_file(module: str) -> str:
    """The file of a module that is loaded; empty if there is none."""
    return getattr(sys.modules.get(module), "__file__", None) or ""


def _contract_faults(source: Source, params: Mapping[str, Any]) -> Iterator[Fault]:
    try:
        source = source.with_params(params)
    except BaseException as error:  # whatever the team's function raises
        if not is_failure(error):
            raise
        yield Fault(
            source, ("contract",), f"{function_name(source.contract)} raised {describe_error(error)}: correct it"
        )
        return
    try:
        contract_of(source)
    except InvalidContractError as error:
        yield Fault(source, ("contract",), str(error))
    else:
        yield from _bound_faults(source)


def _bound_faults(source: Source) -> Iterator[Fault]:
    """Bounds that count from the start of the partition, on a source that is not cut by time."""
    has_start = isinstance(source.partitioning, TimePartitions)
    for name, column in source.schema.columns().items():
        bounds = bounds_of(column)
        if bounds and not has_start and timedelta in (type(bounds.first), type(bounds.last)):
            text = (
                f"column {name!r}: its bounds count from the start of the partition, and the source is not cut by time"
                f" ({source.partitioning.label}): give `TimeBounds` fixed times, or partition the source"
            )
            yield Fault(source, ("contract",), text)


def _object_faults(source: Source, location: ObjectSource) -> Iterator[Fault]:
    at = ("location",)
    for field in ("location", "connection", "prefix", "partition", "suffix", "bucket", "marker"):
        if not isinstance(getattr(location, field), str):
            yield Fault(source, (*at, field), f"expected a text, found {getattr(location, field)!r}")
            return
    yield from _place_faults(source, location)
    try:
        pattern = re.compile(location.partition)
    except (re.error, RecursionError, OverflowError) as error:
        yield Fault(
            source, (*at, "partition"), f"{location.partition!r} is not a regular expression: {error}. Correct it"
        )
    else:
        yield from _pattern_faults(source, location, pattern)
    if not location.suffix.startswith(".") or "/" in location.suffix:
        yield Fault(
            source, (*at, "suffix"), f"expected a file name ending such as '.csv.gz', found {location.suffix!r}"
        )
    if "/" in location.marker:
        yield Fault(
            source,
            (*at, "marker"),
            f"expected the name of a file in the folder of the objects, such as '_SUCCESS', found {location.marker!r}",
        )


def _place_faults(source: Source, location: ObjectSource) -> Iterator[Fault]:
    """Faults of what says where the objects are; an address that may hold credentials is not shown."""
    at = ("location",)
    if location.location:
        yield from _address_faults(source, location)
    elif location.prefix.startswith("/"):
        yield Fault(
            source,
            (*at, "prefix"),
            f"keys of a bucket do not begin with '/', found {location.prefix!r}: take it away",
            "warning",
        )
    if "/" in location.bucket and not location.bucket.startswith(FOLDER_SCHEME):
        yield Fault(
            source,
            (*at, "bucket"),
            f"expected the name of a bucket, or '{FOLDER_SCHEME}' and a path, found {location.bucket!r}: give the"
            " place as a `location`",
        )
    if location.connection and not CONNECTION.fullmatch(location.connection):
        yield Fault(
            source,
            (*at, "connection"),
            "expected the name of a connection in lower-case letters, digits and underscores, such as 'partner', which"
            " stands for HEADRACE_CONNECTION_PARTNER_ENDPOINT and others, found something else, which is not shown"
            " because it may hold credentials",
        )


def _address_faults(source: Source, location: ObjectSource) -> Iterator[Fault]:
    at = ("location", "location")
    if location.prefix or location.bucket:
        yield Fault(source, at, "expected a `location`, or a `prefix` and its `bucket`, found both: leave one out")
        return
    try:
        place = location.parsed_location
    except InvalidLocationError as error:
        yield Fault(source, at, f"{error}: correct it")
        return
    if location.connection and (place.is_folder or not place.bucket):
        what = "a folder" if place.is_folder else "the bucket of HEADRACE_BUCKET"
        yield Fault(
            source,
            ("location", "connection"),
            f"a connection leads to a bucket that the location names, found {what}: write 's3://bucket/…', or leave"
            " the connection out",
        )


def _pattern_faults(source: Source, location: ObjectSource, pattern: re.Pattern[str]) -> Iterator[Fault]:
    path = ("location", "partition")
    if pattern.groups and "partition" not in pattern.groupindex:
        named = f", found the groups {', '.join(pattern.groupindex)}" if pattern.groupindex else ""
        yield Fault(
            source,
            path,
            f"{location.partition!r} has no group named `partition`{named}, so every object would belong to the"
            " partition `all`: write (?P<partition>…), or (?:…) for a group that names nothing",
            "error" if pattern.groupindex else "warning",
        )
    begins = _literal_start(location.partition)
    if location.location:
        yield from _relative_pattern_faults(source, location, begins)
    elif not (begins.startswith(location.prefix) or location.prefix.startswith(begins)):
        yield Fault(
            source,
            path,
            f"{location.partition!r} is matched with the whole key, and no key below {location.prefix!r} begins with"
            f" {begins!r}: begin the pattern with the prefix",
        )


def _relative_pattern_faults(source: Source, location: ObjectSource, begins: str) -> Iterator[Fault]:
    """A pattern that begins as the location does: its author may have meant the whole key."""
    try:
        prefix = location.parsed_location.prefix
    except InvalidLocationError:
        return
    if prefix and begins.startswith(prefix):
        yield Fault(
            source,
            ("location", "partition"),
            f"{location.partition!r} is matched with what follows the location in a key, and begins with {prefix!r}"
            " once more: leave that out",
            "warning",
        )


def _literal_start(pattern: str) -> str:
    """What every key that the pattern matches begins with, as far as its text plainly says."""
    if "|" in pattern:
        return ""
    special = SPECIAL.search(pattern)
    start = pattern[: special.start()] if special else pattern
    # `flights?` matches without the last letter.
    return start[:-1] if special and special[0] in "*?{" else start


def _query_faults(source: Source, location: TableSource) -> Iterator[Fault]:
    """What is read: a table or a query, not both."""
    table, query = location.table, location.query
    if not (isinstance(table, str) and isinstance(query, str) and bool(table) != bool(query)):
        found = "both" if table and query else repr(table or query)
        yield Fault(
            source, ("location", "table"), f"expected the name of a table or a `query`, and not both, found {found}"
        )
    elif query:
        try:
            check_query(query)
        except QueryTextError as error:
            yield Fault(source, ("location", "query"), f"{error}: correct the query")


def _table_faults(source: Source, location: TableSource) -> Iterator[Fault]:
    at = ("location",)
    yield from _query_faults(source, location)
    key: object = location.key
    if isinstance(key, str):
        yield Fault(source, (*at, "key"), f"expected a tuple of columns, found the text {key!r}: write ({key!r},)")
    elif not (isinstance(key, tuple | list) and key and all(isinstance(name, str) and name for name in key)):
        yield Fault(source, (*at, "key"), f"expected the columns that identify a row, found {key!r}")
    if not (location.watermark is None or (isinstance(location.watermark, str) and location.watermark)):
        yield Fault(
            source,
            (*at, "watermark"),
            f"expected the column whose value changes when a row does, found {location.watermark!r}: name a column such"
            " as `updated_at`, or write None, and the database hashes every row to find what has changed",
        )
    if not (location.partition_by is None or (isinstance(location.partition_by, str) and location.partition_by)):
        yield Fault(
            source,
            (*at, "partition_by"),
            f"expected a column of dates or times or None, found {location.partition_by!r}",
        )
    yield from _history_faults(source, location)
    if not (isinstance(location.database, str) and VARIABLE_NAME.fullmatch(location.database)):
        yield Fault(
            source,
            (*at, "database"),
            "expected the name of an environment variable that holds the address, found something else, which is not"
            " shown because it may contain a password: move the address into the environment",
        )


def _history_faults(source: Source, location: TableSource) -> Iterator[Fault]:
    """What does not fit a table whose changes are recorded."""
    at = ("location",)
    history: object = location.history
    initial: object = location.initial_known_time
    if not isinstance(history, bool):
        yield Fault(source, (*at, "history"), f"expected True or False, found {location.history!r}")
    elif history and location.partition_by is not None:
        yield Fault(
            source,
            (*at, "partition_by"),
            "a history is cut by the time when changes became known, not by a column of the table: leave it out",
        )
    if not isinstance(initial, str):
        yield Fault(source, (*at, "initial_known_time"), f"expected the name of a column of times, found {initial!r}")
    elif initial and not history:
        yield Fault(
            source,
            (*at, "initial_known_time"),
            "it says when the rows of the first snapshot of a history were known: declare history=True, too",
        )
