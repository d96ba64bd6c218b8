"""The verbs that trace: lineage (where a partition or row came from and went), diff (what leads to another release)."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, PartitionOption, result, some
from headrace.text import pluralize

if TYPE_CHECKING:
    from headrace.lineage.diff import ReleaseDiff, TableDiff
    from headrace.lineage.lineage import Lineage, Node
    from headrace.lineage.row_lookup import Found

ROWS = 3
"""Rows that people are shown; machines get all of them."""


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (lineage, diff):
        app.command()(command)


def lineage(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    table: Annotated[str, typer.Option("--table", "-t", help="State and name, for example features/carrier_delays.")],
    partition: PartitionOption = None,
    row: Annotated[
        list[str] | None, typer.Option("--row", help="column=value of the row that is meant; may be repeated.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A release or any git revision; by default the workspace as it is.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say where a partition or row came from (object, query, annotations), and which tables and releases hold it."""
    from headrace.lineage import lineage as verb  # noqa: PLC0415
    from headrace.lineage.history import Tables  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    wanted = dict(_pair(text) for text in row or ())
    tables = Tables.at(Lake.at(load_settings().workspace), dataset, revision)
    found = verb.lineage(tables, table, partition, wanted)
    result(found.to_dict(), list(_lines(found)), as_json=as_json)


def _pair(text: str) -> tuple[str, str]:
    column, is_pair, value = text.partition("=")
    if not is_pair:
        raise typer.BadParameter(f"expected column=value, seen {text!r}", param_hint="--row")
    return column, value


def _lines(found: "Lineage") -> Iterator[str]:
    yield from _tree(found.node, set())
    if found.found:
        yield from _row_lines(found.found)
    recipe = found.recipe
    if recipe.code:
        libraries = ", ".join(f"{name} {number}" for name, number in sorted(recipe.libraries.items()))
        yield f"made with the code of {len(recipe.code)} files, {libraries}"
    commit = found.tables.commit[:10]
    seen = f"{found.tables.revision} ({commit})" if found.tables.revision else f"the workspace (on {commit})"
    yield f"as in {seen}"
    yield f"released in {some(found.releases[::-1], most=8) if found.releases else 'no release yet'}"
    yield "used by" if found.used_by else "used by no table"
    yield from (f"  {table}: {some(names)}" for table, names in found.used_by.items())


def _tree(node: "Node", seen: set[str]) -> Iterator[str]:
    """The node, and below it what it came from; what was shown above is not unfolded again."""
    again = node.id in seen and bool(node.inputs or node.origin)
    seen.add(node.id)
    yield _title(node) + ("  (see above)" if again else "")
    below: list[Iterable[str]] = [] if again else [[line] for line in _notes(node)]
    below += [] if again else [_tree(item, seen) for item in node.inputs]
    for number, lines in enumerate(below, start=1):
        first, rest = ("└── ", "    ") if number == len(below) else ("├── ", "│   ")
        for place, line in enumerate(lines):
            yield (rest if place else first) + line


def _title(node: "Node") -> str:
    name = typer.style(f"{node.table} {node.partition}", bold=True)
    rows = "" if node.entry is None or node.entry.rows is None else f"  {pluralize(node.entry.rows, 'row')}"
    return f"{name}{rows}  {typer.style(f'md5 {node.md5[:10]}', dim=True)}"


def _notes(node: "Node") -> Iterator[str]:
    if node.standing != "as read":
        where = f"these bytes are those of {node.release}" if node.release else "no release has these bytes"
        yield f"since {node.standing}; {where}"
    if node.maker:
        yield f"made beside {node.maker}"
    facts = node.entry.facts if node.entry else {}
    if facts.get("rejected"):
        yield f"{facts['rejected']:,} of {facts['rows_in']:,} rows rejected"
    yield from (_origin(kind, about) for kind, about in node.origin.items())


def _origin(kind: str, about: dict[str, Any]) -> str:
    """One line for where raw bytes or answers came from."""
    if kind == "object":
        where = f"s3://{about.get('bucket', '')}/{about['key']}"
        marks = {"ETag": about.get("etag"), "version": about.get("version"), "sha256": about.get("sha256", "")[:16]}
        return "  ".join((where, *(f"{name} {value}" for name, value in marks.items() if value)))
    if kind == "query":
        where = f" where {about['where']}" if about.get("where") else ""
        return f"query of {about['table']}{where}: {about['rows']:,} rows, watermark {about['watermark']}"
    return f"answers in Label Studio: {about.get('answers', 0):,} stand, newest event {about.get('newest', 'unknown')}"


def _row_lines(found: "Found") -> Iterator[str]:
    more = f", the first {ROWS}" if len(found.rows) > ROWS else ""
    for number, row in enumerate(found.rows[:ROWS]):
        yield "" if number else f"{pluralize(len(found.rows), 'row')} of {found.partition}{more}"
        width = max(map(len, row))
        yield from (f"  {name:{width}}  {value}" for name, value in row.items())
    for event in found.annotations:
        what = f"{event['choice']!r} by {event['annotator']} at {event['updated_at']} ({event['event']})"
        yield f"  annotation {event['annotation_id']}: {what}"


def diff(
    before: Annotated[str, typer.Argument(help="A release, for example flights/1.")],
    after: Annotated[str, typer.Argument(help="Another one of the same dataset.")],
    *,
    rows: Annotated[bool, typer.Option("--rows", help="Compare row by row, by the declared keys.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what leads from one release to another: partitions, rows and columns, table by table."""
    from headrace.lineage.diff import diff as compare  # noqa: PLC0415
    from headrace.settings import load_settings  # noqa: PLC0415
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    found = compare(Lake.at(load_settings().workspace), before, after, every_row=rows)
    result(found.to_dict(), list(_diff_lines(found)), as_json=as_json)


def _diff_lines(found: "ReleaseDiff") -> Iterator[str]:
    yield f"{found.before} → {found.after}: {len(found.tables)} tables differ, {found.equal} do not"
    for table in found.tables:
        yield f"{typer.style(table.table, bold=True)}: {table.partitions}{_rows_told(table)}"
        for word, names in vars(table.partitions).items():
            if names:
                yield f"  {word}: {some(names)}"
        if table.compared:
            yield f"  rows: {table.compared}"
        if told := str(table.columns):
            yield f"  columns: {told}"
        if table.recipe:
            yield f"  made otherwise: {some(table.recipe)}"


def _rows_told(table: "TableDiff") -> str:
    if table.rows is None:
        return ""
    before, after = table.rows["all"]
    return f", {before:,} → {pluralize(after, 'row')}" if before != after else f", {pluralize(after, 'row')} as before"
