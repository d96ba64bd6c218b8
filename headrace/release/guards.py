"""The guards of a release: what every table would lose since the last release, and which times lie in the future."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from headrace.dataset import Dataset, FeatureTable, LabelingTask
from headrace.guards.finding import Acceptance, GuardFinding, hash_state
from headrace.guards.future import clock, future_findings, moment_of, starts_of
from headrace.guards.gate import enforce
from headrace.guards.vanished import TableLoss, table_loss
from headrace.project import graph
from headrace.release.changes import PartitionDiff
from headrace.release.retired_tables import read_retired_tables
from headrace.storage import git
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import ENCODER
from headrace.storage.partition_names import partition_interval
from headrace.storage.schema_diff import SchemaDiff, logical_columns
from headrace.storage.table_schema import MixedTypesError
from headrace.storage.table_store import TableStore
from headrace.text import pluralize
from headrace.transform.kernel import SPAN

LEVELS: Mapping[str, Literal["error", "warning"]] = {"features": "error", "labels": "error", "validated": "warning"}
"""State → level of a finding that a column of its tables is gone or changed."""

NOTE = "accepted: "
"""What the line of a tag's message begins with that holds an acceptance, as JSON."""


def check_guards(
    dataset: Dataset,
    table_store: TableStore,
    last: str,
    released: Mapping[str, Any],
    changes: Mapping[str, PartitionDiff],
) -> list[Acceptance]:
    """Hold what changed since the release `last` against the declared bounds; the acceptances that let findings pass.

    Args:
        dataset: The dataset.
        table_store: Its tables.
        last: The last release; empty if there is none.
        released: Its output entries.
        changes: Table → what changed since.

    Raises:
        FindingsError: Too much would vanish, or times lie in the future, and nobody has accepted that.
    """
    inputs = _inputs(dataset)
    changed = [table for table in inputs if table in changes]

    def manifest_before(table: str) -> Manifest | None:
        out = released.get(f"data/{table}")
        return table_store.manifest_of_directory(out["md5"]) if out else None

    losing = [table for table in changed if changes[table].changed or changes[table].removed]
    losses = {table: table_loss(manifest_before(table), table_store.manifest(table)) for table in losing}
    findings = [
        *_undeclared(dataset, table_store, changes, manifest_before, last),
        *_vanished(dataset, losses, inputs, f"since {last}"),
        *_future(dataset, table_store, {table: changes[table] for table in changed}, inputs),
        *column_findings(dataset, table_store, changes, manifest_before, last),
    ]
    return enforce(
        findings,
        dataset=dataset.name,
        step="release",
        tables={*inputs, *changes},
        table_store=table_store,
        consequence="Nothing was released.",
    )


def _inputs(dataset: Dataset) -> dict[str, Sequence[str]]:
    """Table → tables that it is computed from, for raw, validated, derived and feature tables, each after its inputs.

    Not of labels: `label collect` guards the answers, and people who reject some have decided.
    """
    every = graph.dataset_stages(dataset)
    of_people = {table for stage in every if stage.verb == "label" for table in (stage.table, *stage.companion_tables)}
    stages = [replace(it, reads=_without(it.reads, of_people)) for it in every if it.verb != "label"]
    computed = {stage.table: stage.reads for stage in stages}
    sources: dict[str, Sequence[str]] = {read: () for stage in stages for read in stage.reads if read not in computed}
    return {**sources, **computed}


def _without(tables: Sequence[str], others: Collection[str]) -> tuple[str, ...]:
    """These tables less the others, and less histories of answers."""
    return tuple(table for table in tables if table not in others and not table.startswith("annotations/"))


def _vanished(
    dataset: Dataset, losses: Mapping[str, TableLoss], inputs: Mapping[str, Sequence[str]], since: str
) -> Iterator[GuardFinding]:
    """A finding per table that loses too much, less what follows from the loss of a table that it is computed from."""
    cause: dict[str, str] = {}
    for table, loss in losses.items():
        causes = (read for read in inputs[table] if read in losses and loss.follows_from(losses[read]))
        cause[table] = cause.get(found, found) if (found := next(causes, "")) else table
    for table, loss in losses.items():
        if cause[table] == table:
            also = [losses[other] for other, root in cause.items() if root == table != other and losses[other].losses]
            if finding := loss.finding(dataset.guards_of(table), since, also):
                yield finding


def _undeclared(
    dataset: Dataset,
    table_store: TableStore,
    changes: Mapping[str, PartitionDiff],
    manifest_before: Callable[[str], Manifest | None],
    last: str,
) -> Iterator[GuardFinding]:
    """A finding per table of the last release that is neither declared nor retired, whatever the bound."""
    stages = graph.dataset_stages(dataset)
    declared = {table for stage in stages for table in (*stage.reads, stage.table, *stage.companion_tables)}
    retired = read_retired_tables(table_store.root)
    for table in sorted(changes.keys() - declared):
        before = manifest_before(table)
        if before is None or len(changes[table].removed) < len(before.md5s) or table in retired:
            continue
        name = table.rsplit("/", 1)[1]
        found = (
            f"{table}: all {pluralize(len(before.md5s), 'partition')} would vanish since {last}: nothing declares it"
        )
        commands = f"`headrace drop {dataset.name} {name}` or `headrace rename {dataset.name} {name} NEW`"
        yield table_loss(before, Manifest(table)).as_finding(f"{found}. {commands} records why")


def column_findings(
    dataset: Dataset,
    table_store: TableStore,
    tables: Iterable[str],
    manifest_before: Callable[[str], Manifest | None],
    last: str,
) -> Iterator[GuardFinding]:
    """A finding per table of which a reader of the release `last` would miss a column, or find other values in it.

    Of a validated table it is a warning: what the dataset itself computes from it was checked with the columns of now.
    """
    for table in tables:
        before, state = manifest_before(table), table.partition("/")[0]
        if before is None or state not in LEVELS:
            continue
        changed = _column_changes(before, table_store.manifest(table))
        if changed.breaks:
            yield GuardFinding(
                check="columns",
                table=table,
                level=LEVELS[state],
                state_hash=hash_state(changed.breaks),
                text=f"{table}: since {last}, {', '.join(changed.breaks)}; {_readers(dataset, table)}",
            )


def _column_changes(before: Manifest, after: Manifest) -> SchemaDiff:
    try:
        old, new = logical_columns(before), logical_columns(after)
    except MixedTypesError:  # a release that is older than the check
        return SchemaDiff()
    return SchemaDiff.by_id(old, new) if old and new else SchemaDiff()


def _readers(dataset: Dataset, table: str) -> str:
    """Who reads a table."""
    state, _, name = table.split("/")
    if state == "features":
        service = f" of the service {dataset.service}" if dataset.service else ""
        return f"the view {name}{service} has it, and who asks for it would get an error or other values"
    readers = [
        *(f"features/{it.name}" for it in dataset.features if _reads(it, table)),
        *(f"labels/{it.name}" for it in dataset.labels if _reads(it, table)),
    ]
    own = f", read here by {', '.join(readers)}," if readers else ""
    return f"queries and notebooks that name it{own} would get an error or other values"


def _reads(declared: FeatureTable | LabelingTask, table: str) -> bool:
    short = "/".join(table.split("/")[::2])
    return any(read.table == short for read in declared.inputs.values())


def _future(
    dataset: Dataset, table_store: TableStore, changes: Mapping[str, PartitionDiff], inputs: Mapping[str, Sequence[str]]
) -> Iterator[GuardFinding]:
    """A finding per new or changed partition of the future, but for what follows from one that it is computed from."""
    moment = clock()
    explained: dict[str, set[str]] = {}
    for table, change in changes.items():
        manifest, guards = table_store.manifest(table), dataset.guards_of(table)
        times = newest_times(manifest, [*change.added, *change.changed])
        known = {name for read in inputs[table] for name in explained.get(read, ())}
        is_explained = partial(_is_within, tolerance=guards.max_future or timedelta(0))
        own = {name: time for name, time in times.items() if not (name in known and is_explained(name, time))}
        beyond = {name for name, time in times.items() if time > moment}
        explained[table] = beyond | known
        yield from future_findings(table, own, manifest.partition_md5s, guards, moment)


def _is_within(partition: str, time: datetime, tolerance: timedelta) -> bool:
    end = partition_interval(partition)[1]
    return end is not None and time <= end + tolerance


def newest_times(manifest: Manifest, partitions: Iterable[str]) -> dict[str, datetime]:
    """Partition → its newest event time or known time, else the start of its interval, as far as the manifest knows."""
    names = list(partitions)
    spans = {name: facts.get(SPAN) for name, facts in manifest.entries.pick("metadata", names).items()}
    newest = {name: moment_of(max(span["last"], span["known"])) for name, span in spans.items() if span}
    return starts_of(manifest, names) | newest


def forget_released(accepted: Sequence[Acceptance], dataset: Dataset, table_store: TableStore) -> None:
    """Remove from the workspace what its release has recorded; what a run has recorded ends with the run."""
    if not accepted or table_store.findings_ref:
        return
    from headrace.guards.finding_log import open_finding_log  # noqa: PLC0415

    ids = {each.finding for each in accepted}
    open_finding_log(table_store, dataset.name).update(lambda record: record.without(ids))


def note_lines(accepted: Iterable[Acceptance]) -> Iterator[str]:
    """The lines of the message of a release's tag that hold its acceptances."""
    return (f"{NOTE}{ENCODER.encode(each).decode()}" for each in accepted)


def read_acceptances(root: Path, dataset: str) -> dict[str, list[Acceptance]]:
    """Release → what was accepted for it, of every release of a dataset whose tag is here."""
    form = "%(refname:lstrip=2)%0a%(contents)%00"
    tags = git.git(root, "for-each-ref", f"--format={form}", f"refs/tags/{dataset}/").split("\0")
    found = {}
    for tag in filter(None, map(str.strip, tags)):
        name, *lines = tag.splitlines()
        found[name] = [_ACCEPTANCE.decode(line.removeprefix(NOTE)) for line in lines if line.startswith(NOTE)]
    return found


_ACCEPTANCE = msgspec.json.Decoder(Acceptance)
