"""The annotations table, brought up to what Label Studio holds: read what changed, add what that means.

The cursor is the newest change in the table itself. What no change of a task tells (a task that is gone) shows in the
server's totals: when they differ from ours, everything is compared.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines.dataset import Labeling
from pipelines.engine import parquet
from pipelines.engine.lake import Lake
from pipelines.engine.manifest import Entry, Manifest
from pipelines.errors import HeadraceError
from pipelines.labeling.annotations import SORT_KEYS, Known, Row, day_of, events, known, moment, schema, seen
from pipelines.labeling.votes import newest

if TYPE_CHECKING:
    from pipelines.systems.label_studio import LabelStudio, Listed, Project

OVERLAP = timedelta(minutes=10)
"""Changes this much older than the newest one we hold are looked at again: they may have been under way."""


class LabelsWouldVanishError(HeadraceError):
    """The server holds none of the answers that were collected from it."""


@dataclass(frozen=True)
class Reader:
    """What it takes to read the answers to one question.

    Attributes:
        server: Label Studio.
        project: The project there.
        labeling: The question.
        keys: The items' key columns and their types.
        secret: What annotators' pseudonyms are made with.
    """

    server: "LabelStudio"
    project: "Project"
    labeling: Labeling
    keys: Mapping[str, pl.DataType]
    secret: str


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


def catch_up(before: Manifest, lake: Lake, reader: Reader, *, allow_empty: bool = False) -> CaughtUp:
    """Add to the table `before` what happened since; the bytes go into the cache, nothing is shown yet.

    Raises:
        LabelsWouldVanishError: The project holds no answer, and the table does; unless that is allowed.
    """
    if not allow_empty:
        _refuse_to_lose_all(before, reader)
    manifest, counted, foreign = before, Counter[str](), 0
    # Twice what changed, because people answer while we read; then everything.
    for since in (_cursor(before), _cursor(before), None):
        new, foreign = _news(manifest, lake, reader, since)
        manifest = manifest.plus(_added(manifest, lake, reader, new))
        counted.update(row["event"] for row in new)
        if since is None or _adds_up(manifest, reader):
            break
    days = tuple(day for day, entry in sorted(manifest.partitions.items()) if before.partitions.get(day) != entry)
    return CaughtUp(manifest, dict(counted), days, foreign)


def _cursor(manifest: Manifest) -> datetime | None:
    """Where to look from; None, from the beginning."""
    stamps = [entry.facts["newest"] for entry in manifest.partitions.values()]
    return moment(max(stamps)) - OVERLAP if stamps else None


def _adds_up(manifest: Manifest, reader: Reader) -> bool:
    totals = reader.server.totals(reader.project)
    skipped = sum(entry.facts["skipped"] for entry in manifest.partitions.values())
    return (totals.answers, totals.skipped) == (standing(manifest), skipped)


def _news(manifest: Manifest, lake: Lake, reader: Reader, since: datetime | None) -> tuple[list[Row], int]:
    """New events, and how many tasks were met that are not ours."""
    tasks = list(reader.server.tasks(reader.project, since=since))
    ours = [task for task in tasks if task.sample_id and task.item]
    days = {day_of(task.item) for task in ours} | (set() if since else set(manifest.partitions))
    held = _held(manifest, lake, days)
    wanted = [task for task in ours if task.answers or (task.sample_id, task.id) in held]
    new = list(_changes(reader, wanted, held))
    if since is None:
        new += _gone(reader, held, {(task.sample_id, task.id) for task in ours})
    return new, len(tasks) - len(ours)


def _refuse_to_lose_all(manifest: Manifest, reader: Reader) -> None:
    held = standing(manifest)
    if held and not reader.server.totals(reader.project).answers:
        raise LabelsWouldVanishError(
            f"Project {reader.project.title!r} on {reader.server.wire.url} holds no answer, but {held:,} were collected"
            " from it. Nothing was changed. Restore the server's data, or give LABEL_STUDIO_URL the right server, then"
            " run the same command again; with `--allow-empty` if they were deleted on purpose."
        )


def _held(manifest: Manifest, lake: Lake, days: Iterable[str]) -> Known:
    """The annotations of these days that stand."""
    held: Known = {}
    for day in sorted(days & manifest.partitions.keys()):
        held |= known(pl.read_parquet(lake.cache.fetch(manifest.partitions[day].md5)))
    return held


def _changes(reader: Reader, wanted: list["Listed"], held: Known) -> Iterator[Row]:
    """What happened on these tasks up to the newest change that was listed; later ones are for the next time.

    So the newest change in the table is never newer than a change that the listing missed.
    """
    horizon = max((task.updated_at for task in wanted), default=None)
    for task in reader.server.export(reader.project, [task.id for task in wanted]):
        changed_at = moment(task["updated_at"])
        if horizon and changed_at <= horizon:
            now = seen(task, reader.labeling, reader.keys, reader.secret)
            yield from events(held.get((task["data"]["sample_id"], task["id"]), {}), now, changed_at)


def _gone(reader: Reader, held: Known, there: set[tuple[str, int]]) -> Iterator[Row]:
    """The annotations of tasks that are no more: the server keeps no time for that, so it is when we saw it."""
    gone = held.keys() - there
    if gone:
        deleted_at = reader.server.now()
        for place in sorted(gone):
            yield from events(held[place], {}, deleted_at)


def _added(manifest: Manifest, lake: Lake, reader: Reader, new: list[Row]) -> dict[str, Entry]:
    """The days that get events."""
    columns = schema(reader.keys)
    by_day: dict[str, list[Row]] = {}
    for row in new:
        by_day.setdefault(row["event_time"].date().isoformat(), []).append(row)
    added = {}
    for day, rows in by_day.items():
        frame = pl.DataFrame(rows, schema=columns)
        if day in manifest.partitions:
            held = pl.read_parquet(lake.cache.fetch(manifest.partitions[day].md5))
            frame = pl.concat([held, frame])
        added[day] = _entry(lake, frame)
    return added


def _entry(lake: Lake, frame: pl.DataFrame) -> Entry:
    ordered = parquet.canonical(frame, SORT_KEYS)
    stored = lake.cache.add(lambda path: parquet.write(ordered, path))
    return Entry(stored.md5, stored.md5, stored.size, frame.height, facts=_facts(ordered))


def _facts(frame: pl.DataFrame) -> dict[str, Any]:
    """What the next collect needs to know without reading the day."""
    stands = newest(frame).filter(pl.col("event") != "deleted")
    return {
        "newest": frame.select(pl.col("updated_at").max().dt.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z")).item(),
        "answers": stands.filter(~pl.col("was_cancelled")).height,
        "skipped": stands.filter("was_cancelled")["task_id"].n_unique(),
    }
