"""The verbs that look and change nothing: plan, status; and the local stack."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, result, some, workspace

if TYPE_CHECKING:
    from headrace.engine.plan import Plan


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (plan, status, dvc_sync):
        app.command()(command)


def plan(dataset: DatasetArgument, *, as_json: JsonOption = False) -> None:
    """Say which partitions are stale in which stage, and why. Reads manifests only."""
    from headrace.engine.run import plan_all  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    _, lake = workspace()
    plans = plan_all(graph.dataset_stages(load_dataset(dataset)), lake)
    sizes = {table: lake.manifest(table).sizes for made in plans for table in made.stage.reads}
    content = {"stages": [_plan_content(made, sizes) for made in plans]}
    result(content, [line for made in plans for line in _plan_lines(made, sizes)], as_json=as_json)


def _plan_content(made: "Plan", sizes: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {
        "table": made.stage.table,
        "stale": {item.partition: list(item.reasons) for item in made.stale},
        "kept": len(made.keep),
        "gone": list(made.gone),
        "bytes": _bytes(made, sizes),
    }


def _plan_lines(made: "Plan", sizes: dict[str, dict[str, int]]) -> list[str]:
    if made.is_empty:
        return [f"{made.stage.table}: up to date ({len(made.keep)} partitions)"]
    head = f"{made.stage.table}: {len(made.stale)} stale, {len(made.gone)} gone, {len(made.keep)} up to date"
    why = Counter(reason for item in made.stale for reason in item.reasons)
    lines = [f"{head}; {_bytes(made, sizes):,} bytes to read"]
    lines += [f"  {some([item.partition for item in made.stale])}"] if made.stale else []
    lines += [f"  gone: {some(list(made.gone))}"] if made.gone else []
    return [*lines, *(f"    {reason} ({count})" for reason, count in why.most_common(5))]


def _bytes(made: "Plan", sizes: dict[str, dict[str, int]]) -> int:
    read = {(table, name) for item in made.stale for table, names in item.inputs.items() for name in names}
    return sum(sizes[table].get(name, 0) for table, name in read)


def status(dataset: DatasetArgument, *, as_json: JsonOption = False) -> None:
    """Show the tables of a dataset: partitions, rows, what the last release holds of them, and what is online."""
    from headrace.lineage.freshness import freshness  # noqa: PLC0415
    from headrace.release.release import PartitionDiff, list_releases  # noqa: PLC0415

    settings, lake = workspace()
    last = next(reversed(list_releases(lake, dataset)), "")
    tables = {}
    for table in lake.tables(dataset):
        manifest = lake.manifest(table)
        names = sorted(manifest.lines)
        since = PartitionDiff.between(lake.recorded(table, last) if last else None, manifest)
        tables[table] = {
            "partitions": len(names),
            "first": next(iter(names), None),
            "last": next(reversed(names), None),
            "rows": manifest.rows,
            "bytes": sum(manifest.sizes.values()),
            "since_release": str(since) if since else "",
        }
    lines = [
        f"{table}: {found['partitions']} partitions ({found['first']} … {found['last']}), {found['rows']:,} rows,"
        f" {found['bytes']:,} bytes{', unreleased: ' if found['since_release'] else ''}{found['since_release']}"
        for table, found in tables.items()
    ]
    head = f"{dataset}: last release {last or 'none yet'}"
    online = freshness(settings, dataset)
    served = list(online.lines(last)) if online else []
    content = {"release": last, "tables": tables, "online": online.to_dict() if online else None}
    result(content, [head, *lines, *served], as_json=as_json)


def dvc_sync(
    *, check: Annotated[bool, typer.Option("--check", help="Compare only; exit code 1 if they differ.")] = False
) -> None:
    """Write what the datasets declare to `dvc.yaml` and `headrace.lock`; commit both."""
    from headrace.project import dvc_stages  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415

    root = load_settings().workspace
    files = dvc_stages.check(root) if check else dvc_stages.write(root)
    typer.echo(f"dvc.yaml: {files.stages} stages; headrace.lock: {len(files.lock.libraries)} libraries")
    for error in files.broken.values():
        typer.echo(f"error: {error}", err=True)
    if files.broken:
        raise typer.Exit(1)
