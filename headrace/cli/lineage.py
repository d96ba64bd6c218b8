"""The commands that trace data: lineage of a partition or row, diff between releases."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, PartitionOption, result, some
from headrace.storage.s3.objects import object_address
from headrace.text import pluralize

if TYPE_CHECKING:
    from headrace.lineage.diff import ReleaseDiff, TableDiff
    from headrace.lineage.lineage import LineageNode, PartitionLineage
    from headrace.lineage.row_lookup import RowMatch

MAX_INPUTS = 50
"""Inputs of a partition that are printed; `--json` prints all of them."""

MAX_ROWS = 3
"""Rows that are printed; `--json` prints all of them."""


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog="Example: headrace lineage flights -t features/carrier_delays -p 2013-01-09")(lineage)
    app.command(epilog="Example: headrace diff flights/11 flights/12 --rows")(diff)


def lineage(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    table: Annotated[str, typer.Option("--table", "-t", help="State and name, for example features/carrier_delays.")],
    partition: PartitionOption = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            "--row",
            help="column=value of the row to look up; may be repeated. The keys and event_timestamp of a training row"
            " select the feature row that it received.",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A release or any git revision; by default the workspace as it is.")
    ] = None,
    *,
    object_key: Annotated[
        str | None,
        typer.Option("--object", help="Key of an object of a raw table, for example flights/2013-01-09.csv."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a partition, row or object came from, and which tables and releases use it.

    Back to the object, the query or the annotations; forward to the tables computed from exactly these bytes, and the
    releases that contain them. Reads manifests; `--row` reads the partition that has the row, and validates it once
    more if the table is a validated one, to name the row of the object.
    """
    from headrace.lineage.history import DatasetRevision  # noqa: PLC0415
    from headrace.lineage.lineage import trace_lineage  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    values = dict(_parse_pair(text) for text in row or ())
    tables = DatasetRevision.open(TableStore.at(load_settings().workspace), dataset, revision)
    traced = trace_lineage(tables, table, partition, values, object_key)
    result(traced.to_dict(), list(_format_lineage(traced)), as_json=as_json)


def _parse_pair(text: str) -> tuple[str, str]:
    column, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"expected column=value, found {text!r}", param_hint="--row")
    return column, value


def _format_lineage(traced: "PartitionLineage") -> Iterator[str]:
    yield from _format_tree(traced.node, set())
    if traced.row_match:
        yield from _format_rows(traced.row_match)
    fingerprint = traced.fingerprint
    if fingerprint.code:
        libraries = ", ".join(f"{name} {number}" for name, number in sorted(fingerprint.libraries.items()))
        yield f"computed with the code of {pluralize(len(fingerprint.code), 'file')}, {libraries}"
    commit = traced.tables.commit[:10]
    yield (
        f"as in {traced.tables.revision} ({commit})" if traced.tables.revision else f"as in the workspace (at {commit})"
    )
    yield f"released in {some(traced.releases[::-1], most=8) if traced.releases else 'no release yet'}"
    yield "used by" if traced.used_by else "used by no table"
    yield from (f"  {table}: {some(names)}" for table, names in traced.used_by.items())


def _format_tree(node: "LineageNode", printed: set[str]) -> Iterator[str]:
    """The node, and below it what it came from. A node that was printed before is not expanded again."""
    repeated = node.id in printed and bool(node.inputs or node.source)
    printed.add(node.id)
    yield _format_title(node) + ("  (see above)" if repeated else "")
    branches: list[Iterable[str]] = [] if repeated else [[line] for line in _format_details(node)]
    branches += [] if repeated else [_format_tree(item, printed) for item in node.inputs[:MAX_INPUTS]]
    if not repeated and len(node.inputs) > MAX_INPUTS:
        branches.append([f"… {len(node.inputs) - MAX_INPUTS:,} more inputs: `--json` has all"])
    for number, lines in enumerate(branches, start=1):
        first, rest = ("└── ", "    ") if number == len(branches) else ("├── ", "│   ")
        for index, line in enumerate(lines):
            yield (rest if index else first) + line


def _format_title(node: "LineageNode") -> str:
    name = typer.style(f"{node.table} {node.partition}", bold=True)
    rows = "" if node.entry is None or node.entry.rows is None else f"  {pluralize(node.entry.rows, 'row')}"
    return f"{name}{rows}  {typer.style(f'md5 {node.md5[:10]}', dim=True)}"


def _format_details(node: "LineageNode") -> Iterator[str]:
    if node.status == "released":
        yield f"of another dataset, read at {node.release}" + ("" if node.entry else ", which is not here")
    elif node.status != "current":
        where = f"these bytes are in {node.release}" if node.release else "no release has these bytes"
        yield f"{node.status} since it was read; {where}"
    if node.producer:
        yield f"side output of {node.producer}"
    metadata = node.entry.metadata if node.entry else {}
    if metadata.get("rejected"):
        yield f"{metadata['rejected']:,} of {metadata['rows_in']:,} rows rejected"
    for table, moment in metadata.get("as_of", {}).items():
        yield f"{table} was read as of {moment}, whatever the time of the partition"
    for kind, source in node.source.items():
        yield from (_format_source(kind, each) for each in (source if kind == "objects" else [source]))


def _format_source(kind: str, source: dict[str, Any]) -> str:
    if kind == "objects":
        address = object_address(source.get("bucket", ""), source["key"])
        ids = {"ETag": source.get("etag"), "version": source.get("version"), "sha256": source.get("sha256", "")[:16]}
        return "  ".join((address, *(f"{name} {value}" for name, value in ids.items() if value)))
    if kind == "query":
        where = f" where {source['where']}" if source.get("where") else ""
        what = f"query of {source['table']}" if "table" in source else f"query {' '.join(source['sql'].split())}"
        mark = f"watermark {source['watermark']}" if source["watermark"] else f"hash of rows {source['digest']}"
        return f"{what}{where}: {source['rows']:,} rows, {mark}"
    newest = source.get("newest", "unknown")
    return f"annotations in Label Studio: {source.get('answers', 0):,} active, newest event {newest}"


def _format_rows(match: "RowMatch") -> Iterator[str]:
    more = f", the first {MAX_ROWS}" if len(match.rows) > MAX_ROWS else ""
    for number, row in enumerate(match.rows[:MAX_ROWS]):
        yield "" if number else f"{pluralize(len(match.rows), 'row')} of {match.partition}{more}"
        width = max(map(len, row))
        yield from (f"  {name:{width}}  {value}" for name, value in row.items())
    for origin in match.origins[:MAX_ROWS]:
        yield f"  read from row {origin['row']} of {object_address(origin['bucket'], origin['key'])}"
    for event in match.annotations:
        what = f"{event['choice']!r} by {event['annotator']} at {event['updated_at']} ({event['event']})"
        yield f"  annotation {event['annotation_id']}: {what}"


def diff(
    before: Annotated[str, typer.Argument(help="A release, for example flights/1.")],
    after: Annotated[str, typer.Argument(help="Another release of the same dataset.")],
    *,
    rows: Annotated[bool, typer.Option("--rows", help="Compare row by row, by the declared keys.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two releases: partitions, rows, columns and fingerprint of every table that differs."""
    from headrace.lineage.diff import diff_releases  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    difference = diff_releases(TableStore.at(load_settings().workspace), before, after, by_row=rows)
    result(difference.to_dict(), list(_format_diff(difference)), as_json=as_json)


def _format_diff(difference: "ReleaseDiff") -> Iterator[str]:
    changed, unchanged = len(difference.tables), difference.unchanged
    yield f"{difference.before} → {difference.after}: {pluralize(changed, 'table')} changed, {unchanged} unchanged"
    for table in difference.tables:
        yield f"{typer.style(table.table, bold=True)}: {table.partitions}{_format_row_counts(table)}"
        for kind, names in vars(table.partitions).items():
            if names:
                yield f"  {kind}: {some(names)}"
        if table.row_diff:
            yield f"  rows: {table.row_diff}"
        if columns := str(table.columns):
            yield f"  columns: {columns}"
        if table.fingerprint:
            yield f"  fingerprint changed: {some(table.fingerprint)}"


def _format_row_counts(table: "TableDiff") -> str:
    if table.rows is None:
        return ""
    before, after = table.rows["all"]
    return f", {before:,} → {pluralize(after, 'row')}" if before != after else f", {pluralize(after, 'row')} as before"
