"""`headrace label`: send questions, see how far people are, collect answers, make labels of them."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.show import DatasetArgument, JsonOption, TableOption, progress, report, result, workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.dataset import Dataset, Labeling

app = typer.Typer(
    help="Ask people about rows, in Label Studio, and make labels of their answers.", no_args_is_help=True
)


@app.command()
def send(dataset: DatasetArgument, table: TableOption = None, *, as_json: JsonOption = False) -> None:
    """Have every sampled row stand in its project as one task, whatever happened before."""
    from pipelines import engine, label  # noqa: PLC0415

    settings, lake = workspace()
    for declared, labeling in _labelings(dataset, table):
        params = engine.param(lake.root, f"{dataset}.{labeling.name}")
        sent = label.send(declared, labeling, lake, settings, params)
        line = f"{labeling.name}: {sent.sent} tasks sent, {sent.already} of {sent.sampled} were there; {sent.project}"
        result({"labeling": labeling.name, **vars(sent)}, [line], as_json=as_json)


@app.command(name="progress")
def show_progress(dataset: DatasetArgument, table: TableOption = None, *, as_json: JsonOption = False) -> None:
    """Say how many tasks somebody has answered or skipped."""
    from pipelines import label  # noqa: PLC0415
    from pipelines.settings import here  # noqa: PLC0415

    for _, labeling in _labelings(dataset, table):
        done, tasks = label.progress(labeling, here())
        content = {"labeling": labeling.name, "done": done, "tasks": tasks}
        result(content, [f"{labeling.name}: {done} of {tasks} tasks done"], as_json=as_json)


@app.command()
def collect(
    dataset: DatasetArgument,
    table: TableOption = None,
    *,
    allow_empty: Annotated[bool, typer.Option(help="Believe a project that holds no answer any more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add what people did since the last time to the history, and bring the labels up to date."""
    from pipelines import label  # noqa: PLC0415

    settings, lake = workspace()
    for declared, labeling in _labelings(dataset, table):
        found = label.collect(declared, labeling, lake, settings, allow_empty=allow_empty)
        events = ", ".join(f"{count} {event}" for event, count in found.events.items()) or "nothing new"
        line = f"{labeling.name}: {events}; {found.labels} labels, {found.rejected} answers set aside"
        result({"labeling": labeling.name, **vars(found)}, [line], as_json=as_json)


@app.command()
def aggregate(dataset: DatasetArgument, table: TableOption = None, *, as_json: JsonOption = False) -> None:
    """Annotations → labels: decide each item by its newest answers; `collect` does this too."""
    from pipelines import engine, label  # noqa: PLC0415
    from pipelines.systems.dask import Executor  # noqa: PLC0415

    settings, lake = workspace()
    with progress() as tell:
        found = [label.stage(declared, labeling) for declared, labeling in _labelings(dataset, table)]
        report([engine.run(stage, lake, Executor(settings, tell)) for stage in found], as_json=as_json)


def _labelings(dataset: str, names: list[str] | None) -> "Iterator[tuple[Dataset, Labeling]]":
    from pipelines.datasets import load  # noqa: PLC0415
    from pipelines.errors import HeadraceError  # noqa: PLC0415

    declared = load(dataset)
    there = {labeling.name: labeling for labeling in declared.labels}
    for name in names or there:
        if name not in there:
            raise HeadraceError(f"label {dataset}: there is no labeling {name!r}. Its labelings: {', '.join(there)}.")
        yield declared, there[name]
