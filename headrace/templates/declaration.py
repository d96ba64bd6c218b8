"""A dataset's declaration as code one would have written by hand, from what a sample says."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from keyword import iskeyword

import dataframely as dy
import polars as pl

from headrace.dataset import DATABASE_URL, UTC_MICROSECONDS, ObjectSource, TableSource
from headrace.storage.nested import item_type
from headrace.templates.inference import InferredColumn, InferredTable, is_pattern
from headrace.templates.python_code import (
    INDENT,
    WIDTH,
    class_name,
    escape_for_docstring,
    format_call,
    format_call_one_per_line,
    regex_literal,
    snake_case,
    string_literal,
    tuple_literal,
    wrap_prose,
)
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.reserved_names import FAILED_CHECKS, LINE, MARK, ROW, ROW_TEXT

USED_NAMES = frozenset({"datetime", "dy", "one_of", "pl", "timedelta", "utc_time"})
"""Names that the body of a contract uses: an attribute would hide them from the lines below it."""

USED_CLASSES = frozenset({"CsvDialect", "ObjectSource", "Path", "Source", "TableSource", "TimeBounds"})
REJECTED_MARGIN, MOST_REJECTED = 1.5, 0.49
"""A source may reject so many times the share of rows that are rejected in the sample, but not half of a partition."""


@dataclass(frozen=True)
class SourceDraft:
    """What is declared of a source.

    Attributes:
        dataset: Name of the dataset.
        name: Name of the source.
        where: Where the sample came from, for people.
        location: Where the source is.
        dialect: How its files are written; None for a database table.
        table: What the sample says.
        rejected_share: At most this share of the sample's rows cannot be read, or has a value that no contract takes.
        odd: What is odd about the data, a sentence each, for the docstring.
    """

    dataset: str
    name: str
    where: str
    location: ObjectSource | TableSource
    dialect: CsvDialect | None
    table: InferredTable
    rejected_share: float = 0.0
    odd: tuple[str, ...] = ()

    @cached_property
    def names(self) -> "ColumnNames":
        """What its columns are called."""
        return ColumnNames.for_columns([column.name for column in self.table.columns])


@dataclass(frozen=True)
class ColumnNames:
    """Raw column → its name in the contract class, in raw frames as `read` gives them, and in the validated table."""

    attributes: Mapping[str, str]
    read_as: Mapping[str, str]
    validated: Mapping[str, str]

    @classmethod
    def for_columns(cls, names: Sequence[str]) -> "ColumnNames":
        """Names that Python, dataframely and Headrace take, each once."""
        validated: dict[str, str] = {}
        for name in names:
            plain = snake_case(name) or "unnamed"
            wanted = plain if plain[0].isalpha() else f"column_{plain}"
            validated[name] = _unused(wanted, validated.values())
        attributes = {name: f"{new}_" if _is_taken(new) else new for name, new in validated.items()}
        read_as = {name: validated[name] if _is_reserved(name) else name for name in names}
        return cls(attributes, read_as, validated)


def _unused(name: str, used: Iterable[str]) -> str:
    taken = set(used)
    candidates = (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _is_reserved(name: str) -> bool:
    """Whether a contract cannot have a column of this name, so that `read` must give it another."""
    return not name or is_pattern(name) or name in {ROW, LINE, ROW_TEXT, FAILED_CHECKS} or name.startswith(MARK)


def _is_taken(name: str) -> bool:
    """Whether a contract class cannot have an attribute of this name."""
    return iskeyword(name) or name in USED_NAMES or hasattr(dy.Schema, name)


def contract_name(source: str) -> str:
    """What the contract class of a source is called."""
    name = class_name(source)
    return f"{name}Row" if name in USED_CLASSES else name


def dataset_files(draft: SourceDraft, owner: str) -> dict[str, str]:
    """Path below `pipelines/<dataset>/` → content."""
    return {
        "__init__.py": _dataset_module(draft, owner),
        "sources/__init__.py": '"""Where the raw data comes from, and which rows are good."""\n',
        f"sources/{draft.name}.py": source_module(draft),
    }


def _dataset_module(draft: SourceDraft, owner: str) -> str:
    title = draft.name.replace("_", " ").capitalize()
    dataset = format_call_one_per_line(
        "Dataset",
        (
            f"description={string_literal(f'{title}, {_arrival(draft.location)}.')}",
            f"owner={string_literal(owner)}",
            f"sources=({draft.name}.SOURCE,)",
        ),
        before="DATASET = ",
    )
    return (
        f'"""The dataset `{draft.dataset}`."""\n\n'
        "from headrace import Dataset\n"
        f"from pipelines.{draft.dataset}.sources import {draft.name}\n\n"
        f"{dataset}\n"
    )


def source_module(draft: SourceDraft) -> str:
    """The module that declares the source."""
    parts = (_docstring(draft), _imports(draft), _contract(draft), _read(draft), _transform(draft), _source(draft))
    return f"{parts[0]}\n\n{parts[1]}\n\n\n" + "\n\n\n".join(parts[2:5]) + f"\n\n\n{parts[5]}\n"


def _docstring(draft: SourceDraft) -> str:
    title = draft.name.replace("_", " ")
    arrival = _arrival(draft.location)
    text = wrap_prose(f'"""raw → validated: {title}, {arrival}.')
    if draft.odd:
        notes = "\n".join(wrap_prose(escape_for_docstring(note), first="- ", rest="  ") for note in draft.odd)
        return f"{text}\n\nWhat is unusual about this data:\n\n{notes}\n" + '"""'
    return f'{text}"""'


def _arrival(location: ObjectSource | TableSource) -> str:
    if isinstance(location, TableSource):
        return f"from the database table `{escape_for_docstring(location.table)}`"
    if "(?P<partition>" not in location.partition:
        return "one CSV object"
    return "one CSV object per day" if r"\d{4}-\d{2}-\d{2})" in location.partition else "one CSV object per partition"


def _imports(draft: SourceDraft) -> str:
    table = draft.table
    times = [column.times for column in table.columns if column.times]
    moments = sorted(
        {
            name
            for first, _ in times
            for name in (("UTC", "datetime") if isinstance(first, datetime) else ("timedelta",))
        }
    )
    names = {
        type(draft.location).__name__,
        "Source",
        *({"CsvDialect", "read_csv"} if draft.dialect else {"read_parquet"}),
        *({"one_of"} if any(column.choices for column in table.columns) else ()),
        *({"TimeBounds"} if times else ()),
        *({"utc_time"} if any(column.dtype == UTC_MICROSECONDS for column in table.columns) else ()),
    }
    lines = [
        *([f"from datetime import {', '.join(moments)}"] if moments else []),
        "from pathlib import Path",
        "",
        "import dataframely as dy",
        "import polars as pl",
        "",
        f"from headrace import {', '.join(sorted(names, key=lambda name: (name.islower(), name)))}",
    ]
    return "\n".join(lines)


def _contract(draft: SourceDraft) -> str:
    columns = "\n".join(_column(draft, column) for column in draft.table.columns)
    title = draft.name.replace("_", " ")
    return f'class {contract_name(draft.name)}(dy.Schema):\n    """One row of {title}, as it comes."""\n\n{columns}'


def column_code(draft: SourceDraft, column: InferredColumn) -> str:
    """The column's declaration on one line."""
    code = " ".join(line.strip() for line in _column(draft, column).splitlines()).partition(" = ")[2]
    return code.replace("( ", "(").replace(" )", ")")


def _column(draft: SourceDraft, column: InferredColumn) -> str:
    attribute, name = draft.names.attributes[column.name], draft.names.read_as[column.name]
    kind, positional = _kind(column.dtype)
    arguments = [
        *positional,
        *(_bounds(column) if column.bounds else ()),
        *(
            [f"check={format_call('one_of', [string_literal(value) for value in column.choices])}"]
            if column.choices
            else ()
        ),
        *([f"within={_time_bounds(*column.times)}"] if column.times else ()),
        *(["nullable=True"] if column.nullable else ()),
        *([f"alias={string_literal(name)}"] if name != attribute else ()),
    ]
    return format_call(kind, arguments, before=f"{attribute} = ", depth=1)


def _kind(dtype: pl.DataType) -> tuple[str, list[str]]:
    """The column's constructor and its positional arguments."""
    if dtype == UTC_MICROSECONDS:
        return "utc_time", []
    if isinstance(dtype, pl.Decimal):
        return "dy.Decimal", [str(dtype.precision or 38), str(dtype.scale)]
    if isinstance(dtype, pl.List):
        inner, arguments = _kind(item_type(dtype))
        return "dy.List", [format_call(inner, [*arguments, "nullable=True"])]
    return ("dy.Bool" if dtype == pl.Boolean else f"dy.{dtype}"), []


def _bounds(column: InferredColumn) -> Iterator[str]:
    low, high = column.bounds or (None, None)
    if low is not None:
        yield f"min={_number(low)}"
    if high is not None:
        yield f"max={_number(high)}"


def _number(value: float) -> str:
    """With separators where people would write them; a float as formatters do."""
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 100_000 else str(value)  # noqa: PLR2004  as in Python's own style guide
    return repr(value).replace("e+", "e")


def _time_bounds(first: timedelta | datetime, last: timedelta | datetime) -> str:
    return format_call("TimeBounds", [_moment(first), _moment(last)])


def _moment(bound: timedelta | datetime) -> str:
    if isinstance(bound, datetime):
        return f"datetime({bound.year}, {bound.month}, {bound.day}, tzinfo=UTC)"
    if not bound % timedelta(days=1):
        return f"timedelta(days={bound.days})" if bound else "timedelta(0)"
    return f"timedelta(hours={bound // timedelta(hours=1)})"


def _read(draft: SourceDraft) -> str:
    renamed = {name: new for name, new in draft.names.read_as.items() if name != new}
    rename = (
        f".rename({{{', '.join(f'{string_literal(old)}: {string_literal(new)}' for old, new in renamed.items())}}})"
        if renamed
        else ""
    )
    if draft.dialect is None:
        return (
            "def read(path: Path) -> pl.DataFrame:\n"
            '    """One partition as ingest wrote it from the database."""\n'
            f"    return read_parquet(path){rename}"
        )
    dialect = format_call("CsvDialect", list(_dialect(draft.dialect)))
    return 'def read(path: Path) -> pl.DataFrame:\n    """One object, every column as text."""\n' + format_call(
        "read_csv", ["path", dialect], before="return ", after=rename, depth=1
    )


def _dialect(dialect: CsvDialect) -> Iterator[str]:
    plain = CsvDialect()
    if dialect.separator != plain.separator:
        yield f"separator={string_literal(dialect.separator)}"
    if dialect.encoding != plain.encoding:
        yield f"encoding={string_literal(dialect.encoding)}"
    if dialect.nulls != plain.nulls:
        yield f"nulls={tuple_literal([string_literal(word) for word in dialect.nulls])}"


def _transform(draft: SourceDraft) -> str:
    names, time = draft.names, draft.table.time
    ordered = sorted((column.name for column in draft.table.columns), key=lambda name: name != time)
    kept = [string_literal(names.validated[name]) for name in ordered if names.read_as[name] == names.validated[name]]
    renamed = {
        names.validated[name]: string_literal(names.read_as[name])
        for name in ordered
        if names.read_as[name] != names.validated[name]
    }
    arguments = [f"{new}={old}" for new, old in renamed.items() if not iskeyword(new)]
    keywords = ", ".join(f"{string_literal(new)}: {old}" for new, old in renamed.items() if iskeyword(new))
    unpacked = [f"**{{{keywords}}}"] if keywords else []
    return (
        "def transform(rows: pl.DataFrame) -> pl.DataFrame:\n"
        f'    """Good rows, {"the time first, " if time else ""}under the names that the dataset uses."""\n'
        + format_call("rows.select", [*kept, *arguments, *unpacked], before="return ", depth=1)
    )


def _source(draft: SourceDraft) -> str:
    key = [string_literal(draft.names.validated[name]) for name in draft.table.key.columns]
    rejected = draft.table.key.duplicates + draft.rejected_share
    max_share = min(round(rejected * REJECTED_MARGIN + 0.01, 2), MOST_REJECTED)
    arguments = [
        f"name={string_literal(draft.name)}",
        _nested("location", type(draft.location).__name__, list(_location(draft.location))),
        "read=read",
        f"contract={contract_name(draft.name)}",
        "transform=transform",
        _nested_tuple("key", key),
        *([f"max_rejected_share={max_share}"] if rejected else ()),
    ]
    return format_call_one_per_line("Source", arguments, before="SOURCE = ")


def _nested(keyword: str, function: str, arguments: Sequence[str]) -> str:
    """A keyword argument that is a call, as it stands inside another call."""
    return (
        format_call(function, list(arguments), before=f"{keyword}=", after=",", depth=1)
        .removeprefix("    ")
        .removesuffix(",")
    )


def _nested_tuple(keyword: str, items: Sequence[str]) -> str:
    one_line = f"{keyword}={tuple_literal(items)}"
    if len(f"{INDENT}{one_line},") <= WIDTH:
        return one_line
    return f"{keyword}=(\n" + "".join(f"        {item},\n" for item in items) + "    )"


def _location(location: ObjectSource | TableSource) -> Iterator[str]:
    if isinstance(location, ObjectSource):
        yield f"location={string_literal(location.location)}"
        if location.partition != ".*":
            yield f"partition={regex_literal(location.partition)}"
        yield f"suffix={string_literal(location.suffix)}"
        return
    yield f"table={string_literal(location.table)}"
    yield f"key={tuple_literal([string_literal(name) for name in location.key])}"
    yield f"watermark={string_literal(location.watermark) if location.watermark else None}"
    if location.partition_by:
        yield f"partition_by={string_literal(location.partition_by)}"
    if location.database != DATABASE_URL:
        yield f"database={string_literal(location.database)}"
