"""The annotations table, brought up to what Label Studio holds: read what changed, add what that means.

The cursor is the newest change in the table itself. What no change of a task tells (a task that is gone) shows in the
server's totals: where they differ from ours, a stretch of tasks at a time, that stretch is compared.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl

from headrace.dataset import LabelingTask
from headrace.errors import HeadraceError
from headrace.label.annotation_log import Ledger
from headrace.label.annotations import Looked, Place, Row, day_of, events, moment, seen
from headrace.label.label_studio.totals import Totals
from headrace.storage.manifest import Manifest

if TYPE_CHECKING:
    from headrace.label.label_studio.client import LabelStudio, Project
    from headrace.label.label_studio.tasks import Json, Listed, Tasks

OVERLAP = timedelta(minutes=10)
"""Changes this much older than the newest one we hold are looked at again: they may have been under way."""

STRETCH = 1000
"""Tasks that are compared, or read again, in one go."""

LAST_ID = 2**62
"""Beyond any task."""


class LabelsWouldVanishError(HeadraceError):
    """The server holds none of the answers that were collected from it."""


@dataclass(frozen=True)
class Reader:
    """What it takes to read the answers to one question.

    Attributes:
        server: Label Studio.
        project: The project there, and what it held a moment ago.
        labeling: The question.
        keys: The items' key columns and their types.
        secret: What annotators' pseudonyms are made with.
    """

    server: "LabelStudio"
    project: "Project"
    labeling: LabelingTask
    keys: Mapping[str, pl.DataType]
    secret: str

    @property
    def tasks(self) -> "Tasks":
        """The project's tasks."""
        return self.server.tasks_of(self.project)

    def events(self, task: "Json", before: Mapping[str, Row]) -> Iterator[Row]:
        """What happened to the annotations of a task since they were `before`."""
        yield from events(before, seen(task, self.labeling, self.keys, self.secret), moment(task["updated_at"]))


@dataclass(frozen=True)
class CaughtUp:
    """The table after catching up, what happened, on which days, and how many tasks there are not ours."""

    manifest: Manifest
    events: Mapping[str, int]
    days: tuple[str, ...]
    foreign: int


def standing(manifest: Manifest) -> int:
    """Answers that stand, skips aside."""
    return sum(entry.facts["answers"] for entry in manifest.partitions.values())


def catch_up(ledger: Ledger, reader: Reader, *, allow_empty: bool = False) -> CaughtUp:
    """Add to the table what happened since; the bytes go into the cache, nothing is shown yet.

    Raises:
        LabelsWouldVanishError: The project holds no answer, and the table does; unless that is allowed.
    """
    before = ledger.manifest
    if not allow_empty:
        _refuse_to_lose_all(before, reader)
    foreign = _since(ledger, reader) if before.partitions else _everything(ledger, reader)
    if _sums(ledger.manifest, "skips") != reader.project.holds:
        foreign = max(foreign, _since(ledger, reader))  # people answer while we read
        if _sums(ledger.manifest, "skipped") != reader.tasks.totals():
            _compare(ledger, reader)
    return CaughtUp(ledger.manifest, dict(ledger.counted), ledger.days_since(before), foreign)


def _refuse_to_lose_all(manifest: Manifest, reader: Reader) -> None:
    held = standing(manifest)
    if held and not reader.project.holds.answers:
        raise LabelsWouldVanishError(
            f"Project {reader.project.title!r} on {reader.server.wire.url} holds no answer, but {held:,} were collected"
            " from it. Nothing was changed. Restore the server's data, or give LABEL_STUDIO_URL the right server, then"
            " run the same command again; with `--allow-empty` if they were deleted on purpose."
        )


def _sums(manifest: Manifest, skips: str) -> Totals:
    """What the table says that the project holds: answers, and skips by that fact."""
    facts = [entry.facts for entry in manifest.partitions.values()]
    return Totals(sum(fact["answers"] for fact in facts), sum(fact[skips] for fact in facts))


def _everything(ledger: Ledger, reader: Reader) -> int:
    """Read all annotations into an empty table, a page at a time; how many tasks were met that are not ours.

    What changed after the reading began is for the next time: else the newest change in the table could be newer than
    one that the reading had already passed by.
    """
    horizon, foreign = reader.tasks.newest_change(), 0
    for task in reader.tasks.answered():
        if not _is_ours(task["data"]):
            foreign += 1
        elif horizon and moment(task["updated_at"]) <= horizon:
            ledger.add(reader.events(task, {}))
    ledger.flush()
    return foreign


def _is_ours(data: "Json") -> bool:
    return bool(data.get("sample_id") and data.get("item"))


def _since(ledger: Ledger, reader: Reader) -> int:
    """Add what changed since the newest change in the table; how many tasks were met that are not ours."""
    since = _cursor(ledger.manifest)
    if (few := reader.tasks.changed_if_few(since)) is not None:
        return _few(ledger, reader, few)
    listed = list(reader.tasks.changed(since))
    ours = [task for task in listed if task.sample_id and task.item]
    for start in range(0, len(ours), STRETCH):
        part = ours[start : start + STRETCH]
        held = ledger.held({day_of(task.item) for task in part}, [task.id for task in part])
        _read_again(ledger, reader, part, held)
    ledger.flush()
    return len(listed) - len(ours)


def _few(ledger: Ledger, reader: Reader, tasks: list["Json"]) -> int:
    """Add what happened on these tasks, which were read with their answers; how many are not ours."""
    ours = [task for task in tasks if _is_ours(task["data"])]
    held = ledger.held({day_of(task["data"]["item"]) for task in ours}, [task["id"] for task in ours])
    _add(ledger, reader, ours, held)
    ledger.flush()
    return len(tasks) - len(ours)


def _add(ledger: Ledger, reader: Reader, tasks: Iterable["Json"], held: Mapping[Place, Looked]) -> None:
    for task in tasks:
        looked = held.get((task["data"]["sample_id"], task["id"]))
        ledger.add(reader.events(task, looked.stands if looked else {}))


def _cursor(manifest: Manifest) -> datetime | None:
    """Where to look from; None, from the beginning."""
    stamps = [entry.facts["newest"] for entry in manifest.partitions.values()]
    return moment(max(stamps)) - OVERLAP if stamps else None


def _is_news(task: "Listed", held: Mapping[Place, Looked]) -> bool:
    """Whether a task may have answers that we do not hold, or has lost one that we do."""
    looked = held.get((task.sample_id, task.id))
    if not looked:
        return bool(task.answers)
    return (looked.changed_at, len(looked.stands)) != (task.updated_at, task.answers)


def _read_again(ledger: Ledger, reader: Reader, listed: list["Listed"], held: Mapping[Place, Looked]) -> None:
    """Add what happened on these tasks up to the newest change of those listed; later ones are for the next time.

    So the newest change in the table is never newer than a change that the listing missed.
    """
    horizon = max((task.updated_at for task in listed), default=None)
    read = reader.tasks.with_answers([task.id for task in listed if _is_news(task, held)])
    seen = (task for task in read if horizon and moment(task["updated_at"]) <= horizon and _is_ours(task["data"]))
    _add(ledger, reader, seen, held)


def _compare(ledger: Ledger, reader: Reader) -> None:
    """Find what no change tells: where a stretch of our tasks holds other totals than the table, compare each task."""
    tasks = ledger.tasks()
    for ids in _stretches(tasks["task_id"].to_list()):
        here = tasks.filter(pl.col("task_id").is_between(*ids))
        ours = Totals(int(here["answers"].sum()), int(here["skipped"].sum()))
        if ours != reader.tasks.totals(ids):
            _compare_stretch(ledger, reader, ids, here)


def _stretches(task_ids: list[int]) -> Iterable[tuple[int, int]]:
    """First and last ids of stretches that together hold every task there may be."""
    firsts = task_ids[STRETCH::STRETCH]
    return [(low, high - 1) for low, high in pairwise([0, *firsts, LAST_ID])]


def _compare_stretch(ledger: Ledger, reader: Reader, ids: tuple[int, int], tasks: pl.DataFrame) -> None:
    listed = [task for task in reader.tasks.between(ids) if task.sample_id and task.item]
    days, ids_here = {*tasks["day"], *(day_of(task.item) for task in listed)}, {task.id for task in listed}
    held = ledger.held(days, {*tasks["task_id"], *ids_here})
    there = {(task.sample_id, task.id) for task in listed}
    _read_again(ledger, reader, listed, held)
    gone = sorted(place for place in held.keys() - there if held[place].stands)
    if gone:
        deleted_at = reader.server.now()  # the server keeps no time for that, so it is when we saw it
        for place in gone:
            ledger.add(events(held[place].stands, {}, deleted_at))
    ledger.flush()
