"""`headrace preview`: compute one partition, and show it beside what is there."""

import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import DatasetArgument, JsonOption, result, some, workspace
from headrace.text import format_seconds, pluralize

if TYPE_CHECKING:
    import polars as pl

    from headrace.lineage.partition_preview import PartitionPreview, TablePreview

SHOWN_CHANGES = 3
"""Changed rows that are shown with their old values; `--json` has as many as rows are asked for."""

WIDTH = 160
"""Characters of a line where standard output is not a terminal."""

MOST_CHARACTERS = 10_000
"""Of a line of a table, before it is compared with the width."""


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: headrace preview flights carrier_delays --partition 2013-01-09")(preview)


def preview(  # noqa: PLR0913  each is an option of the command
    dataset: DatasetArgument,
    table: Annotated[
        str, typer.Argument(help="Name of the table; where two have it, with its state: features/carrier_delays.")
    ],
    partition: Annotated[
        str | None, typer.Option("--partition", "-p", help="The partition, for example 2013-01-09; default: the last.")
    ] = None,
    *,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="Rows to show of each table.")] = 10,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--params", metavar="NAME=VALUE", help="Value of a parameter in place of params.yaml; may be repeated."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compute one partition, and show its rows and what would change. Nothing is kept.

    Try an edited contract, kernel or parameter before a run recomputes every partition with it. Shown are the first
    rows, the schema, the time it took, rejected rows with the checks that they failed, and the difference from what
    the table has: rows that are added, changed and removed by key, and the columns that differ.

    Raw data must have been ingested; what lies between it and the table is computed on the way if it is stale. No
    table, manifest or lock is touched, so a run may be at work meanwhile. Exit code 1 if a run would refuse it.
    """
    from headrace.lineage.partition_preview import preview_partition  # noqa: PLC0415
    from headrace.project.loading import load_dataset  # noqa: PLC0415

    values = dict(_parse_param(text) for text in params or ())
    _, table_store = workspace()
    found = preview_partition(load_dataset(dataset), table_store, table, partition, values)
    result(_content(found, rows), list(_format(found, rows)), as_json=as_json)
    if found.refused:
        raise typer.Exit(1)


def _parse_param(text: str) -> tuple[str, Any]:
    import yaml  # noqa: PLC0415  as `params.yaml` is read

    name, separator, value = text.partition("=")
    if not (separator and name):
        raise typer.BadParameter(f"expected name=value, found {text!r}", param_hint="--params")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        message = f"{name}: expected a YAML value, found {value!r}: {error}"
        raise typer.BadParameter(message, param_hint="--params") from None


def _content(found: "PartitionPreview", rows: int) -> dict[str, Any]:
    return {
        "table": found.table,
        "partition": found.partition,
        "reasons": list(found.reasons),
        "refused": found.refused or None,
        "seconds": found.seconds,
        "inputs": {table: list(names) for table, names in found.inputs.items()},
        "computed_first": dict(found.computed_first),
        "metadata": dict(found.metadata),
        "tables": {each.table: _table_content(each, rows) for each in found.tables},
    }


def _table_content(found: "TablePreview", rows: int) -> dict[str, Any]:
    return {
        "rows": found.rows.height,
        "schema": {name: str(kind) for name, kind in found.rows.schema.items()},
        "first_rows": [_plain(row) for row in found.rows.head(rows).to_dicts()],
        "is_new": found.is_new,
        "difference": _difference_content(found, rows),
        "error": found.error or None,
    }


def _difference_content(found: "TablePreview", rows: int) -> dict[str, Any] | None:
    if found.changes is None:
        return None
    changed = [
        {
            "key": _plain(key),
            "columns": {name: {"before": _plain(old), "after": _plain(new)} for name, (old, new) in it},
        }
        for key, it in ((key, pairs.items()) for key, pairs in found.changes.first(rows))
    ]
    return {
        "is_identical": not found.differs,
        **vars(found.changes.counts),
        "columns": dict(found.changes.columns),
        "key": list(found.changes.key),
        "schema": vars(found.columns),
        "changed_rows": changed,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401  any value of a column
    """The value as JSON has it: NaN and infinity are null, as in `headrace sql --format json`."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _format(found: "PartitionPreview", rows: int) -> Iterator[str]:
    inputs = ", ".join(f"{len(names):,} of {table}" for table, names in found.inputs.items())
    yield f"{found.table} {found.partition}: computed in {format_seconds(found.seconds)} from {inputs}"
    for table, names in found.computed_first.items():
        yield f"  computed first, as a run would: {table} {some(names)}"
    counts = {name: found.metadata[name] for name in ("rows_in", "rejected") if name in found.metadata}
    if counts:
        yield "  " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
    yield from (f"  rejected by {check}: {count:,}" for check, count in found.metadata.get("checks", {}).items())
    if found.refused:
        yield f"  a run would refuse it: {found.refused}"
    why = "; ".join(found.reasons)
    yield f"  a run would compute it: {why}" if why else "  up to date: a run would compute nothing"
    for each in found.tables:
        yield ""
        yield from _format_table(each, rows)


def _format_table(found: "TablePreview", rows: int) -> Iterator[str]:
    first = f", the first {rows:,}" if 0 < rows < found.rows.height else ""
    yield f"{found.table}: {pluralize(found.rows.height, 'row')}{first}"
    if rows and found.rows.height:
        yield _draw(found.rows.head(rows))
    yield f"  columns: {', '.join(f'{name} {kind}' for name, kind in found.rows.schema.items())}"
    yield from (f"  {line}" for line in _format_difference(found))


def _format_difference(found: "TablePreview") -> Iterator[str]:
    if found.is_new:
        yield "difference: the table does not have this partition yet"
        return
    if found.changes is None:
        yield f"difference: not known, what the table has could not be read: {found.error}"
        return
    if not found.differs:
        yield "difference: none, byte for byte"
        return
    counts = found.changes.counts
    yield f"difference: {counts.added:,} rows added, {counts.changed:,} changed, {counts.removed:,} removed"
    if schema := str(found.columns):
        yield f"  schema: {schema}"
    if columns := found.changes.columns:
        yield f"  changed columns: {', '.join(f'{name} ({count:,})' for name, count in columns.items())}"
    for key, pairs in found.changes.first(SHOWN_CHANGES):
        row = ", ".join(f"{name}={value}" for name, value in key.items())
        yield f"  {row}: {', '.join(f'{name} {_change(*values)}' for name, values in pairs.items())}"


def _change(old: Any, new: Any) -> str:  # noqa: ANN401  any values of a column
    """`0.4 → 0.2`, with all digits only where few would be equal."""
    before, after = (f"{value:.6g}" if isinstance(value, float) else str(value) for value in (old, new))
    return f"{before} → {after}" if before != after else f"{old!r} → {new!r}"


def _draw(frame: "pl.DataFrame") -> str:
    """The rows as a table if the terminal is wide enough, else a column on each line."""
    import polars as pl  # noqa: PLC0415  the help needs none

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=MOST_CHARACTERS,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        fmt_str_lengths=40,
    ):
        table = str(frame)
    if len(table.partition("\n")[0]) <= width:
        return table
    lines = str(frame.glimpse(max_items_per_column=frame.height, return_type="string")).splitlines()
    return "\n".join(line[:width] for line in lines if line.startswith("$"))
