"""The commands that inspect a workspace: plan, status; and dvc-sync, which compares and writes `dvc.yaml`."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, RunOption, dataset_tables, result, some, workspace
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.dataset import Dataset
    from headrace.engine.plan import Plan
    from headrace.ingest.preview import SourcePreview
    from headrace.lineage.freshness import OnlineFreshness
    from headrace.settings import Settings
    from headrace.storage.manifest import Manifest
    from headrace.storage.table_store import TableStore

MAX_REASONS = 5

REMOTE_WAIT_S = 10.0
"""How long the status waits for the git remote: it has more to show."""

INPUT_REASON = re.compile(r"(input (?:new|changed|gone): )(.+)/([^/]+)")
"""A reason of a plan that names a partition of an input."""


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: headrace plan flights")(plan)
    app.command(epilog="Example: headrace status flights --json")(status)
    app.command(epilog="Example: headrace dvc-sync --check")(dvc_sync)


def plan(
    dataset: DatasetArgument,
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no source: plan from manifests alone.")] = False,
    run: RunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would do: what it would read of the sources, and which partitions are stale, and why.

    The sources are listed, which costs what the output says; nothing is read. A source that cannot be listed is
    reported, and its tables are planned as they are.
    """
    from headrace.engine.recomputation import find_recomputation  # noqa: PLC0415
    from headrace.engine.run import plan_all  # noqa: PLC0415
    from headrace.project import graph  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    with dataset_tables(dataset, run, read_only=True) as (settings, table_store):
        previews = [] if offline else _preview(load_dataset(dataset), table_store, settings)
        raw = {preview.table: preview.manifest for preview in previews if preview.manifest}
        plans = plan_all(graph.dataset_stages(load_dataset(dataset)), table_store, raw)
        reads = {table for planned in plans for table in planned.stage.reads}
        sizes = {table: (raw.get(table) or table_store.manifest(table)).sizes for table in reads}
        recomputation = find_recomputation(plans, table_store)
    content = {
        "sources": [_preview_content(preview) for preview in previews],
        "stages": [_plan_content(planned, sizes) for planned in plans],
        "recomputation": recomputation.to_dict() if recomputation else None,
    }
    lines = [*_format_previews(previews), *(line for planned in plans for line in _format_plan(planned, sizes))]
    lines += [str(recomputation)] if recomputation and recomputation.is_large else []
    result(content, lines, as_json=as_json)


def _preview(dataset: "Dataset", table_store: "TableStore", settings: "Settings") -> "list[SourcePreview]":
    from headrace.ingest.preview import preview_sources  # noqa: PLC0415  a plan without sources needs no bucket

    return preview_sources(dataset, table_store, settings)


def _preview_content(preview: "SourcePreview") -> dict[str, Any]:
    names = (
        "source",
        "table",
        "listed",
        "new",
        "changed",
        "deleted",
        "always_read",
        "unmatched",
        "invalid",
        "waiting",
        "unreadable",
        "rows",
    )
    return {
        **{name: getattr(preview, name) for name in names},
        "bytes": preview.size,
        "cost": vars(preview.cost) if preview.cost else None,
        "error": _error_content(preview.error) if preview.error else None,
    }


def _error_content(error: HeadraceError) -> dict[str, Any]:
    return {"type": type(error).__name__, "message": str(error), "transient": error.is_transient}


def _format_previews(previews: "Sequence[SourcePreview]") -> Iterator[str]:
    for preview in previews:
        if preview.error:
            continue
        from headrace.ingest.ingest import skipped_keys  # noqa: PLC0415  a plan without sources does not load it

        kinds = (("new", "new"), ("changed", "changed"), ("deleted", "gone"), ("always_read", "read by every run"))
        counts = [f"{len(names):,} {word}" for kind, word in kinds if (names := getattr(preview, kind))]
        volume = f"{preview.size:,} bytes" if preview.rows is None else f"{preview.rows:,} rows"
        found = f"{', '.join(counts)}; {volume} to read" if preview.to_read else ", ".join(counts) or "nothing new"
        yield f"{preview.table}: {preview.listed:,} listed, {found} ({preview.cost})"
        if preview.to_read:
            yield f"  {some(preview.to_read)}"
        if preview.deleted:
            yield f"  gone: {some(preview.deleted)}"
        yield from (f"  {line}" for line in skipped_keys(preview.unmatched, preview.invalid, preview.waiting))
        yield from (f"  {name} cannot be read: {reason}" for name, reason in preview.unreadable.items())
    yield from _format_unavailable(previews)


def _format_unavailable(previews: "Sequence[SourcePreview]") -> Iterator[str]:
    """Sources that could not be listed; those of one reason together."""
    tables: dict[str, list[str]] = {}
    for preview in previews:
        if preview.error:
            tables.setdefault(str(preview.error), []).append(preview.table)
    for message, names in tables.items():
        yield f"{some(names)}: not listed, planned as in the workspace: {message}"


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
    lines = [f"{planned.stage.table}: {counts}; {_input_bytes(planned, sizes):,} bytes to read"]
    lines += [f"  {some([item.partition for item in planned.stale])}"] if planned.stale else []
    earlier = list(planned.computed_before)
    lines += [f"  computed before, to be added: {some(earlier)}"] if earlier else []
    lines += [f"  removed: {some(list(planned.removed))}"] if planned.removed else []
    return [*lines, *_format_reasons(planned)]


def _format_reasons(planned: "Plan") -> Iterator[str]:
    """Each reason once, with the number of stale partitions; inputs by their table, with the first partitions."""
    stale, inputs = Counter[str](), dict[str, dict[str, None]]()
    for item in planned.stale:
        said = set()
        for reason in item.reasons:
            text, table, partition = _split_reason(reason)
            said.add(f"{text}{table}")
            if partition:
                inputs.setdefault(f"{text}{table}", {})[partition] = None
        stale.update(sorted(said))
    shown = stale.most_common(MAX_REASONS)
    for reason, count in shown:
        names = f": {some([*inputs[reason]])}" if reason in inputs else ""
        yield f"    {reason}{names} ({count})"
    if len(stale) > len(shown):
        yield f"    … {len(stale) - len(shown)} more reasons: `headrace plan {planned.stage.dataset} --json` has all"


def _split_reason(reason: str) -> tuple[str, str, str]:
    """`input new: raw/flights/flights/2013-01-09` as text, table and partition; any other reason as text alone."""
    match = INPUT_REASON.fullmatch(reason)
    return (match[1], match[2], match[3]) if match else (reason, "", "")


def _input_bytes(planned: "Plan", sizes: dict[str, dict[str, int]]) -> int:
    """Bytes of the distinct inputs of all stale partitions: partitions that look back share most of theirs."""
    inputs = {(table, name) for item in planned.stale for table, names in item.inputs.items() for name in names}
    return sum(sizes[table].get(name, 0) for table, name in inputs)


def status(dataset: DatasetArgument, *, as_json: JsonOption = False) -> None:
    """Show the tables of a dataset, what changed since the last release, what is online, and open findings.

    For each table: partitions, rows, bytes, and how many partitions were added (+), changed (~) and removed (-) since
    the last release. A table that is not in the workspace is shown as git records it: `dvc pull` is not needed.
    A table that nothing declares any more is named with the command that drops or renames it.
    Findings are those of this workspace, of every run that has not ended, and of the publish. What cannot be asked,
    because a server does not answer, is named, and the rest is shown.
    """
    from headrace.release.branches import list_releases  # noqa: PLC0415

    settings, table_store = workspace()
    release = next(reversed(list_releases(table_store, dataset)), "")
    tables, unknown = _describe_tables(table_store, dataset, release)
    if not (release or tables or unknown):
        from headrace.project.loading import check_declared  # noqa: PLC0415

        check_declared(dataset, table_store.root)
    undeclared = _find_undeclared(table_store, dataset)
    online = None
    try:
        online = _read_online(settings, dataset)
    except HeadraceError as error:
        unknown["online"] = error
    lines = [f"{dataset}: last release {release or 'none yet'}", *(_table_line(*item) for item in tables.items())]
    lines += [f"{table}: nothing declares it: {next_step}" for table, next_step in undeclared.items()]
    lines += online.format_lines(release) if online else []
    findings = _read_findings(table_store, dataset, release, unknown)
    lines += [*_format_findings(findings, release), *_format_unknown(unknown)]
    content = {
        "release": release,
        "tables": tables,
        "undeclared": undeclared,
        "online": online.to_dict() if online else None,
        "unknown": {what: _error_content(error) for what, error in unknown.items()},
        **findings,
    }
    result(content, lines, as_json=as_json)


def _find_undeclared(table_store: "TableStore", dataset: str) -> dict[str, str]:
    """Table on record that nothing declares → the commands to run; of a declaration that cannot be loaded, none."""
    from headrace.project.declared_tables import next_command, undeclared_tables  # noqa: PLC0415
    from headrace.project.loading import DatasetError, dataset_names, load_dataset  # noqa: PLC0415

    if dataset not in dataset_names(table_store.root):
        return dict.fromkeys(table_store.known_tables(dataset), next_command(dataset))
    try:
        declared = load_dataset(dataset)
    except DatasetError:
        return {}
    return {table: next_command(dataset, [table]) for table in undeclared_tables(declared, table_store)}


def _describe_tables(
    table_store: "TableStore", dataset: str, release: str
) -> tuple[dict[str, dict[str, Any]], dict[str, HeadraceError]]:
    """Table → what it holds, and table → why that is not known: its manifest is on a remote that does not answer."""
    tables: dict[str, dict[str, Any]] = {}
    unknown: dict[str, HeadraceError] = {}
    for table in table_store.known_tables(dataset):
        unavailable = next((error for error in unknown.values() if error.is_transient), None)
        if unavailable and not table_store.is_visible(table):  # the remote would be waited for once more
            unknown[table] = unavailable
            continue
        try:
            manifest = table_store.manifest(table)
        except HeadraceError as error:
            unknown[table] = error
            continue
        try:
            if unavailable and release:
                raise unavailable
            released = table_store.recorded_manifest(table, release) if release else None
        except HeadraceError as error:
            unknown[f"changes of {table} since {release}"] = error
            released = manifest
        try:
            tables[table] = _describe_table(manifest, released)
        except HeadraceError as error:  # a chunk of a manifest is read when it is needed
            unknown[table] = error
    return tables, unknown


def _describe_table(manifest: "Manifest", released: "Manifest | None") -> dict[str, Any]:
    from headrace.release.changes import PartitionDiff  # noqa: PLC0415

    names, unreleased = sorted(manifest.partition_md5s), PartitionDiff.between(released, manifest)
    return {
        "partitions": len(names),
        "files": len(manifest.md5s),
        "first": next(iter(names), None),
        "last": next(reversed(names), None),
        "rows": manifest.rows,
        "bytes": sum(manifest.sizes.values()),
        "since_release": str(unreleased) if unreleased else "",
    }


def _table_line(table: str, found: dict[str, Any]) -> str:
    unreleased = f", unreleased: {found['since_release']}" if found["since_release"] else ""
    days = f" ({found['first']} … {found['last']})" if found["partitions"] else ""
    objects = f" of {found['files']:,} objects" if found["files"] > found["partitions"] else ""
    return (
        f"{table}: {found['partitions']} partitions{objects}{days}, {found['rows']:,} rows, {found['bytes']:,} bytes"
        f"{unreleased}"
    )


def _read_online(settings: "Settings", dataset: str) -> "OnlineFreshness | None":
    from headrace.lineage.freshness import read_freshness  # noqa: PLC0415

    return read_freshness(settings, dataset)


def _format_unknown(unknown: dict[str, HeadraceError]) -> Iterator[str]:
    """What could not be asked, each reason once."""
    reasons: dict[str, list[str]] = {}
    for what, error in unknown.items():
        reasons.setdefault(str(error), []).append(what)
    for message, names in reasons.items():
        yield f"not known: {some(names)}: {message}"


def _read_findings(
    table_store: "TableStore", dataset: str, release: str, unknown: dict[str, HeadraceError]
) -> dict[str, list[dict[str, str]]]:
    """What guards found, and what was accepted since and for the last release; `run` names the run that it is of.

    What cannot be read is added to `unknown`.
    """
    from headrace.guards.finding_log import PUBLISH, read_record, read_shared_records  # noqa: PLC0415
    from headrace.release.guards import read_acceptances  # noqa: PLC0415
    from headrace.storage import git  # noqa: PLC0415

    records = []
    try:
        records.append((PUBLISH, read_record(table_store.root, dataset)))
    except HeadraceError as error:
        unknown["findings"] = error
    try:
        with git.wait_at_most(REMOTE_WAIT_S):
            records += read_shared_records(table_store, dataset).items()
    except HeadraceError as error:
        unknown["findings of runs and of the publish"] = error
    released = read_acceptances(table_store.root, dataset).get(release, []) if release else []
    return {
        "findings": [{**finding.to_dict(), "run": run} for run, record in records for finding in record.open],
        "accepted": [{**each.to_dict(), "run": run} for run, record in records for each in record.acceptances],
        "accepted_in_release": [each.to_dict() for each in released],
    }


def _format_findings(found: dict[str, list[dict[str, str]]], release: str) -> Iterator[str]:
    from headrace.guards.finding import Acceptance  # noqa: PLC0415

    def place(item: dict[str, str]) -> str:
        return f"run {run}: " if (run := item.pop("run", "")) else ""

    for each in map(dict, found["findings"]):
        yield f"{place(each)}{each['step']} found {each['id']}: {each['text']}"
    for each in map(dict, found["accepted"]):
        yield f"{place(each)}{Acceptance(**each)}"
    yield from (f"{release}: {Acceptance(**each)}" for each in found["accepted_in_release"])


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
