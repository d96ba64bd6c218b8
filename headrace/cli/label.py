"""`headrace label`: send tasks to Label Studio, collect the answers, review them, aggregate them into labels."""

from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import (
    DatasetArgument,
    JsonOption,
    RunOption,
    TableOption,
    dataset_tables,
    named_run,
    progress,
    result,
)
from headrace.cli.output import report as report_stages
from headrace.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    from headrace.dataset import Dataset, LabelingTask
    from headrace.label.review import ReviewDecision
    from headrace.settings import Settings
    from headrace.storage.table_store import TableStore

ByOption = Annotated[
    str | None, typer.Option(help="The reviewer; by default the user of this process. Only a pseudonym is stored.")
]
ReasonOption = Annotated[str, typer.Option(help="The reason. It is stored as given, so do not name anybody.")]
AnnotatorOption = Annotated[
    str | None, typer.Option(help="Only answers of this annotator: a pseudonym from `label report`.")
]
IncludeReviewedOption = Annotated[bool, typer.Option(help="Include answers that were accepted or rejected before.")]
BeforeOption = Annotated[
    str | None,
    typer.Option(help="Only answers given or changed before this time, such as `before` in `label report --json`."),
]

app = typer.Typer(
    help="Have people label rows in Label Studio, and aggregate their answers into labels.", no_args_is_help=True
)


@app.command(epilog="Example: headrace label send flights --table delay_cause")
def send(
    dataset: DatasetArgument, table: TableOption = None, *, run: RunOption = None, as_json: JsonOption = False
) -> None:
    """Create one task in Label Studio for each sampled row that has none yet."""
    from headrace.label.send import send_tasks  # noqa: PLC0415

    with dataset_tables(dataset, run, read_only=True) as (settings, table_store):
        for declared, labeling in _labeling_tasks(dataset, table):
            with _only_sender(dataset, labeling, run):
                sent = send_tasks(declared, labeling, table_store, settings, _params(table_store, dataset, labeling))
            counts = f"{pluralize(sent.sent, 'task')} sent, {sent.existing} of {sent.sampled} existed"
            lines = [f"{labeling.name}: {counts}; {sent.project_url}"]
            if labeling.labeling_functions:
                lines.append(f"  {sent.suggestions} with a suggestion by {sent.model_version} ({sent.model_reason})")
            lines += [
                f"  task {task} about {item} is not what was sent and is left alone: somebody edited or imported it"
                for task, item in sorted(sent.foreign.items())
            ]
            if sent.rejected:
                item, reason = next(iter(sent.rejected.items()))
                lines.append(
                    f"  {len(sent.rejected)} rejected and kept in {sent.rejected_path}, such as {item}: {reason}"
                )
            result({"labeling": labeling.name, **vars(sent)}, lines, as_json=as_json)


@app.command(name="progress", epilog="Example: headrace label progress flights")
def show_progress(dataset: DatasetArgument, table: TableOption = None, *, as_json: JsonOption = False) -> None:
    """Show how many tasks have enough answers or were skipped."""
    from headrace.label.progress import read_progress  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415

    for _, labeling in _labeling_tasks(dataset, table):
        finished, tasks = read_progress(labeling, load_settings())
        content = {"labeling": labeling.name, "finished": finished, "tasks": tasks}
        result(content, [f"{labeling.name}: {finished} of {pluralize(tasks, 'task')} finished"], as_json=as_json)


@app.command(epilog="Example: headrace label collect flights")
def collect(
    dataset: DatasetArgument,
    table: TableOption = None,
    *,
    full: Annotated[
        bool,
        typer.Option(help="Compare every task, whatever the clocks say about when it changed."),
    ] = False,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Collect what annotators did since the last time; update the labels, and the tables that read them."""
    from headrace.label.collect import collect_annotations  # noqa: PLC0415

    with dataset_tables(dataset, run) as (settings, table_store):
        for declared, labeling in _labeling_tasks(dataset, table):
            found = collect_annotations(declared, labeling, table_store, settings, full=full)
            _compute_dependents(declared, labeling, table_store, settings)
            events = ", ".join(f"{count} {event}" for event, count in found.events.items()) or "nothing new"
            labels = f"{pluralize(found.labels, 'label')}, {pluralize(found.rejected, 'answer')} rejected"
            invalid = [f"  task {task} was set aside: {why}" for task, why in sorted(found.invalid_tasks.items())]
            lines = [f"{labeling.name}: {events}; {labels}", *invalid, *_disputed_lines(found.disputed)]
            if found.held:
                lines.append(
                    f"  {pluralize(found.held, 'answer')} held until a reviewer accepts them: `headrace label report"
                    f" {dataset}`, then `headrace label accept {dataset}` or `headrace label reject {dataset}`"
                )
            result({"labeling": labeling.name, **vars(found)}, lines, as_json=as_json)


@app.command(epilog="Example: headrace label report flights --gate")
def report(
    dataset: DatasetArgument,
    table: TableOption = None,
    *,
    gate: Annotated[bool, typer.Option(help="Fail if the labels do not reach the declared thresholds.")] = False,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the answers: agreement, accuracy on gold items, labeling functions, influence of suggestions."""
    from headrace.label.report import create_label_report  # noqa: PLC0415

    with dataset_tables(dataset, run, read_only=True) as (_, table_store):
        for declared, labeling in _labeling_tasks(dataset, table):
            found = create_label_report(
                declared, labeling, table_store, _params(table_store, dataset, labeling), gate=gate
            )
            content = {"labeling": labeling.name, "summary": found.summary_lines(), **asdict(found)}
            result(content, [f"{labeling.name}:", *found.summary_lines()], as_json=as_json)


@app.command(epilog="Example: headrace label request-more flights")
def request_more(
    dataset: DatasetArgument, table: TableOption = None, *, run: RunOption = None, as_json: JsonOption = False
) -> None:
    """Request one more answer to each item that its answers leave undecided."""
    from headrace.label.request_more import request_more_annotations  # noqa: PLC0415

    with dataset_tables(dataset, run, read_only=True) as (settings, table_store):
        for declared, labeling in _labeling_tasks(dataset, table):
            items = request_more_annotations(declared, labeling, table_store, settings)
            line = f"{labeling.name}: one more answer requested for {pluralize(len(items), 'item')}"
            result({"labeling": labeling.name, "items": items}, [line], as_json=as_json)


@app.command(epilog="Example: headrace label accept flights --reason 'ten of them checked'")
def accept(  # noqa: PLR0913  options of the command
    dataset: DatasetArgument,
    table: TableOption = None,
    *,
    by: ByOption = None,
    reason: ReasonOption = "",
    annotator: AnnotatorOption = None,
    include_reviewed: IncludeReviewedOption = False,
    include_disputed: Annotated[
        bool, typer.Option(help="Include answers that may not be their authors': see `label report`.")
    ] = False,
    before: BeforeOption = None,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accept the answers that were not reviewed yet; a later `label reject` does not include them.

    By `nobody`, as where a time limit passed, only answers are accepted that count without a review.
    """
    from headrace.label.review import ReviewDecision  # noqa: PLC0415

    decision = ReviewDecision(
        "accepted", by or _user(), reason, annotator, include_reviewed, _parse_time(before), include_disputed
    )
    _review(dataset, table, decision, run, as_json=as_json)


@app.command(epilog="Example: headrace label reject flights --annotator 3f2a9c --reason 'guessed'")
def reject(  # noqa: PLR0913  options of the command
    dataset: DatasetArgument,
    table: TableOption = None,
    *,
    by: ByOption = None,
    reason: ReasonOption = "",
    annotator: AnnotatorOption = None,
    include_reviewed: IncludeReviewedOption = False,
    before: BeforeOption = None,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reject the answers that were not reviewed yet: no label uses them until they are changed or accepted."""
    from headrace.label.review import ReviewDecision  # noqa: PLC0415

    decision = ReviewDecision("rejected", by or _user(), reason, annotator, include_reviewed, _parse_time(before))
    _review(dataset, table, decision, run, as_json=as_json)


@app.command(epilog="Example: headrace label aggregate flights")
def aggregate(
    dataset: DatasetArgument, table: TableOption = None, *, run: RunOption = None, as_json: JsonOption = False
) -> None:
    """Annotations → labels: aggregate the newest answers to each item. `collect` does this, too."""
    from headrace.engine.run import run_stages  # noqa: PLC0415
    from headrace.label.stage import label_stage  # noqa: PLC0415
    from headrace.project.executors import Executor  # noqa: PLC0415

    with dataset_tables(dataset, run) as (settings, table_store), progress() as tell:
        stages = [label_stage(declared, labeling) for declared, labeling in _labeling_tasks(dataset, table)]
        report_stages(run_stages(stages, table_store, Executor(settings, tell)), as_json=as_json)


def _disputed_lines(disputed: "Mapping[str, str]") -> list[str]:
    found = {"reassigned": "its author was changed", "edited_by_other": "somebody else than its author changed it"}
    return [f"  answer {name} was set aside: {found[event]}" for name, event in sorted(disputed.items())]


def _only_sender(dataset: str, labeling: "LabelingTask", run: str | None) -> "AbstractContextManager[None]":
    """Keep other runs, on whichever machine, from sending at the same time."""
    if not run:
        return nullcontext()  # a lock of the workspace does
    from headrace.runs.run_refs import RunRefs  # noqa: PLC0415
    from headrace.runs.sender_lock import hold_sender_lock  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    refs = RunRefs.configured(settings.workspace.resolve(), settings)
    return hold_sender_lock(refs, dataset, labeling.name, named_run(run))


def _review(
    dataset: str, table: list[str] | None, decision: "ReviewDecision", run: str | None, *, as_json: bool
) -> None:
    from headrace.label.review import review_annotations  # noqa: PLC0415

    with dataset_tables(dataset, run) as (settings, table_store):
        for declared, labeling in _labeling_tasks(dataset, table):
            done = review_annotations(declared, labeling, table_store, settings, decision)
            _compute_dependents(declared, labeling, table_store, settings)
            reviewed = f"{pluralize(done.answers, 'answer')} {done.decision} by {done.reviewer}"
            line = f"{labeling.name}: {reviewed}; {pluralize(done.labels, 'label')}"
            if not done.answers and not decision.include_reviewed:
                line += ". All such answers were reviewed before: `--include-reviewed` decides about those too"
            lines = [line]
            if done.disputed:
                lines.append(
                    f"  {pluralize(done.disputed, 'answer')} set aside as perhaps not their authors'; `headrace label"
                    f" accept {dataset} --table {labeling.name} --include-disputed` accepts them"
                )
            result({"labeling": labeling.name, **vars(done)}, lines, as_json=as_json)


def _compute_dependents(
    dataset: "Dataset", labeling: "LabelingTask", table_store: "TableStore", settings: "Settings"
) -> None:
    """Bring tables that read the answers or the labels up to date: the next release has all of them."""
    from headrace.engine.run import run_stages  # noqa: PLC0415
    from headrace.label.table_names import all_tables  # noqa: PLC0415
    from headrace.project.executors import Executor  # noqa: PLC0415
    from headrace.project.graph import dependent_stages  # noqa: PLC0415

    if stages := dependent_stages(dataset, all_tables(dataset, labeling)):
        with progress() as tell:
            run_stages(stages, table_store, Executor(settings, tell))


def _parse_time(text: str | None) -> "datetime | None":
    from headrace.errors import HeadraceError  # noqa: PLC0415
    from headrace.label.annotations import parse_timestamp  # noqa: PLC0415

    try:
        return parse_timestamp(text) if text else None
    except ValueError:
        raise HeadraceError(
            f"label: expected a time such as 2013-01-09T12:00:00+00:00 for --before, found {text}."
        ) from None


def _user() -> str:
    from getpass import getuser  # noqa: PLC0415

    return getuser()


def _params(table_store: "TableStore", dataset: str, labeling: "LabelingTask") -> "Mapping[str, Any]":
    """Parameters of the sample: those of the declaration, overridden by `params.yaml`."""
    from headrace.engine.fingerprint import parameter  # noqa: PLC0415
    from headrace.errors import HeadraceError  # noqa: PLC0415

    try:
        return {**labeling.params, **parameter(table_store.root, f"{dataset}.{labeling.name}")}
    except HeadraceError:
        if labeling.params:
            return labeling.params
        raise


def _labeling_tasks(dataset: str, names: list[str] | None) -> "Iterator[tuple[Dataset, LabelingTask]]":
    from headrace.errors import HeadraceError  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    loaded = load_dataset(dataset)
    declared = {labeling.name: labeling for labeling in loaded.labels}
    for name in names or declared:
        if name not in declared:
            raise HeadraceError(
                f"label {dataset}: there is no labeling task {name!r}. Its labeling tasks: {', '.join(declared)}."
            )
        yield loaded, declared[name]
