"""Drafts a dataset from a sample: what to declare, and what was assumed and why."""

import builtins
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from keyword import iskeyword
from pathlib import Path

import polars as pl

from headrace.dataset import DATABASE_URL, ObjectSource
from headrace.object_location import FOLDER_SCHEME
from headrace.settings import Settings
from headrace.templates.csv_sample import SampleError
from headrace.templates.declaration import SourceDraft, column_code
from headrace.templates.inference import InferredTable, infer_table
from headrace.templates.object_sample import S3, ObjectSample, sample_bucket, sample_path
from headrace.templates.python_code import snake_case
from headrace.templates.table_sample import (
    TablePlan,
    TableSample,
    is_sqlite_file,
    plan_table,
    sample_table,
    table_source,
)
from headrace.text import pluralize
from headrace.workspace import DATASET_NAME, PACKAGE

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
MAX_DUPLICATES = 0.3
"""Share of repeated rows that a declaration can tolerate; with half of a partition rejected nothing would be good."""


@dataclass(frozen=True)
class Assumption:
    """A part of the declaration that was inferred from the sample.

    Attributes:
        subject: What it is about.
        assumed: What was written.
        evidence: What was seen.
        edit: What to look at, or to change.
    """

    subject: str
    assumed: str
    evidence: str
    edit: str = ""


@dataclass(frozen=True)
class DatasetDraft:
    """A dataset as a sample suggests it, before it is written.

    Attributes:
        source: What is declared of its source.
        assumptions: What was assumed, in the order of the declaration.
        warnings: What will fail in the first run, or must be done before others can run it.
        database: Environment variable → address of the database, with its password; empty if the project has it.
    """

    source: SourceDraft
    assumptions: tuple[Assumption, ...]
    warnings: tuple[str, ...]
    database: Mapping[str, str] = field(default_factory=dict)


def draft_dataset(name: str, sample: str, settings: Settings, table: str | None = None) -> DatasetDraft:
    """Draft the dataset `name`; nothing is written.

    Args:
        name: The dataset.
        sample: A CSV file, a folder of them, `s3://bucket/prefix/`, or a database's address with `#table`.
        settings: The project, its bucket and its database.
        table: The table, for a database's address without one.

    Raises:
        SampleError: Nothing can be inferred from the sample.
        HeadraceError: The sample cannot be read.
    """
    root = settings.workspace.resolve()
    path = Path(sample.removeprefix(FOLDER_SCHEME).removeprefix("//"))
    if sample.startswith(S3):
        return _from_objects(name, sample_bucket(sample, settings))
    if sample.startswith(("postgres", "sqlite")) and SCHEME.match(sample):
        return _from_table(name, sample_table(sample, table), settings)
    if SCHEME.match(sample) and not sample.startswith(FOLDER_SCHEME):
        raise SampleError(
            f"{SCHEME.match(sample)[0]}…: expected a CSV file, a folder of them, s3://bucket/prefix/,"  # type: ignore[index]
            " postgresql://…#table or sqlite:///…#table."
        )
    if is_sqlite_file(path):
        return _from_table(name, sample_table(f"sqlite:///{path.resolve()}", table), settings)
    return _from_objects(name, sample_path(path, root))


def _from_objects(name: str, sample: ObjectSample) -> DatasetDraft:
    pattern, csv = sample.pattern, sample.csv
    table = infer_table(csv.rows, sample.days)
    _check_key(table, sample.where, len(pattern.partitions))
    location = ObjectSource(
        location=sample.location,
        partition=".*" if pattern.grain == "all" else pattern.pattern,
        suffix=pattern.suffix,
    )
    dialect = replace(csv.dialect, nulls=(*csv.dialect.nulls, *table.null_words))
    draft = SourceDraft(name, _source_name(sample.name, name), sample.where, location, dialect, table)
    bad_share = csv.bad_lines / max(csv.rows.height + csv.bad_lines, 1)
    draft = replace(draft, odd=tuple(_oddities(draft, csv.notes)), rejected_share=bad_share)
    assumptions = (*_object_assumptions(draft, sample), *_table_assumptions(draft))
    return DatasetDraft(draft, assumptions, tuple(_object_warnings(draft, sample)))


def _object_assumptions(draft: SourceDraft, sample: ObjectSample) -> Iterator[Assumption]:
    pattern, csv, dialect = sample.pattern, sample.csv, draft.dialect
    yield Assumption(
        "location",
        sample.location,
        f"{sample.where}; {len(sample.read)} of {len(pattern.partitions)} files read"
        + (", the beginning of each" if csv.is_cut else " completely"),
        "",
    )
    edit = {
        "all": "one object is one partition, computed again as a whole when it changes",
        "name": "feature tables need partitions of time, or the declaration `partitions=Static(…)`",
        "month": "declare `partitions=Monthly()` to compute features from it",
        "compact day": "feature tables need days written as 2026-01-09",
    }.get(pattern.grain, "")
    unmatched = (
        f"; {len(pattern.unmatched)} others match nothing, such as {pattern.unmatched[0]!a}"
        if pattern.unmatched
        else ""
    )
    shown = next(iter(pattern.partitions.items()))
    yield Assumption("partition", pattern.pattern, f"{shown[0]!a} is the partition {shown[1]}{unmatched}", edit)
    if dialect is not None:
        options = {name: value for name, value in vars(dialect).items() if value != vars(type(dialect)())[name]}
        assumed = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "comma, UTF-8, null is '' or NA"
        yield Assumption("format", assumed, "; ".join(csv.notes) or "the sample", "")


def _object_warnings(draft: SourceDraft, sample: ObjectSample) -> Iterator[str]:
    for fault in sample.csv.faults:
        yield f"{fault.rstrip('.')}. `headrace run {draft.dataset}` refuses that file until it is corrected."
    if count := sample.csv.bad_lines:
        first = sample.csv.bad_line
        yield f"{pluralize(count, 'line')} cannot be read and will be rejected rows, the first is {first}."
    if isinstance(draft.location, ObjectSource) and draft.location.bucket.startswith(FOLDER_SCHEME):
        what = "folder" if draft.location.prefix.endswith("/") else "file"
    if isinstance(draft.location, ObjectSource) and draft.location.parsed_location.is_folder:
        address = draft.location.location
        what, shared = ("folder", f"{draft.name}/") if address.endswith("/") else ("file", address.rpartition("/")[2])
        yield (
            f"Nothing was uploaded: the {what} is read where it is ({address}), and no other machine has it. To share"
            f" it, put it into the bucket of HEADRACE_BUCKET as {shared.removeprefix(FOLDER_SCHEME)!r} and write that"
            f" as the location in {PACKAGE}/{draft.dataset}/sources/{draft.name}.py. The bucket of the local stack"
            " (`headrace stack up`) is the folder .headrace/stack/s3/headrace/."
        )


def _from_table(name: str, sample: TableSample, settings: Settings) -> DatasetDraft:
    plan = plan_table(sample)
    variable = _database_variable(name, sample, settings)
    location = table_source(sample, plan, variable)
    days = sample.rows[plan.partition_by].cast(pl.Date) if plan.partition_by else None
    table = infer_table(sample.rows, days, [plan.partition_by or ""], sample.key, sample.texts)
    _check_key(table, sample.where)
    source = _source_name(sample.table.rpartition(".")[2], name)
    draft = SourceDraft(name, source, sample.where, location, None, table)
    rejected_share = sum(sample.unusable.values()) / max(sample.rows.height, 1)
    draft = replace(draft, rejected_share=rejected_share, odd=tuple(_oddities(draft, ())))
    warnings = tuple(
        f"{column} holds {pluralize(count, 'value')} such as NaN or infinity: rows with one are rejected."
        for column, count in sample.unusable.items()
    )
    assumptions = (*_plan_assumptions(sample, plan, variable), *_table_assumptions(draft))
    database = {} if variable == DATABASE_URL else {variable: sample.address}
    return DatasetDraft(draft, assumptions, warnings, database)


def _plan_assumptions(sample: TableSample, plan: TablePlan, variable: str) -> Iterator[Assumption]:
    yield Assumption("location", sample.where, f"{sample.rows.height:,} rows read; the address is in {variable}", "")
    yield Assumption("watermark", plan.watermark, plan.watermark_evidence, "must increase with every change of a row")
    yield Assumption("partition", plan.partition_by or "none", plan.partition_evidence, "must never change for a row")


def _database_variable(name: str, sample: TableSample, settings: Settings) -> str:
    """The variable that holds the database's address: that of the project, or one of the dataset's own."""
    known = settings.database_url.get_secret_value() if settings.database_url else ""
    is_known = known.replace("+psycopg", "") == sample.address.replace("+psycopg", "")
    return DATABASE_URL if is_known else f"{name.upper()}_DATABASE_URL"


def _check_key(table: InferredTable, where: str, files: int = 1) -> None:
    if table.key.duplicates <= MAX_DUPLICATES:
        return
    snapshots = " If each file holds everything once more, it needs its day as a column." if files > 1 else ""
    raise SampleError(
        f"{where}: expected columns that identify a row, found none: {table.key.duplicates:.1%} of the {table.rows:,}"
        f" rows repeat another in every column, and would be rejected.{snapshots} Have the producer add a column, such"
        " as a running number, or leave the repeated rows out of a copy, and name that as the sample."
    )


def _table_assumptions(draft: SourceDraft) -> Iterator[Assumption]:
    for column in draft.table.columns:
        yield Assumption(
            f"column {column.name or repr(column.name)}", column_code(draft, column), column.evidence, column.edit
        )
    key, names = draft.table.key, draft.names.validated
    yield Assumption("key", ", ".join(names[name] for name in key.columns), key.evidence, key.edit)
    if not draft.table.time:
        yield Assumption("time", "none", "no time or date without nulls", "feature tables need a time")


def _oddities(draft: SourceDraft, notes: tuple[str, ...]) -> Iterator[str]:
    """What is unusual about the data, one sentence each."""
    yield from (f"**The file** {note.partition(': ')[2] or note}." for note in notes[:1])
    if draft.table.null_words:
        yield f"**Missing values** are also written as {', '.join(map(repr, draft.table.null_words))}."
    for column in draft.table.columns:
        if column.oddity:
            yield f"**{column.name}** holds {column.oddity}."
    if draft.table.key.duplicates:
        share = draft.table.key.duplicates
        yield f"**The key.** In the sample, {share:.1%} of the rows repeat an earlier row and are rejected."


def _source_name(text: str, dataset: str) -> str:
    """What the source is called: the file, the last part of the prefix or the table; else as the dataset."""
    name = re.sub(r"_?\d[\d_]*$", "", snake_case(text))
    return next(one for one in (name, dataset, f"{dataset}_rows") if DATASET_NAME.fullmatch(one) and not _is_known(one))


def _is_known(name: str) -> bool:
    """Whether the name is a keyword, a builtin or a module of Python."""
    return iskeyword(name) or hasattr(builtins, name) or name in sys.stdlib_module_names
