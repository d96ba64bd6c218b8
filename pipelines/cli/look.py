"""The verbs that look and change nothing: plan, status; and the local stack."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.show import DatasetArgument, JsonOption, result, some, workspace

if TYPE_CHECKING:
    from pipelines.engine.plan import Plan


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (plan, status, stages):
        app.command()(command)


def plan(dataset: DatasetArgument, *, as_json: JsonOption = False) -> None:
    """Say which partitions are stale in which stage, and why. Reads manifests only."""
    from pipelines import graph  # noqa: PLC0415
    from pipelines.datasets import load  # noqa: PLC0415
    from pipelines.engine.run import plan_all  # noqa: PLC0415

    _, lake = workspace()
    plans = plan_all(graph.stages(load(dataset)), lake)
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
    from pipelines.trace.freshness import freshness  # noqa: PLC0415
    from pipelines.version import Difference, releases  # noqa: PLC0415

    settings, lake = workspace()
    last = next(reversed(releases(lake, dataset)), "")
    tables = {}
    for table in lake.tables(dataset):
        manifest = lake.manifest(table)
        names = sorted(manifest.lines)
        since = Difference.between(lake.recorded(table, last) if last else None, manifest)
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


def stages(
    *, write: Annotated[bool, typer.Option("--write", help="Write dvc.yaml instead of comparing with it.")] = False
) -> None:
    """Hold `dvc.yaml` against what the datasets declare."""
    from pipelines import repro  # noqa: PLC0415
    from pipelines.settings import here  # noqa: PLC0415

    root = here().workspace
    typer.echo(f"dvc.yaml: {repro.write(root) if write else repro.check(root)} stages")
