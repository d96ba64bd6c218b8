"""Partitions that could not be computed: each with its table, source and reason, equal reasons told once."""

import pickle
import re
from collections.abc import Mapping

from headrace.engine.plan import Plan
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError, TransientError
from headrace.storage.s3.objects import object_address
from headrace.storage.table_store import Lake
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


def combine_errors(plan: Plan, lake: Lake, errors: Mapping[str, HeadraceError]) -> HeadraceError:
    """One error for the partitions that could not be computed.

    It names the table, each partition with its object or database table, and each reason once. The error of a single
    partition keeps its type.
    """
    names = sorted(errors)
    if len(names) == 1:
        (error,) = errors.values()
        error.args = (_describe(plan, lake, names[0], error),)
        return error
    by_reason: dict[str, list[str]] = {}
    for name in names:
        by_reason.setdefault(_without_name(_reason(plan, name, errors[name]), name), []).append(name)
    groups = list(by_reason.values())
    lines = [line for same in groups[:MOST_REASONS] for line in _describe_group(plan, lake, same, errors)]
    if rest := groups[MOST_REASONS:]:
        lines.append(
            f"… and {pluralize(sum(map(len, rest)), 'more partition')} for {pluralize(len(rest), 'other reason')}"
        )
    head = f"{plan.stage.table}: {len(names)} partitions"
    if all(error.is_transient for error in errors.values()):
        return PartitionsUnavailableError("\n".join([f"{head} unavailable.", *lines]))
    return PartitionsRefusedError("\n".join([f"{head} refused.", *lines]))


def _describe_group(plan: Plan, lake: Lake, names: list[str], errors: Mapping[str, HeadraceError]) -> list[str]:
    """The first of the partitions that have the same reason, and the names of the others."""
    first, *others = names
    lines = [f"- {_describe(plan, lake, first, errors[first])}"]
    if others:
        shown = ", ".join(_place(plan, lake, name) for name in others[:MOST_NAMES])
        lines.append(f"  The same for {len(others):,} more: {shown}{' …' if len(others) > MOST_NAMES else ''}")
    return lines


def _describe(plan: Plan, lake: Lake, partition: str, error: HeadraceError) -> str:
    return f"{plan.stage.table} {_place(plan, lake, partition)}: {_reason(plan, partition, error)}"


def _reason(plan: Plan, partition: str, error: HeadraceError) -> str:
    """The message less the table and partition that it may begin with: those are said for every error alike."""
    own = rf"(?:\w+ )?(?:[\w/]*/)?{re.escape(plan.stage.name)} {re.escape(partition)}: "
    return re.sub(f"^{own}", "", str(error))


def _without_name(reason: str, partition: str) -> str:
    return re.sub(rf"(?<![\w-]){re.escape(partition)}(?![\w-])", "<partition>", reason)


def _place(plan: Plan, lake: Lake, partition: str) -> str:
    """A partition with the object or database table that it came from, where a manifest says so."""
    found = next(filter(None, (_source(lake, table, partition) for table in plan.stage.reads)), "")
    return f"{partition} ({found})" if found else partition


def _source(lake: Lake, table: str, partition: str) -> str:
    """Address of what a partition was read from, found through the tables that it was computed from."""
    entry = lake.manifest(table).partitions.get(partition)
    if entry is None:
        return ""
    if entry.objects:
        return object_address(entry.objects[0].bucket, entry.objects[0].key)
    if query := entry.metadata.get("query"):
        return f"table {query['table']}"
    return next(filter(None, (_source(lake, read, partition) for read in entry.inputs)), "")


def _can_be_sent(error: HeadraceError) -> bool:
    """Whether another process can receive the error: a class of the project may not survive the way."""
    if type(error).__module__.startswith("headrace."):
        return True
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    except Exception:  # noqa: BLE001  whatever a class of the project raises
        return False
    return True
