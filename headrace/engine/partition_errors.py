"""Partitions that could not be computed: each with its table, source and reason, equal reasons told once."""

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial

from headrace.dataset import TableSource
from headrace.engine.plan import Plan
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError, TransientError
from headrace.storage.partition_names import partition_of
from headrace.storage.released_inputs import ReleasedInput
from headrace.storage.s3.objects import object_address
from headrace.storage.table_store import TableStore
from headrace.text import pluralize
from headrace.unexpected_errors import describe_error, is_known_os_error, to_filesystem_error

MOST_REASONS = 5
MOST_NAMES = 5
"""Reasons, and partitions of one reason, that are shown in full."""


COMMANDS = {"label": "headrace label aggregate"}
"""Kind of stage → the command that runs it, where it has another name."""


class PartitionFailedError(HeadraceError):
    """Computing a partition raised an exception that is not a known error, for example in the project's code."""


class PartitionsRefusedError(HeadraceError):
    """Several partitions could not be computed, at least one for a terminal reason; the message has the reasons."""


class PartitionsUnavailableError(TransientError):
    """Several partitions could not be computed, each for a transient reason."""


def to_partition_error(error: BaseException, stage: Stage) -> HeadraceError:
    """What `stage` raised for one partition, as a known error that can be sent to another process."""
    if isinstance(error, HeadraceError) and _can_be_sent(error):
        return error
    if is_known_os_error(error):
        return to_filesystem_error(error)
    code = next((name for name in reversed(stage.modules) if not name.startswith("headrace.")), stage.modules[-1])
    advice = "Give the process more memory" if isinstance(error, MemoryError) else f"Correct the code of {code}"
    command = COMMANDS.get(stage.verb, f"headrace {stage.verb}")
    return PartitionFailedError(
        f"{describe_error(error)}. {advice}, then run `{command} {stage.dataset} --table {stage.name}`."
    )


def to_known_error(error: BaseException) -> HeadraceError:
    """A failure outside of a project's code, as a known error."""
    if isinstance(error, HeadraceError):
        return error
    if is_known_os_error(error):
        return to_filesystem_error(error)
    return PartitionFailedError(
        f"{describe_error(error)}. Run the same command again; with `--debug` it shows where the error comes from."
    )


def combine_stage_errors(plan: Plan, table_store: TableStore, errors: Mapping[str, HeadraceError]) -> HeadraceError:
    """One error for the partitions of a stage that could not be computed; each is named with what it was read from."""
    return combine_partition_errors(plan.stage.table, errors, partial(_find_source, table_store, plan.stage.reads))


def combine_partition_errors(
    table: str, errors: Mapping[str, HeadraceError], find_source: Callable[[str], str]
) -> HeadraceError:
    """One error for partitions that could not be computed. The error of a single partition keeps its type.

    Args:
        table: Their table.
        errors: Partition → what happened.
        find_source: Partition → the object or database table that it came from; empty if that is not known.
    """
    names = sorted(errors)
    reasons = {name: _reason(table, name, error) for name, error in errors.items()}

    def place(name: str) -> str:
        source = find_source(name)
        return f"{name} ({source})" if source else name

    if len(names) == 1:
        error = copy(next(iter(errors.values())))
        error.args = (f"{table} {place(names[0])}: {reasons[names[0]]}",)
        return error
    by_reason: dict[str, list[str]] = {}
    for name in names:
        by_reason.setdefault(_without_name(reasons[name], name), []).append(name)
    lines = [f"{table}: {len(names)} partitions"]
    groups = list(by_reason.values())
    for first, *others in groups[:MOST_REASONS]:
        lines.append(f"- {table} {place(first)}: {reasons[first]}")
        if others:
            shown = ", ".join(map(place, others[:MOST_NAMES]))
            lines.append(f"  The same for {len(others):,} more: {shown}{' …' if len(others) > MOST_NAMES else ''}")
    if rest := groups[MOST_REASONS:]:
        count = pluralize(sum(map(len, rest)), "more partition")
        lines.append(f"… and {count} for {pluralize(len(rest), 'other reason')}")
    if all(error.is_transient for error in errors.values()):
        return PartitionsUnavailableError("\n".join([f"{lines[0]} unavailable.", *lines[1:]]))
    return PartitionsRefusedError("\n".join([f"{lines[0]} refused.", *lines[1:]]))


def _reason(table: str, partition: str, error: HeadraceError) -> str:
    """The message less the table and partition that it may begin with: those are said for every error alike."""
    name = table.rsplit("/", 1)[1]
    return re.sub(rf"^(?:\w+ )?(?:[\w/]*/)?{re.escape(name)} {re.escape(partition)}: ", "", str(error))


def _without_name(reason: str, partition: str) -> str:
    return re.sub(rf"(?<![\w-]){re.escape(partition)}(?![\w-])", "<partition>", reason)


def _find_source(table_store: TableStore, reads: Sequence[str], partition: str) -> str:
    return next(filter(None, (_source(table_store, table, partition) for table in reads)), "")


def _source(table_store: TableStore, table: str, partition: str) -> str:
    """Address of what a partition was read from, found through the tables that it was computed from."""
    manifest = table_store.manifest(table)
    entries = manifest.partitions
    entry = entries.get(partition)
    if released := ReleasedInput.of_manifest(manifest):
        return f"{released.table} at {released.release}" if entry else ""
    if entry is None:
        objects = [name for name in entries if partition_of(name) == partition]
        return pluralize(len(objects), "object") if objects else ""
    if entry.objects:
        return object_address(entry.objects[0].bucket, entry.objects[0].key)
    if query := entry.metadata.get("query"):
        return TableSource(query.get("table", ""), query=query.get("sql", "")).address
    return next(filter(None, (_source(table_store, read, partition) for read in entry.inputs)), "")


def _can_be_sent(error: HeadraceError) -> bool:
    """Whether another process can receive the error: a class of the project may not survive the way."""
    if type(error).__module__.startswith("headrace."):
        return True
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    except Exception:  # noqa: BLE001  whatever a class of the project raises
        return False
    return True
