"""The commands that compute tables and releases: ingest, validate, transform, release; `run` is the first three."""

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import (
    DatasetArgument,
    JsonOption,
    PartitionOption,
    RunOption,
    TableOption,
    dataset_tables,
    named_run,
    progress,
    report,
    result,
    run_task,
    stages,
    writable_workspace,
)
from headrace.cli.recomputation import (
    FromOption,
    ToOption,
    YesOption,
    chosen_partitions,
    confirm_recomputation,
)

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.engine.run import StageResult
    from headrace.engine.stage import Stage
    from headrace.ingest.ingest import IngestResult
    from headrace.release.release import ReleaseResult
    from headrace.runs.task import RunTask
    from headrace.settings import Settings
    from headrace.storage.table_store import TableStore


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: headrace ingest flights --table weather")(ingest)
    app.command(epilog="Example: headrace validate flights --table weather --partition 2013-01-09")(validate)
    app.command(epilog="Example: headrace transform flights --table carrier_delays")(transform)
    app.command(epilog="Example: headrace run flights --release")(run)
    app.command(epilog="Example: headrace release flights --run nightly-7")(release)


def ingest(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    table: TableOption = None,
    partition: PartitionOption = None,
    *,
    full_refresh: Annotated[
        bool, typer.Option(help="Read every partition of database tables again, changed or not.")
    ] = False,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Source → raw: read new and changed objects and rows, and keep them unaltered."""
    with dataset_tables(dataset, run) as (settings, table_store):
        found = _ingest(dataset, settings, table_store, table, partition, full_refresh=full_refresh)
    result({"ingested": [vars(item) for item in found]}, [str(item) for item in found], as_json=as_json)


def validate(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    table: TableOption = None,
    partition: PartitionOption = None,
    *,
    first: FromOption = None,
    last: ToOption = None,
    yes: YesOption = False,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Raw → validated: check rows against their contract; keep rejected rows with the checks that they failed."""
    chosen = chosen_partitions(partition, first, last)
    with dataset_tables(dataset, run) as (settings, table_store):
        steps = _command_stages(dataset, "validate", table)
        confirm_recomputation(steps, table_store, chosen, yes=yes or as_json)
        ran = _run(settings, table_store, steps, chosen)
    report(ran, as_json=as_json)


def transform(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    table: TableOption = None,
    partition: PartitionOption = None,
    *,
    first: FromOption = None,
    last: ToOption = None,
    yes: YesOption = False,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Validated → features and derived tables: compute the partitions whose inputs or code changed.

    Labels that they read are aggregated first, unless tables are named.
    """
    chosen = chosen_partitions(partition, first, last)
    with dataset_tables(dataset, run) as (settings, table_store):
        steps = _command_stages(dataset, "transform", table) if table else _transform_stages(dataset)
        confirm_recomputation(steps, table_store, chosen, yes=yes or as_json)
        ran = _run(settings, table_store, steps, chosen)
    report(ran, as_json=as_json)


def run(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    *,
    release: Annotated[bool, typer.Option(help="Make a release afterwards, as `headrace release` does.")] = False,
    first: FromOption = None,
    last: ToOption = None,
    yes: YesOption = False,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Source → features: ingest, validate and transform in one process, as the nightly run does."""
    chosen = chosen_partitions(None, first, last)
    run = named_run(run) if run else None
    with dataset_tables(dataset, run) as (settings, table_store):
        found = _ingest(dataset, settings, table_store)
        if not as_json:
            typer.echo("\n".join(str(item) for item in found))
        validations, transforms = _command_stages(dataset, "validate"), _transform_stages(dataset)
        confirm_recomputation([*validations, *transforms], table_store, chosen, yes=yes or as_json)
        ran = [*_run(settings, table_store, validations, chosen), *_run(settings, table_store, transforms, chosen)]
    if not (release and as_json):
        report(ran, as_json=as_json)
    if release:
        content, lines = _release(dataset, run)
        result({**stages(ran), "release": content}, lines, as_json=as_json)


def release(dataset: DatasetArgument, *, run: RunOption = None, as_json: JsonOption = False) -> None:
    """Tables → release: audit, push the bytes and read them back, then push commit and tag atomically.

    A run ends with its release.
    """
    content, lines = _release(dataset, run)
    result(content, lines, as_json=as_json)


def _release(dataset: str, run: str | None) -> tuple[dict[str, Any], list[str]]:
    """Make a release; returns its description as JSON and as lines of text."""
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.release.release import create_release  # noqa: PLC0415

    if not run:
        _, table_store = writable_workspace()
        return _describe_release(dataset, create_release(load_dataset(dataset), table_store), table_store)
    with run_task(dataset, run) as task:
        return release_run(task, dataset)


def release_run(task: "RunTask", dataset: str) -> tuple[dict[str, Any], list[str]]:
    """Release a run, which ends with it; returns its description as JSON and as lines of text."""
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.runs.task import end_run, release_task  # noqa: PLC0415

    described = _describe_release(dataset, release_task(task, load_dataset(dataset)), task.table_store)
    end_run(task.refs, dataset, task.state.name, start=task.state.start)
    return described


def _describe_release(
    dataset: str, made: "ReleaseResult", table_store: "TableStore"
) -> tuple[dict[str, Any], list[str]]:
    head = f"{made.name} {'released' if made.created else 'unchanged since'} ({made.commit[:10]})"
    pushed_to = _release_target(table_store.root) if made.created else None
    lines = [
        f"{head}; {made.pushed.objects} objects, {made.pushed.size:,} bytes pushed and found there by md5",
        *([f"  on {pushed_to['branch']} of {pushed_to['remote']}"] if pushed_to else []),
        *(f"  {table}: {change}" for table, change in made.changes.items()),
        *(f"  {acceptance}" for acceptance in made.accepted),
        *(f"  {table} is held back, as it was in the release before: {reason}" for table, reason in made.held.items()),
    ]
    if pushed_to and (stack := _own_stack(table_store.root)):
        lines.append(
            f"  not on {stack}, the origin of the stack that serves this clone: its runs make releases of their own."
            f" `git pull --no-rebase --tags {stack} {pushed_to['branch']}` brings those here"
        )
    content = {**vars(made), "pushed": vars(made.pushed), "accepted": [each.to_dict() for each in made.accepted]}
    content["pushed_to"] = pushed_to
    content["changes"] = {table: vars(change) for table, change in made.changes.items()}
    content["rows"] = {table: table_store.manifest(table).rows for table in table_store.tables(dataset)}
    return content, lines


def _release_target(root: "Path") -> dict[str, str]:
    """The git remote that releases are pushed to, without credentials, and the branch there."""
    from headrace.errors import hide_credentials  # noqa: PLC0415
    from headrace.release.branches import Branches  # noqa: PLC0415
    from headrace.storage import git  # noqa: PLC0415

    remote = hide_credentials(git.config_value(root, f"remote.{git.REMOTE}.url"))
    return {"remote": remote, "branch": Branches.configured(root).release}


def _own_stack(root: "Path") -> "Path | None":
    """The bare repository of the local stack that serves this clone; None if there is none."""
    from pathlib import Path  # noqa: PLC0415

    from headrace.stack.paths import HOME, StackPaths  # noqa: PLC0415
    from headrace.storage import git  # noqa: PLC0415

    repository = Path(git.git(root, "rev-parse", "--path-format=absolute", "--git-common-dir"))  # also of a worktree
    origin = StackPaths(repository.parent / HOME).origin
    return origin if origin.exists() else None


def _ingest(  # noqa: PLR0913  each is an option of the command
    dataset: str,
    settings: "Settings",
    table_store: "TableStore",
    tables: list[str] | None = None,
    partition: str | None = None,
    *,
    full_refresh: bool = False,
) -> "list[IngestResult]":
    from headrace.ingest import ingest as verb  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.release.worktree_refs import note_listing  # noqa: PLC0415

    if not (tables or partition):
        note_listing(table_store.root, dataset)
    with progress() as tell:
        return verb.ingest(
            load_dataset(dataset),
            table_store,
            settings,
            sources=tables,
            partition=partition,
            full_refresh=full_refresh,
            progress=tell,
        )


def _command_stages(dataset: str, verb: str, tables: list[str] | None = None) -> "tuple[Stage, ...]":
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    return graph.command_stages(load_dataset(dataset), verb, tables or ())


def _transform_stages(dataset: str) -> "tuple[Stage, ...]":
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    return graph.transform_stages(load_dataset(dataset))


def _run(
    settings: "Settings",
    table_store: "TableStore",
    steps: "Sequence[Stage]",
    chosen: Container[str] | None,
) -> "list[StageResult]":
    from headrace.engine.run import run_stages  # noqa: PLC0415
    from headrace.project.executors import Executor  # noqa: PLC0415

    with progress() as tell:
        return run_stages(steps, table_store, Executor(settings, tell), chosen)
