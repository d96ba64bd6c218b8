"""The commands that inspect a workspace: plan, status; and dvc-sync, which compares and writes `dvc.yaml`."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, RunOption, dataset_tables, result, some, workspace

if TYPE_CHECKING:
    from headrace.engine.plan import Plan
    from headrace.storage.table_store import Lake


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: headrace plan flights")(plan)
    app.command(epilog="Example: headrace status flights --json")(status)
    app.command(epilog="Example: headrace dvc-sync --check")(dvc_sync)


def plan(dataset: DatasetArgument, *, run: RunOption = None, as_json: JsonOption = False) -> None:
    """Show which partitions of which tables are stale, and why. Reads manifests only."""
    from headrace.engine.run import plan_all  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    with dataset_tables(dataset, run, read_only=True) as (_, lake):
        plans = plan_all(graph.dataset_stages(load_dataset(dataset)), lake)
        sizes = {table: lake.manifest(table).sizes for planned in plans for table in planned.stage.reads}
    content = {"stages": [_plan_content(planned, sizes) for planned in plans]}
    result(content, [line for planned in plans for line in _format_plan(planned, sizes)], as_json=as_json)


def _plan_content(planned: "Plan", sizes: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {
        "table": planned.stage.table,
        "stale": {item.partition: list(item.reasons) for item in planned.stale},
        "computed_before": list(planned.computed_before),
        "unchanged": planned.unchanged,
        "removed": list(planned.removed),
        "bytes": _input_bytes(planned, sizes),
    }


def _format_plan(planned: "Plan", sizes: dict[str, dict[str, int]]) -> list[str]:
    if planned.is_empty:
        return [f"{planned.stage.table}: up to date ({len(planned.reused)} partitions)"]
    counts = f"{len(planned.stale)} stale, {len(planned.removed)} removed, {planned.unchanged} up to date"
    reasons = Counter(reason for item in planned.stale for reason in item.reasons)
    lines = [f"{planned.stage.table}: {counts}; {_input_bytes(planned, sizes):,} bytes to read"]
    lines += [f"  {some([item.partition for item in planned.stale])}"] if planned.stale else []
    earlier = list(planned.computed_before)
    lines += [f"  computed before, to be added: {some(earlier)}"] if earlier else []
    lines += [f"  removed: {some(list(planned.removed))}"] if planned.removed else []
    return [*lines, *(f"    {reason} ({count})" for reason, count in reasons.most_common(5))]


def _input_bytes(planned: "Plan", sizes: dict[str, dict[str, int]]) -> int:
    """Bytes of the distinct inputs of all stale partitions: partitions that look back share most of theirs."""
    inputs = {(table, name) for item in planned.stale for table, names in item.inputs.items() for name in names}
    return sum(sizes[table].get(name, 0) for table, name in inputs)


def status(dataset: DatasetArgument, *, as_json: JsonOption = False) -> None:
    """Show the tables of a dataset, what changed since the last release, and what is online.

    For each table: partitions, rows, bytes, and how many partitions were added (+), changed (~) and removed (-) since
    the last release. A table that is not in the workspace is shown as git records it: `dvc pull` is not needed.
    """
    from headrace.lineage.freshness import read_freshness  # noqa: PLC0415
    from headrace.release.branches import list_releases  # noqa: PLC0415
    from headrace.release.changes import PartitionDiff  # noqa: PLC0415

    settings, lake = workspace()
    release = next(reversed(list_releases(lake, dataset)), "")
    tables = {}
    for table in lake.known_tables(dataset):
        manifest = lake.manifest(table)
        names = sorted(manifest.md5s)
        unreleased = PartitionDiff.between(lake.recorded_manifest(table, release) if release else None, manifest)
        tables[table] = {
            "partitions": len(names),
            "first": next(iter(names), None),
            "last": next(reversed(names), None),
            "rows": manifest.rows,
            "bytes": sum(manifest.sizes.values()),
            "since_release": str(unreleased) if unreleased else "",
        }
    lines = [
        f"{table}: {found['partitions']} partitions ({found['first']} … {found['last']}), {found['rows']:,} rows,"
        f" {found['bytes']:,} bytes{', unreleased: ' if found['since_release'] else ''}{found['since_release']}"
        for table, found in tables.items()
    ]
    head = f"{dataset}: last release {release or 'none yet'}"
    online = read_freshness(settings, dataset)
    online_lines = list(online.format_lines(release)) if online else []
    findings, finding_lines = _findings(lake, dataset, release)
    content = {"release": release, "tables": tables, "online": online.to_dict() if online else None, **findings}
    result(content, [head, *lines, *online_lines, *finding_lines], as_json=as_json)


def _findings(lake: "Lake", dataset: str, release: str) -> tuple[dict[str, Any], list[str]]:
    """What guards found in this workspace, and what was accepted since and for the last release; as JSON and lines."""
    from headrace.guards.finding_log import FileLog  # noqa: PLC0415
    from headrace.release.guards import read_acceptances  # noqa: PLC0415

    record = FileLog(lake, dataset).read()
    released = read_acceptances(lake.root, dataset).get(release, []) if release else []
    content = {
        "findings": [finding.to_dict() for finding in record.open],
        "accepted": [each.to_dict() for each in record.acceptances],
        "accepted_in_release": [each.to_dict() for each in released],
    }
    lines = [f"{each.step} found {each.id}: {each.text}" for each in record.open]
    lines += [f"{each}" for each in record.acceptances]
    return content, [*lines, *(f"{release}: {each}" for each in released)]


def dvc_sync(
    *,
    check: Annotated[bool, typer.Option("--check", help="Only compare the files; exit code 1 if they differ.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Also stages that no `dvc.lock` records yet, for `dvc repro` to run them.")
    ] = False,
) -> None:
    """Write `dvc.yaml` and `headrace.lock` as the datasets declare them; commit both."""
    from headrace.project import dvc_stages  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415

    root = load_settings().workspace
    files = dvc_stages.check_dvc_files(root) if check else dvc_stages.write_dvc_files(root, every=every)
    typer.echo(f"dvc.yaml: {files.stages} stages; headrace.lock: {len(files.lock.libraries)} libraries")
    for error in files.broken.values():
        typer.echo(f"error: {error}", err=True)
    if files.broken:
        raise typer.Exit(1)
