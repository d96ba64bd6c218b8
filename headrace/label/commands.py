"""validated → annotations → labels: people's answers, each question sent once, each answer collected once.

What was sent is known by our sample id in the tasks on the server, what was collected by the history we hold: there is
no state beside these two that could disagree. The annotations table is only ever added to; the labels are a pure
function of it, so that a relabel changes the partition of its item and no other.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl

from headrace import failpoints
from headrace.dataset import Dataset, LabelingTask
from headrace.engine.compute import build
from headrace.engine.plan import Plan
from headrace.engine.run import Done, run_stage
from headrace.engine.stage import Files, Outcome, Stage
from headrace.errors import NotConfiguredError, TableLockedError
from headrace.label import consensus, labeling_functions, table_names, tasks
from headrace.label import sync as history
from headrace.label.annotation_log import Ledger
from headrace.label.annotations import ItemError, pseudonym
from headrace.label.connection import connect, project_of
from headrace.label.review import Decision
from headrace.settings import Settings
from headrace.storage.files import write_whole
from headrace.storage.manifest import Manifest
from headrace.storage.table_store import Lake

SENDER_WAIT_S = 600
"""How long a second sender waits for the first one."""


@dataclass(frozen=True)
class Sent:
    """Outcome of a send.

    Attributes:
        sampled: Rows of the sample.
        already: Tasks that were there.
        sent: Tasks that were missing.
        copies_removed: Extra copies taken away.
        refused: Sample id → why Label Studio does not take its task; they are kept in `aside`.
        suggested: Items that go with a suggestion.
        model: What suggests, and `why` that.
        project: Address of the project.
    """

    sampled: int
    already: int
    sent: int
    copies_removed: int
    refused: Mapping[str, str]
    aside: str
    suggested: int
    model: str
    why: str
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


@dataclass(frozen=True)
class Decided:
    """Outcome of a person's word on answers.

    Attributes:
        word: `accepted` or `refused`.
        by: Who, by the pseudonym that the history keeps.
        answers: How many answers it is about.
        days: Partitions of the annotations that got events.
        rebuilt: Partitions of the labels that were computed.
        labels: Rows of the whole labels table.
    """

    word: str
    by: str
    answers: int
    days: tuple[str, ...]
    rebuilt: tuple[str, ...]
    labels: int


def label_stage(dataset: Dataset, labeling: LabelingTask) -> Stage:
    """The stage that makes the labels of `labeling` from the annotations."""
    aside = f"rejected/{dataset.name}/{labeling.name}"
    judging = consensus.of(labeling, dataset.name)
    return Stage(
        verb="label",
        dataset=dataset.name,
        table=f"labels/{dataset.name}/{labeling.name}",
        beside=(aside,),
        reads=judging.reads,
        modules=(*labeling.modules, labeling.sample.__module__),
        files=labeling.files,
        libraries=("polars", "pyarrow", *judging.libraries),
        partitions=judging.partitions,
        compute=partial(_compute, judging, labeling.keys, aside),
    )


def _compute(
    judging: consensus.Consensus,
    keys: tuple[str, ...],
    aside: str,
    _partition: str,
    files: Files,
    _params: Mapping[str, Any],
) -> Outcome:
    verdict = judging.decide(files)
    rejected = verdict.rejected
    return Outcome(
        verdict.labels,
        (*keys, "sample_id"),
        facts=verdict.counts,
        beside={aside: rejected} if rejected.height else {},
    )


# Send


def send(dataset: Dataset, labeling: LabelingTask, lake: Lake, settings: Settings, params: Mapping[str, Any]) -> Sent:
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
    from headrace.label import report  # noqa: PLC0415  a plan need not import NumPy

    rows = tasks.sampled(dataset, labeling, lake, params)
    wanted = tasks.contents(dataset, labeling, rows)
    made = labeling_functions.suggest(
        labeling_functions.vote(rows, labeling), labeling, report.answered(dataset, labeling, lake)
    )
    from headrace.label.label_studio.import_tasks import Sender  # noqa: PLC0415  no other verb needs an HTTP client

    with _alone(lake, f"sent/{dataset.name}/{labeling.name}"), connect(settings) as server:
        project = server.project(labeling.title, labeling.config)
        server.set_up(project, opinions=labeling.annotators_per_item)
        done = Sender(server).send(project, wanted, tasks.predictions(labeling, made))
        server.show(project, made.model)
        where = f"{server.wire.url}/projects/{project.id}"
    aside = _set_aside(dataset, labeling, lake, wanted, done.refused)
    return Sent(
        sampled=len(wanted),
        already=done.already,
        sent=done.sent,
        copies_removed=done.copies_removed,
        refused=done.refused,
        aside=aside,
        suggested=len(made.by_item),
        model=made.model,
        why=made.why,
        project=where,
    )


def tasks_of(
    dataset: Dataset, labeling: LabelingTask, lake: Lake, params: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Sample id → data of the task, for every sampled row, in the order of the sample."""
    return tasks.contents(dataset, labeling, tasks.sampled(dataset, labeling, lake, params))


@contextmanager
def _alone(lake: Lake, lease: str) -> Iterator[None]:
    """Hold a lease, after whoever holds it now."""
    deadline = time.monotonic() + SENDER_WAIT_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(lake.lease(lease))
                break
            except TableLockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield


def _set_aside(
    dataset: Dataset, labeling: LabelingTask, lake: Lake, wanted: Mapping[str, Any], refused: Mapping[str, str]
) -> str:
    """Keep the tasks that the server does not take, each with the reason; where they lie."""
    path = lake.root / ".headrace" / "refused" / "tasks" / dataset.name / f"{labeling.name}.json"
    if not refused:
        with failpoints.failpoint("no tasks set aside"):
            path.unlink(missing_ok=True)
        return ""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: {"reason": reason, "data": wanted[name]} for name, reason in refused.items()}
    write_whole(path, json.dumps(kept, indent=2, default=str).encode())
    return path.relative_to(lake.root).as_posix()


# Wait


def progress(labeling: LabelingTask, settings: Settings) -> tuple[int, int]:
    """Tasks that nobody need, or can, answer any more, and all tasks: a few small requests, no data read.

    Raises:
        LabelStudioError: Nothing was sent yet, or the server stays away.
    """
    from headrace.label.label_studio.progress import progress as counted  # noqa: PLC0415  as in `send`

    with connect(settings) as server:
        return counted(server, project_of(server, labeling))


# Collect


def collect(
    dataset: Dataset, labeling: LabelingTask, lake: Lake, settings: Settings, *, allow_empty: bool = False
) -> Collected:
    """Add what people did since the last time to the annotations, and bring the labels up to date.

    Raises:
        LabelsWouldVanishError: The project holds no answer and we do, unless that is allowed; or it is gone.
        LabelStudioError: The server refuses, or stays away.
        LabelConfigDriftError: The project asks another question.
    """
    table = table_names.annotations(dataset, labeling)
    secret = _secret(settings)
    with lake.lease(table), connect(settings) as server:
        before = lake.manifest(table)
        project = project_of(server, labeling, holding=history.standing(before))
        keys = _key_types(dataset, labeling, lake, before)
        reader = history.Reader(server, project, labeling, keys, secret)
        found = history.catch_up(Ledger(before, lake, keys), reader, allow_empty=allow_empty)
        lake.commit(found.manifest)
    ran = run_stage(label_stage(dataset, labeling), lake, _here)
    rejected = sum(entry.facts["rejected"] for entry in ran.manifest.partitions.values())
    return Collected(found.events, found.days, tuple(ran.built), ran.manifest.rows, rejected, found.foreign)


# Decide


def decide(dataset: Dataset, labeling: LabelingTask, lake: Lake, settings: Settings, decision: Decision) -> Decided:
    """Note what a person says of answers in the history, and bring the labels up to date.

    Raises:
        ItemError: Nothing was collected yet.
    """
    table = table_names.annotations(dataset, labeling)
    by = pseudonym(f"by {decision.by}", _secret(settings))
    with _alone(lake, table):
        before, history = lake.manifest(table), table_names.history(dataset, labeling, lake)
        ledger = Ledger(before, lake, {name: history.schema[name] for name in labeling.keys})
        ledger.add(decision.events(history, by, datetime.now(UTC)))
        ledger.flush()
        lake.commit(ledger.manifest)
        ran = run_stage(label_stage(dataset, labeling), lake, _here)
    answers = ledger.counted[decision.word]
    return Decided(decision.word, by, answers, ledger.days_since(before), tuple(ran.built), ran.manifest.rows)


def _here(plan: Plan, lake: Lake, done: Done) -> None:
    """A day of answers is small: no cluster for them."""
    for item in plan.stale:
        done(item.partition, build(plan.stage, item, plan.fingerprint, lake))


def _key_types(dataset: Dataset, labeling: LabelingTask, lake: Lake, before: Manifest) -> dict[str, pl.DataType]:
    """Types of the key columns, as the history has them, else as the tables do that the sample is drawn from."""
    places = [before.table, *(table_names.table(dataset, read.table) for read in labeling.inputs.values())]
    for table in places:
        for partition in sorted(lake.manifest(table).partitions)[:1]:
            found = pl.read_parquet_schema(lake.paths(table, [partition])[partition])
            if all(name in found for name in labeling.keys):
                return {name: found[name] for name in labeling.keys}
    raise ItemError(
        f"labels {dataset.name} {labeling.name}: expected the keys {', '.join(labeling.keys)} in one of"
        f" {', '.join(places[1:])}, seen none there. Run `headrace run {dataset.name}`, or mend the declaration."
    )


def _secret(settings: Settings) -> str:
    if not settings.pseudonym_key:
        raise NotConfiguredError(
            "Collecting needs HEADRACE_PSEUDONYM_KEY: annotators enter the history under a pseudonym made with it,"
            " never by name. Set it to a long random text, once, and keep it: with another the same people look new."
        )
    return settings.pseudonym_key.get_secret_value()
