"""validated → annotations → labels: people's answers, each question sent once, each answer collected once.

What was sent is known by our sample id in the tasks on the server, what was collected by the history we hold: there is
no state beside these two that could disagree. The annotations table is only ever added to; the labels are a pure
function of it, so that a relabel changes the partition of its item and no other.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines import annotations, engine, history, parquet, votes
from pipelines.annotations import ItemError
from pipelines.dataset import Dataset, Labeling
from pipelines.engine import Done
from pipelines.errors import NotConfiguredError
from pipelines.history import LabelsWouldVanishError
from pipelines.plan import Plan
from pipelines.settings import Settings
from pipelines.stage import Files, Inputs, Outcome, Stage
from pipelines.table import Lake, Manifest

if TYPE_CHECKING:
    from pipelines.systems.label_studio import LabelStudio, Project


@dataclass(frozen=True)
class Sent:
    """Outcome of a send: rows sampled, tasks that were there, tasks that were missing, extra copies taken away."""

    sampled: int
    already: int
    sent: int
    copies_removed: int
    project: str


@dataclass(frozen=True)
class Collected:
    """Outcome of a collect.

    Attributes:
        events: What happened (`created`, `changed`, `skipped`, `deleted`) → how often, since the last time.
        days: Partitions of the annotations that got events.
        rebuilt: Partitions of the labels that were computed.
        labels: Rows of the whole labels table.
        rejected: Answers set aside, of the whole table.
        foreign: Tasks in the project that we did not send; they are not read.
    """

    events: Mapping[str, int]
    days: tuple[str, ...]
    rebuilt: tuple[str, ...]
    labels: int
    rejected: int
    foreign: int


def annotations_table(dataset: Dataset, labeling: Labeling) -> str:
    """The table of what people did."""
    return f"annotations/{dataset.name}/{labeling.name}"


def stage(dataset: Dataset, labeling: Labeling) -> Stage:
    """The stage that makes the labels of `labeling` from the annotations."""
    source = annotations_table(dataset, labeling)
    aside = f"rejected/{dataset.name}/{labeling.name}"
    return Stage(
        verb="label",
        dataset=dataset.name,
        table=f"labels/{dataset.name}/{labeling.name}",
        beside=(aside,),
        reads=(source,),
        modules=(labeling.sample.__module__, votes.__name__, parquet.__name__),
        partitions=partial(_partitions, source),
        compute=partial(_compute, labeling, source, aside),
    )


def _partitions(source: str, inputs: Mapping[str, Manifest], _own: Manifest) -> Iterator[tuple[str, Inputs]]:
    for partition, entry in sorted(inputs[source].partitions.items()):
        yield partition, {source: {partition: entry.md5}}


def _compute(
    labeling: Labeling, source: str, aside: str, day: str, files: Files, _params: Mapping[str, Any]
) -> Outcome:
    verdict = votes.decide(pl.read_parquet(files[source][day]), labeling.keys, labeling.choices)
    rejected = verdict.rejected
    return Outcome(
        verdict.labels,
        (*labeling.keys, "sample_id"),
        facts=verdict.counts,
        beside={aside: rejected} if rejected.height else {},
    )


# Send


def send(dataset: Dataset, labeling: Labeling, lake: Lake, settings: Settings, params: Mapping[str, Any]) -> Sent:
    """Have every sampled row stand in the project as one task, whatever happened before.

    Args:
        dataset: The dataset.
        labeling: The question.
        lake: The workspace.
        settings: Where Label Studio is.
        params: The parameters of the sample, `params.yaml` below `<dataset>.<labeling>`.

    Raises:
        ItemError: The sample is not what the declaration says.
        LabelStudioError: The server refuses, or stays away.
        LabelConfigDriftError: The project asks another question.
    """
    tasks = tasks_of(dataset, labeling, lake, params)
    with lake.lease(f"sent/{dataset.name}/{labeling.name}"), connect(settings) as server:
        project = server.project(labeling.title, labeling.config)
        done = server.send(project, tasks)
        where = f"{server.wire.url}/projects/{project.id}"
    return Sent(len(tasks), done.already, done.sent, done.copies_removed, where)


def tasks_of(dataset: Dataset, labeling: Labeling, lake: Lake, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sample id → data of the task, for every sampled row, in the order of the sample."""
    frames = {name: lake.scan(_table(dataset, read.table)) for name, read in labeling.reads.items()}
    sample = labeling.sample(params=params, **frames)
    _check(dataset, labeling, sample)
    return {
        row["sample_id"]: {
            **labeling.task(row),
            "sample_id": row["sample_id"],
            "why": row["why"],
            "item": annotations.item_of(row, labeling.keys),
        }
        for row in sample.iter_rows(named=True)
    }


def _check(dataset: Dataset, labeling: Labeling, sample: pl.DataFrame) -> None:
    where = f"sample of {dataset.name} {labeling.name}"
    mend = f"Mend `sample` in {labeling.sample.__module__}, then run the same command again."
    missing = {"sample_id", "event_time", "why", *labeling.keys} - set(sample.columns)
    if missing:
        raise ItemError(f"{where}: expected the columns {', '.join(sorted(missing))}, seen none. {mend}")
    ids = sample["sample_id"]
    if ids.dtype != pl.String or ids.null_count() or ids.n_unique() != ids.len() or (ids == "").any():
        raise ItemError(
            f"{where}: expected a text in `sample_id` that no other row has, seen {ids.n_unique():,} values"
            f" of type {ids.dtype} in {ids.len():,} rows, {ids.null_count():,} of them null. {mend}"
        )
    if sample["event_time"].null_count():
        raise ItemError(f"{where}: {sample['event_time'].null_count():,} rows have no event_time. {mend}")


# Wait


def progress(labeling: Labeling, settings: Settings) -> tuple[int, int]:
    """Tasks that someone answered or skipped, and all tasks: three small requests, no data read.

    Raises:
        LabelStudioError: Nothing was sent yet, or the server stays away.
    """
    with connect(settings) as server:
        totals = server.totals(_project(server, labeling))
    return totals.done, totals.tasks


# Collect


def collect(
    dataset: Dataset, labeling: Labeling, lake: Lake, settings: Settings, *, allow_empty: bool = False
) -> Collected:
    """Add what people did since the last time to the annotations, and bring the labels up to date.

    Raises:
        LabelsWouldVanishError: The project holds no answer and we do, unless that is allowed; or it is gone.
        LabelStudioError: The server refuses, or stays away.
        LabelConfigDriftError: The project asks another question.
    """
    table = annotations_table(dataset, labeling)
    secret = _secret(settings)
    with lake.lease(table), connect(settings) as server:
        before = lake.manifest(table)
        project = _project(server, labeling, holding=history.standing(before))
        keys = _key_types(dataset, labeling, lake, before)
        reader = history.Reader(server, project, labeling, keys, secret)
        found = history.catch_up(before, lake, reader, allow_empty=allow_empty)
        lake.commit(found.manifest)
    ran = engine.run(stage(dataset, labeling), lake, _here)
    rejected = sum(entry.facts["rejected"] for entry in ran.manifest.partitions.values())
    return Collected(found.events, found.days, tuple(ran.built), ran.manifest.rows, rejected, found.foreign)


def _here(plan: Plan, lake: Lake, done: Done) -> None:
    """A day of answers is small: no cluster for them."""
    for item in plan.stale:
        done(item.partition, engine.build(plan.stage, item, plan.recipe, lake))


def _key_types(dataset: Dataset, labeling: Labeling, lake: Lake, before: Manifest) -> dict[str, pl.DataType]:
    """Types of the key columns, as the history has them, else as the tables do that the sample is drawn from."""
    tables = [before.table, *(_table(dataset, read.table) for read in labeling.reads.values())]
    for table in tables:
        for partition in sorted(lake.manifest(table).partitions)[:1]:
            found = pl.read_parquet_schema(lake.paths(table, [partition])[partition])
            if all(name in found for name in labeling.keys):
                return {name: found[name] for name in labeling.keys}
    raise ItemError(
        f"labels {dataset.name} {labeling.name}: expected the keys {', '.join(labeling.keys)} in one of"
        f" {', '.join(tables[1:])}, seen none there. Run `headrace run {dataset.name}`, or mend the declaration."
    )


def _project(server: "LabelStudio", labeling: Labeling, *, holding: int = 0) -> "Project":
    found = server.find_project(labeling.title, labeling.config)
    if found:
        return found
    where = f"Label Studio at {server.wire.url} has no project {labeling.title!r}"
    if holding:
        raise LabelsWouldVanishError(
            f"{where}, but {holding:,} answers were collected from it. Nothing was changed. Restore the server's data,"
            " or give LABEL_STUDIO_URL the right server, then run the same command again."
        )
    raise ItemError(f"{where}: send the tasks first, with `headrace label send`.")


# Where it runs


def connect(settings: Settings) -> "AbstractContextManager[LabelStudio]":
    """The Label Studio that the environment names.

    Raises:
        NotConfiguredError: It names none, or no token.
    """
    from pipelines.systems.label_studio import opened  # noqa: PLC0415  no other verb needs an HTTP client

    if not settings.label_studio_url or not settings.label_studio_token:
        raise NotConfiguredError(
            "Labels need LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY (a token of an account there), seen"
            f" {settings.label_studio_url or 'no address'} and {'a' if settings.label_studio_token else 'no'} token."
            " `headrace stack up` starts a server and writes both."
        )
    return opened(settings.label_studio_url, settings.label_studio_token.get_secret_value())


def _secret(settings: Settings) -> str:
    if not settings.pseudonym_key:
        raise NotConfiguredError(
            "Collecting needs HEADRACE_PSEUDONYM_KEY: annotators enter the history under a pseudonym made with it,"
            " never by name. Set it to a long random text, once, and keep it: with another the same people look new."
        )
    return settings.pseudonym_key.get_secret_value()


def _table(dataset: Dataset, name: str) -> str:
    state, _, table = name.partition("/")
    return f"{state}/{dataset.name}/{table}"
