"""`headrace runs`: start, list and end the isolated runs of datasets."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, check_name, named_run, result, run_task
from headrace.text import pluralize

if TYPE_CHECKING:
    from headrace.runs.list_runs import RunSummary

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run, as `headrace runs list` shows it.")]

app = typer.Typer(
    help="Start, list, use and end runs: each works on one commit, in a worktree of its own, and any machine can"
    " continue it.",
    no_args_is_help=True,
)


@app.command(epilog="Example: headrace runs start flights --run nightly-7")
def start(
    dataset: DatasetArgument,
    *,
    run: Annotated[
        str, typer.Option("--run", envvar="HEADRACE_RUN", help="Its name; any text, or `new` for one that is made up.")
    ] = "new",
    as_json: JsonOption = False,
) -> None:
    """Start a run at the tip of the code branch, or move one there that has started before.

    A run that is moved keeps its tables, less those that a release has changed meanwhile.
    """
    from headrace.runs.run_refs import RunRefs  # noqa: PLC0415
    from headrace.runs.start import start_run  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    state = start_run(RunRefs.configured(settings.workspace.resolve(), settings), check_name(dataset), named_run(run))
    tables = sorted(state.tables)
    line = f"run {state.name} of {dataset} starts at {state.start[:10]}"
    content = {"dataset": dataset, "run": state.name, "start": state.start, "tables": tables}
    result(content, [f"{line}, with {pluralize(len(tables), 'table')}" if tables else line], as_json=as_json)


@app.command(name="list", epilog="Example: headrace runs list flights")
def list_runs(
    dataset: Annotated[str | None, typer.Argument(help="Only the runs of this dataset.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the runs that have not ended: when they started, what they have made, and where they are on this machine."""
    from headrace.runs.list_runs import summarize_runs  # noqa: PLC0415
    from headrace.runs.run_refs import RunRefs  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    refs = RunRefs.configured(settings.workspace.resolve(), settings)
    runs = summarize_runs(refs, check_name(dataset) if dataset else "")
    lines = [_format(item) for item in runs] or ["no runs"]
    result({"runs": [_content(item) for item in runs]}, lines, as_json=as_json)


@app.command(epilog="Example: headrace runs end flights nightly-7")
def end(dataset: DatasetArgument, run: RunArgument, *, as_json: JsonOption = False) -> None:
    """End a run without a release: delete its refs, and its worktree on this machine."""
    from headrace.errors import HeadraceError  # noqa: PLC0415
    from headrace.runs.names import run_name  # noqa: PLC0415
    from headrace.runs.run_refs import RunRefs  # noqa: PLC0415
    from headrace.runs.task import end_run  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    refs = RunRefs.configured(settings.workspace.resolve(), settings)
    if not end_run(refs, check_name(dataset), run_name(run)):
        raise HeadraceError(f"{dataset} has no run {run}. `headrace runs list {dataset}` shows those that there are.")
    result(
        {"dataset": dataset, "run": run_name(run), "ended": True}, [f"run {run} of {dataset} ended"], as_json=as_json
    )


@app.command(
    name="exec", epilog="Example: headrace runs exec flights --run nightly-7 -- dvc repro --single-item flights-train"
)
def execute(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    command: Annotated[list[str], typer.Argument(help="The command, after `--`.")],
    *,
    run: Annotated[
        str, typer.Option("--run", envvar="HEADRACE_RUN", help="The run; it is started if it has not begun.")
    ],
    release: Annotated[
        bool, typer.Option(help="Then release the run, which also records what the command wrote into metrics.")
    ] = False,
    result_file: Annotated[
        Path | None, typer.Option("--result", help="A JSON file that the command writes, for the result of --json.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run any command in the worktree of a run, for example a stage of dvc.yaml that reads the tables.

    Each table has its manifest there, which is what such a stage depends on; partitions are fetched when they are read.
    Tables that the command writes are added to the run.
    """
    from headrace.cli.build import release_run  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.runs.command import run_command  # noqa: PLC0415
    from headrace.runs.task import save_task  # noqa: PLC0415

    name = named_run(run)
    content: dict[str, Any] = {"dataset": dataset, "run": name, "command": command}
    lines: list[str] = []
    with run_task(dataset, name) as task:
        run_command(task, load_dataset(dataset), command, keep_stdout=as_json)
        if result_file:
            content["result"] = json.loads((task.table_store.root / result_file).read_bytes())
        saved = replace(task, state=save_task(task))
        if release:
            content["release"], lines = release_run(saved, dataset)
    result(content, lines, as_json=as_json)


def _content(item: "RunSummary") -> dict[str, Any]:
    return {
        **vars(item),
        "started": item.started.isoformat() if item.started else None,
        "last_written": item.last_written.isoformat(),
        "worktree": str(item.worktree) if item.worktree else None,
    }


def _format(item: "RunSummary") -> str:
    started = f"started {item.started:%Y-%m-%d %H:%M} UTC" if item.started else "left over"
    hours = (datetime.now(UTC) - item.last_written).total_seconds() / 3600
    done = pluralize(len(item.tables), "table")
    where = f"; {item.worktree}" if item.worktree else ""
    return f"{item.dataset} {item.run}: {started} at {item.commit[:10]}, {done}, last {hours:.1f} h ago{where}"
