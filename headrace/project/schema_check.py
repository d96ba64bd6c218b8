"""What the functions of a declaration give for no rows: the columns and types that a run would find too late.

A source's `transform` gets its contract's columns without rows, each kernel the columns of what it reads. No data is
read. A function that cannot work on no rows is reported, but is no error: data may be what it needs.
"""

from collections.abc import Iterator, Mapping

import polars as pl

from headrace.dataset import EVENT_TIME, KNOWN_TIME, Dataset, FeatureTable, KernelTable, LabelingTask, Source
from headrace.project.faults import Fault, data_type, function_name
from headrace.text import closest
from headrace.transform.kernel import time_arguments
from headrace.unexpected_errors import describe_error, is_failure
from headrace.validate.apply_transform import apply_transform
from headrace.validate.column_history import histories
from headrace.validate.errors import InvalidContractError
from headrace.validate.history_columns import with_history_columns

SOME_DAY = "2026-01-09"


def schema_faults(dataset: Dataset) -> Iterator[Fault]:
    """The faults of what the functions of a dataset give for no rows."""
    schemas: dict[str, pl.Schema] = {}
    for source in dataset.sources:
        yield from _source_faults(source, schemas)
    waiting = list(dataset.kernel_tables)
    while ready := [table for table in waiting if all(read.table in schemas for read in table.inputs.values())]:
        for table in ready:
            waiting.remove(table)
            yield from _kernel_faults(table, schemas, dataset)
    for labeling in dataset.labels:
        if all(read.table in schemas for read in labeling.inputs.values()):
            yield from _sample_faults(labeling, schemas, dataset)


def _source_faults(source: Source, schemas: dict[str, pl.Schema]) -> Iterator[Fault]:
    recorded = with_history_columns(source)
    try:
        rows = apply_transform(source.name, recorded, recorded.schema.create_empty())
    except InvalidContractError as error:
        text = (
            str(error).removeprefix(f"{source.name}: ").removesuffix(" Correct it, then run `headrace validate` again.")
        )
        raised = error.__cause__ is not None
        yield Fault(source, ("transform",), f"on no rows, {text}", "warning" if raised else "error")
        return
    schemas[f"validated/{source.name}"] = rows.schema
    for name in (it for it in histories(recorded.schema) if it not in rows.columns):
        yield Fault(
            source,
            ("contract",),
            f"`transform` gives no column {name!r}, which the contract declares as `evolving`, so readers of the table"
            " find its default in every row: have `transform` keep the name, and declare what it computes from it as"
            " `derived`",
            "warning",
        )
    for name in (it for it in source.pii_columns if it not in rows.columns):
        yield Fault(
            source,
            ("pii_columns", name),
            f"the validated rows have no column {name!r}{closest(name, rows.columns)}, so nothing keeps it from being"
            " sent: correct the name",
        )


def _kernel_faults(table: KernelTable, schemas: dict[str, pl.Schema], dataset: Dataset) -> Iterator[Fault]:
    frames = {name: pl.LazyFrame(schema=schemas[read.table]) for name, read in table.inputs.items()}
    times = time_arguments(table, SOME_DAY, SOME_DAY if table.batch_size > 1 else None)
    where = function_name(table.transform)
    try:
        frame: object = table.transform(**times, **frames)
        if not isinstance(frame, pl.LazyFrame | pl.DataFrame):
            gives = "nothing: is a `return` missing?" if frame is None else f"a {type(frame).__name__}"
            yield Fault(table, ("transform",), f"expected a polars LazyFrame, but {where} returns {gives}")
            return
        found = frame.collect_schema()
    except BaseException as error:  # whatever the team's function raises; a panic of Polars is no `Exception`
        if not is_failure(error):
            raise
        what = f"{describe_error(error)} on no rows{_new_name(dataset, error)}"
        is_schema = isinstance(error, pl.exceptions.ColumnNotFoundError | pl.exceptions.SchemaError)
        yield Fault(table, ("transform",), f"{where} raised {what}: correct it", "error" if is_schema else "warning")
        return
    declared = table.row_schema  # a run drops other columns
    schemas[f"{table.state}/{table.name}"] = pl.Schema({name: kind for name, kind in found.items() if name in declared})
    yield from _column_faults(table, found, where)


def _sample_faults(labeling: LabelingTask, schemas: Mapping[str, pl.Schema], dataset: Dataset) -> Iterator[Fault]:
    """A column that the sample reads and its tables lack. Other errors may come from there being no rows: no faults."""
    frames = {name: pl.LazyFrame(schema=schemas[read.table]) for name, read in labeling.inputs.items()}
    try:
        labeling.sample(params=labeling.params, **frames)
    except pl.exceptions.ColumnNotFoundError as error:
        what = f"{describe_error(error)} on no rows{_new_name(dataset, error)}"
        yield Fault(labeling, ("sample",), f"{function_name(labeling.sample)} raised {what}: correct it")
    except BaseException as error:  # a panic of Polars is no `Exception`
        if not is_failure(error):
            raise


def _new_name(dataset: Dataset, error: BaseException) -> str:
    """Of a column that is not found: what it is called now, if a contract renamed it."""
    if not isinstance(error, pl.exceptions.ColumnNotFoundError):
        return ""
    wanted = str(error).split(";", 1)[0].splitlines()[0]
    for source in dataset.sources:
        for name, history in histories(source.schema).items():
            if old := next((it for it in history.renamed_from if f'"{it}"' in wanted), ""):
                return f" ({old} of {source.name} is called {name} now)"
    return ""


def _column_faults(table: KernelTable, found: Mapping[str, pl.DataType], where: str) -> Iterator[Fault]:
    keys = table.keys if isinstance(table, FeatureTable) else ()
    wanted = {name: data_type(declared) for name, declared in table.row_schema.items()}
    for name, kind in wanted.items():
        field = "key_types" if name in keys else "features" if isinstance(table, FeatureTable) else "columns"
        path = ("transform",) if name in (EVENT_TIME, KNOWN_TIME) else (field, name)
        if name not in found:
            yield Fault(
                table, path, f"{where} gives no column {name!r}{closest(name, found)}: add it, or correct its name"
            )
        elif found[name] != kind:
            told = " (a key is text unless `key_types` names its type)" if name in keys else ""
            yield Fault(
                table,
                path,
                f"{where} gives {name!r} as {found[name]}, declared is {kind}{told}: cast it, or correct the type",
            )
