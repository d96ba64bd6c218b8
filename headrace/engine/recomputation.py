"""Recomputations: partitions that tables have, and that a change of code, parameters or libraries makes stale.

New data costs what is new; one edited line may cost ten years. So a large recomputation is announced with its cost.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.engine.durations import estimate_seconds
from headrace.engine.plan import INPUT, NEVER_BUILT, Plan
from headrace.storage.table_store import TableStore
from headrace.text import format_duration, pluralize

log = logging.getLogger(__name__)

LARGE_PARTITIONS = 100
LARGE_SECONDS = 60.0
"""More partitions than this, and longer than this or nobody knows how long: it is announced."""

MOST_NAMES = 3
"""Files, parameters or tables that are named."""

KINDS = {"code changed": "code", "parameter changed": "parameter", "library changed": "library"}
"""How a reason begins → what changed."""


@dataclass(frozen=True)
class Recomputation:
    """What a change makes stale of what tables have.

    Attributes:
        partitions: Table → number of its partitions that are computed again.
        is_upper_bound: Whether some are counted only because they read others: the same bytes would leave them as they
            are.
        reasons: Why, as the plans say it.
        seconds: How long it takes by earlier runs here; None if that is not known of every table.
    """

    partitions: Mapping[str, int]
    is_upper_bound: bool
    reasons: Sequence[str]
    seconds: float | None

    @property
    def total(self) -> int:
        """Partitions of all tables."""
        return sum(self.partitions.values())

    @property
    def is_large(self) -> bool:
        """Whether it is worth an announcement."""
        return self.total > LARGE_PARTITIONS and (self.seconds is None or self.seconds > LARGE_SECONDS)

    def to_dict(self) -> dict[str, object]:
        """As JSON."""
        return {**vars(self), "total": self.total}

    def __str__(self) -> str:
        """`a code change (pipelines/…) makes 3,650 partitions of features/… stale, about 41 min`."""
        causes = _causes(self.reasons)
        tables = list(self.partitions)
        of = ", ".join(tables) if len(tables) <= MOST_NAMES else f"{len(tables)} tables"
        count = f"{'up to ' * self.is_upper_bound}{pluralize(self.total, 'partition')}"
        cost = (
            f"about {format_duration(self.seconds)}"
            if self.seconds is not None
            else "how long they take is not known here"
        )
        return f"{' and '.join(causes)} {'makes' if len(causes) == 1 else 'make'} {count} of {of} stale, {cost}"


def find_recomputation(plans: Iterable[Plan], table_store: TableStore) -> Recomputation | None:
    """What a change makes stale, in these plans of stages in order; None if nothing.

    A partition that reads others which are computed again counts as well.
    """
    again: dict[str, set[str]] = {}
    reasons: dict[str, None] = {}
    is_upper_bound = False
    for plan in plans:
        names = set()
        for item in plan.stale:
            if item.is_recomputation:
                names.add(item.partition)
                reasons |= dict.fromkeys(it for it in item.reasons if not it.startswith(INPUT))
            elif item.reasons != (NEVER_BUILT,) and any(
                not again[table].isdisjoint(inputs) for table, inputs in item.inputs.items() if table in again
            ):
                names.add(item.partition)
                is_upper_bound = True
        if names:
            again[plan.stage.table] = names
    if not again:
        return None
    counts = {table: len(names) for table, names in again.items()}
    times = [estimate_seconds(table_store, table, count) for table, count in counts.items()]
    known = [seconds for seconds in times if seconds is not None]
    return Recomputation(counts, is_upper_bound, tuple(reasons), sum(known) if len(known) == len(times) else None)


def warn_if_large(plan: Plan, table_store: TableStore) -> None:
    """Log a large recomputation before it begins: nobody may be there to ask."""
    found = find_recomputation([plan], table_store)
    if found and found.is_large:
        log.warning("%s", found)


def _causes(reasons: Sequence[str]) -> list[str]:
    """`a code change (pipelines/flights/windows.py)`, for each kind of reason."""
    names: dict[str, list[str]] = {}
    others = []
    for reason in reasons:
        start, _, name = reason.partition(": ")
        if start in KINDS:
            names.setdefault(KINDS[start], []).append(name)
        elif start == "engine changed":
            names.setdefault("engine", []).append(name)
        else:
            others.append("a change of code, parameters or libraries")
    causes = [
        f"{'an' if kind == 'engine' else 'a'} {kind} change"
        f" ({', '.join(found[:MOST_NAMES])}{' …' if len(found) > MOST_NAMES else ''})"
        for kind, found in names.items()
    ]
    return causes or others[:1]
