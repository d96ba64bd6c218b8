"""`headrace label`: send questions, see how far people are, collect answers, make labels of them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, TableOption, progress, result, workspace
from headrace.cli.output import report as report_stages
from headrace.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from headrace.dataset import Dataset, LabelingTask
    from headrace.label.review import Decision
    from headrace.storage.table_store import Lake

ByOption = Annotated[
    str | None, typer.Option(help="Who says so, by default the user of this process; a pseudonym of it is kept.")
]
ReasonOption = Annotated[str, typer.Option(help="Why; kept as it is, so name nobody.")]
AnnotatorOption = Annotated[
    str | None, typer.Option(help="Only answers of this person, by the pseudonym that `label report` shows.")
]
EveryOption = Annotated[bool, typer.Option("--all", help="Also answers that somebody spoke about before.")]
UntilOption = Annotated[
    str | None, typer.Option(help="Only answers given or changed until then, as `label report --json` tells it.")
]

app = typer.Typer(
    help="Ask people about rows, in Label Studio, and make labels of their answers.", no_args_is_help=True
)


@app.command(epilog="Example: headrace label send flights --table delay_cause")
def send(dataset: DatasetArgument, table: TableOption = None, *, as_json: JsonOption = False) -> None:
    """Have every sampled row stand in its project as one task, whatever happened before."""
    from headrace.label import commands  # noqa: PLC0415

    settings, lake = workspace()
    for declared, labeling in _labelings(dataset, table):
        sent = commands.send(declared, labeling, lake, settings, _params(lake, dataset, labeling))
        there = f"{pluralize(sent.sent, 'task')} sent, {sent.already} of {sent.sampled} were there"
        lines = [f"{labeling.name}: {there}; {sent.project}"]
        if labeling.labeling_functions:
            lines.append(f"  {sent.suggested} with an answer suggested by {sent.model} ({sent.why})")
        if sent.refused:
            item, reason = next(iter(sent.refused.items()))
            lines.append(f"  {len(sent.refused)} refused and kept in {sent.aside}, such as {item}: {reason}")
        result({"labeling": labeling.name, **vars(sent)}, lines, as_json=as_json)


@app.command(name="progress", epilog="Example: headrace label progress flights")
def show_progress(dataset: DatasetArgument, table: TableOption = None, *, as_json: JsonOption = False) -> None:
    """Say how many tasks have enough answers, or were skipped."""
    from headrace.label import commands  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415

    for _, labeling in _labelings(dataset, table):
        done, tasks = commands.progress(labeling, load_settings())
        content = {"labeling": labeling.name, "done": done, "tasks": tasks}
        result(content, [f"{labeling.name}: {done} of {pluralize(tasks, 'task')} done"], as_json=as_json)


@app.command(epilog="Example: headrace label collect flights")
def collect(
    dataset: DatasetArgument,
    table: TableOption = None,
    *,
    allow_empty: Annotated[bool, typer.Option(help="Believe a project that holds no answer any more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add what people did since the last time to the history, and bring the labels up to date."""
    from headrace.label import commands  # noqa: PLC0415

    settings, lake = workspace()
    for declared, labeling in _labelings(dataset, table):
        found = commands.collect(declared, labeling, lake, settings, allow_empty=allow_empty)
        events = ", ".join(f"{count} {event}" for event, count in found.events.items()) or "nothing new"
        made = f"{pluralize(found.labels, 'label')}, {pluralize(found.rejected, 'answer')} set aside"
        result({"labeling": labeling.name, **vars(found)}, [f"{labeling.name}: {events}; {made}"], as_json=as_json)


@app.command(epilog="Example: headrace label report flights --gate")
def report(
    dataset: DatasetArgument,
    table: TableOption = None,
    *,
    gate: Annotated[bool, typer.Option(help="Fail if the declared thresholds are not reached.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the answers: agreement, each person against gold, labeling functions, who follows suggestions."""
    from headrace.label import report  # noqa: PLC0415

    _, lake = workspace()
    for declared, labeling in _labelings(dataset, table):
        params = _params(lake, dataset, labeling)
        found = report.report(declared, labeling, lake, params, gate=gate)
        content = {"labeling": labeling.name, "summary": found.lines(), **found.content()}
        result(content, [f"{labeling.name}:", *found.lines()], as_json=as_json)


@app.command(epilog="Example: headrace label request-more flights")
def request_more(dataset: DatasetArgument, table: TableOption = None, *, as_json: JsonOption = False) -> None:
    """Ask one person more about each item whose answers leave it undecided."""
    from headrace.label import report  # noqa: PLC0415

    settings, lake = workspace()
    for declared, labeling in _labelings(dataset, table):
        items = report.ask_again(declared, labeling, lake, settings)
        line = f"{labeling.name}: {pluralize(len(items), 'item')} asked again"
        result({"labeling": labeling.name, "items": items}, [line], as_json=as_json)


@app.command(epilog="Example: headrace label accept flights --reason 'ten of them checked'")
def accept(  # noqa: PLR0913  whose answers, whose word, and why
    dataset: DatasetArgument,
    table: TableOption = None,
    *,
    by: ByOption = None,
    reason: ReasonOption = "",
    annotator: AnnotatorOption = None,
    every: EveryOption = False,
    until: UntilOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accept the answers that nobody spoke about yet: a later `label reject` leaves them in."""
    from headrace.label.review import Decision  # noqa: PLC0415

    said = Decision("accepted", by or _user(), reason, annotator, every, _moment(until))
    _decide(dataset, table, said, as_json=as_json)


@app.command(epilog="Example: headrace label reject flights --annotator 3f2a9c --reason 'guessed'")
def reject(  # noqa: PLR0913  as `accept`
    dataset: DatasetArgument,
    table: TableOption = None,
    *,
    by: ByOption = None,
    reason: ReasonOption = "",
    annotator: AnnotatorOption = None,
    every: EveryOption = False,
    until: UntilOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the answers that nobody spoke about yet out of the labels, until they are changed or accepted."""
    from headrace.label.review import Decision  # noqa: PLC0415

    said = Decision("refused", by or _user(), reason, annotator, every, _moment(until))
    _decide(dataset, table, said, as_json=as_json)


def _decide(dataset: str, table: list[str] | None, decision: "Decision", *, as_json: bool) -> None:
    from headrace.label import commands  # noqa: PLC0415

    settings, lake = workspace()
    for declared, labeling in _labelings(dataset, table):
        done = commands.decide(declared, labeling, lake, settings, decision)
        spoken = f"{pluralize(done.answers, 'answer')} {done.word} by {done.by}"
        line = f"{labeling.name}: {spoken}; {pluralize(done.labels, 'label')}"
        if not done.answers and not decision.every:
            line += ". Every such answer was spoken about before: `--all` means those too"
        result({"labeling": labeling.name, **vars(done)}, [line], as_json=as_json)


def _moment(text: str | None) -> "datetime | None":
    from headrace.errors import HeadraceError  # noqa: PLC0415
    from headrace.label.annotations import moment  # noqa: PLC0415

    try:
        return moment(text) if text else None
    except ValueError:
        raise HeadraceError(
            f"label: expected --until to be a time such as 2013-01-09T12:00:00+00:00, seen {text}."
        ) from None


def _user() -> str:
    from getpass import getuser  # noqa: PLC0415

    return getuser()


@app.command(epilog="Example: headrace label aggregate flights")
def aggregate(dataset: DatasetArgument, table: TableOption = None, *, as_json: JsonOption = False) -> None:
    """Annotations → labels: decide each item by its newest answers; `collect` does this too."""
    from headrace.engine.run import run_stage  # noqa: PLC0415
    from headrace.label import commands  # noqa: PLC0415
    from headrace.project.executors import Executor  # noqa: PLC0415

    settings, lake = workspace()
    with progress() as tell:
        found = [commands.label_stage(declared, labeling) for declared, labeling in _labelings(dataset, table)]
        report_stages([run_stage(stage, lake, Executor(settings, tell)) for stage in found], as_json=as_json)


def _params(lake: "Lake", dataset: str, labeling: "LabelingTask") -> "Mapping[str, Any]":
    """What `params.yaml` says of the sample; where it says nothing, what the declaration has."""
    from headrace.engine.fingerprint import parameter  # noqa: PLC0415
    from headrace.errors import HeadraceError  # noqa: PLC0415

    try:
        return {**labeling.params, **parameter(lake.root, f"{dataset}.{labeling.name}")}
    except HeadraceError:
        if labeling.params:
            return labeling.params
        raise


def _labelings(dataset: str, names: list[str] | None) -> "Iterator[tuple[Dataset, LabelingTask]]":
    from headrace.errors import HeadraceError  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    declared = load_dataset(dataset)
    there = {labeling.name: labeling for labeling in declared.labels}
    for name in names or there:
        if name not in there:
            raise HeadraceError(f"label {dataset}: there is no labeling {name!r}. Its labelings: {', '.join(there)}.")
        yield declared, there[name]
