"""The commands that compute tables and releases: ingest, validate, transform, release; `run` is the first three."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import (
    DatasetArgument,
    JsonOption,
    PartitionOption,
    TableOption,
    progress,
    report,
    result,
    stages,
    writable_workspace,
)

if TYPE_CHECKING:
    from headrace.engine.run import StageResult
    from headrace.ingest.ingest import IngestResult


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: headrace ingest flights --table weather")(ingest)
    app.command(epilog="Example: headrace validate flights --table weather --partition 2013-01-09")(validate)
    app.command(epilog="Example: headrace transform flights --table carrier_delays")(transform)
    app.command(epilog="Example: headrace run flights --release")(run)
    app.command(epilog="Example: headrace release flights")(release)


def ingest(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    table: TableOption = None,
    partition: PartitionOption = None,
    *,
    full_refresh: Annotated[
        bool, typer.Option(help="Read every partition of database tables again, changed or not.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option(help="Accept a source that lists nothing: its table becomes empty.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Source → raw: read new and changed objects and rows, and keep them unaltered."""
    found = _ingest(dataset, table, partition, full_refresh=full_refresh, allow_empty=allow_empty)
    result({"ingested": [vars(item) for item in found]}, [str(item) for item in found], as_json=as_json)


def validate(
    dataset: DatasetArgument,
    table: TableOption = None,
    partition: PartitionOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Raw → validated: check rows against their contract; keep rejected rows with the checks that they failed."""
    report(_run(dataset, "validate", table, partition), as_json=as_json)


def transform(
    dataset: DatasetArgument,
    table: TableOption = None,
    partition: PartitionOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Validated → features: compute the partitions whose inputs or code changed."""
    report(_run(dataset, "transform", table, partition), as_json=as_json)


def run(
    dataset: DatasetArgument,
    *,
    release: Annotated[bool, typer.Option(help="Make a release afterwards, as `headrace release` does.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Source → features: ingest, validate and transform in one process, as the nightly run does."""
    found = _ingest(dataset, None, None, full_refresh=False, allow_empty=False)
    if not as_json:
        typer.echo("\n".join(str(item) for item in found))
    ran = [*_run(dataset, "validate"), *_run(dataset, "transform")]
    if not (release and as_json):
        report(ran, as_json=as_json)
    if release:
        content, lines = _release(dataset)
        result({**stages(ran), "release": content}, lines, as_json=as_json)


def release(dataset: DatasetArgument, *, as_json: JsonOption = False) -> None:
    """Tables → release: audit, push the bytes and read them back, then push commit and tag atomically."""
    content, lines = _release(dataset)
    result(content, lines, as_json=as_json)


def _release(dataset: str) -> tuple[dict[str, Any], list[str]]:
    """Make a release; returns its description as JSON and as lines of text."""
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.release.release import create_release  # noqa: PLC0415

    _, lake = writable_workspace()
    made = create_release(load_dataset(dataset), lake)
    head = f"{made.name} {'released' if made.created else 'unchanged since'} ({made.commit[:10]})"
    lines = [
        f"{head}; {made.pushed.objects} objects, {made.pushed.size:,} bytes pushed and read back",
        *(f"  {table}: {change}" for table, change in made.changes.items()),
    ]
    content = {**vars(made), "pushed": vars(made.pushed)}
    content["changes"] = {table: vars(change) for table, change in made.changes.items()}
    content["rows"] = {table: lake.manifest(table).rows for table in lake.tables(dataset)}
    return content, lines


def _ingest(
    dataset: str, tables: list[str] | None, partition: str | None, *, full_refresh: bool, allow_empty: bool
) -> "list[IngestResult]":
    from headrace.ingest import ingest as verb  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415
    from headrace.release.worktree_refs import note_listing  # noqa: PLC0415

    settings, lake = writable_workspace()
    if not (tables or partition):
        note_listing(lake.root, dataset)
    with progress() as tell:
        return verb.ingest(
            load_dataset(dataset),
            lake,
            settings,
            sources=tables,
            partition=partition,
            full_refresh=full_refresh,
            allow_empty=allow_empty,
            progress=tell,
        )


def _run(dataset: str, verb: str, tables: list[str] | None = None, partition: str | None = None) -> "list[StageResult]":
    from headrace.engine.run import run_stage  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.executors import Executor  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    settings, lake = writable_workspace()
    with progress() as tell:
        execute = Executor(settings, tell)
        stages = graph.command_stages(load_dataset(dataset), verb, tables or ())
        return [run_stage(stage, lake, execute, partition) for stage in stages]
