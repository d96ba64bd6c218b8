"""A sheet of an Excel workbook (.xlsx) → rows of text, read exactly as declared.

calamine, which Polars reads Excel with, gives the values. Two things are read beside them: the number behind each date,
since days before March 1900 have two readings, and the cells that hold nothing of their own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import polars as pl

from headrace.extras import require_extra
from headrace.unexpected_errors import describe_error
from headrace.validate.compression import ZIP, ZIP_ERRORS
from headrace.validate.excel_sheet import Cell, InvalidWorkbookError, sheet_facts
from headrace.validate.read_request import ReadRequest
from headrace.validate.reserved_names import FAULT, MARK, NUMBER, RECORD
from headrace.validate.unreadable import (
    LONGEST_NAME,
    MAX_BYTES,
    MAX_COLUMNS,
    MAX_FIELDS,
    check_limit,
    refused,
)

OLE = b"\xd0\xcf\x11\xe0"
"""How an encrypted workbook begins, and one of the format .xls."""

DAY_MS = 86_400_000

MARCH_1900 = 61 * DAY_MS
"""Excel counts a 29 February 1900: of a number below this one, readers make different days."""

EPOCH_1900, EPOCH_1904 = pl.datetime(1899, 12, 30), pl.datetime(1904, 1, 1)

EARLIEST_DAYS = 690_000
"""Days before the first epoch that are in the year 11 or later, which Polars can write as text."""

LAST_DAY = 2_958_466 * DAY_MS
"""10000-01-01, counted from the first epoch."""

ERRORS = {
    "Div0": "#DIV/0!",
    "NA": "#N/A",
    "Name": "#NAME?",
    "Null": "#NULL!",
    "Num": "#NUM!",
    "Ref": "#REF!",
    "Value": "#VALUE!",
    "GettingData": "#GETTING_DATA",
}
"""What calamine calls an error → what Excel shows."""

EARLY_DATE = "date before 1900-03-01"


@dataclass(frozen=True)
class ExcelDialect:
    """Which sheet of a workbook holds the rows, and where. What is larger than the bounds is refused.

    Attributes:
        sheet: Name of the sheet, or its place from 0 on.
        header_row: The row that names the columns, by the number that Excel shows.
        skip_rows: Rows after it that are no data, such as units.
        nulls: Texts that mean "not known"; an empty cell always is.
        max_bytes: Most bytes that the workbook may have once unpacked.
        max_columns: Most columns of the sheet.
        max_fields: Most cells of the sheet, empty ones included.

    Raises:
        ValueError: No workbook can be read so.
    """

    sheet: str | int = 0
    header_row: int = 1
    skip_rows: int = 0
    nulls: tuple[str, ...] = ("",)
    max_bytes: int = MAX_BYTES
    max_columns: int = MAX_COLUMNS
    max_fields: int = MAX_FIELDS

    def __post_init__(self) -> None:
        """Refuse what no workbook can be read with."""
        sheet, rows = self.sheet, (self.header_row, self.skip_rows)
        if isinstance(sheet, bool) or not (isinstance(sheet, str) or sheet >= 0):
            raise ValueError(f"ExcelDialect: expected a name, or a place from 0 on, as `sheet`, found {sheet!r}")
        if rows[0] < 1 or rows[1] < 0:
            raise ValueError(f"ExcelDialect: expected a header row from 1 on and 0 or more rows to skip, found {rows}")
        nulls: object = self.nulls
        if not isinstance(nulls, tuple | list):
            raise ValueError(f"ExcelDialect: expected a tuple of texts as `nulls`, found {nulls!r}")  # noqa: TRY004


def read_excel(path: Path, dialect: ExcelDialect | None = None, *, request: ReadRequest | None = None) -> pl.DataFrame:
    """The rows of a sheet of an Excel workbook (.xlsx), every column as text.

    A number has the fewest digits that give it again, a date is `2013-01-09`, with a time of day
    `2013-01-09 05:00:00`, a time of day alone `05:00:00`, a Boolean `true` or `false`. Empty rows are left out. Three
    columns more say which row of the sheet each one is, and why one cannot be read: an error, a formula without a
    stored value, a part of a merged cell or a date before March 1900. Keep them, `validate` needs them.

    Args:
        path: The file.
        dialect: The sheet, and where its rows begin; by default the first one, with names in its first row.
        request: What `validate` wants of it: only its columns are looked at for such cells.

    Raises:
        MissingExtraError: The extra `excel` is not installed.
        UnreadableError: It is no workbook, encrypted, damaged or too large, it lacks the sheet, or two columns have one
            name.

    Examples:
        >>> headrace.read_excel(Path("orders.xlsx")).select("order_id", "amount").rows()
        [('7', '1.5')]
    """
    require_extra("excel", "read_excel")
    dialect = dialect or ExcelDialect()
    content = _content(path, dialect.max_bytes)
    try:
        facts = sheet_facts(content, dialect.sheet, dialect.max_bytes, dialect.max_fields)
    except (InvalidWorkbookError, BadZipFile, *ZIP_ERRORS) as error:
        raise refused(path, str(error) if isinstance(error, InvalidWorkbookError) else f"damaged: {error}") from error
    check_limit(path, "columns", facts.width, dialect.max_columns)
    texts, ms, errors = _load(path, content, dialect.sheet)
    if facts.faults and texts.width != facts.value_width:
        raise refused(path, "it has cells without a value, and calamine reads other columns than its XML names")
    names = _names(path, texts, dialect.header_row - 1)
    start = dialect.header_row + dialect.skip_rows
    columns = [pl.nth(place).alias(name) for place, name in names.items()]
    cells = {**facts.faults, **errors}
    sheet = _Sheet(
        texts.select(columns).slice(start),
        ms.select(columns).slice(start),
        {(row - start, names[column]): why for (row, column), why in cells.items() if column in names},
        facts.is_1904,
        start,
        {} if request is None else request.columns,
    )
    return _with_faults(sheet, [sheet.values(name, dialect.nulls) for name in names.values()])


@dataclass(frozen=True)
class _Sheet:
    """The rows below the names of the columns.

    Attributes:
        texts: The cells as text.
        ms: The number behind each cell with a date or a time, in milliseconds; null in the others.
        faults: Row, from 0 on, and column → why the cell cannot be read.
        is_1904: Whether days are counted from 1904 on.
        start: Rows of the sheet before them.
        declared: Column → type, where a contract is known.
    """

    texts: pl.DataFrame
    ms: pl.DataFrame
    faults: Mapping[tuple[int, str], str]
    is_1904: bool
    start: int
    declared: Mapping[str, pl.DataType]

    def values(self, name: str, nulls: Sequence[str]) -> pl.Series:
        """The cells of a column as text, dates and times as its type reads them."""
        is_duration = isinstance(self.declared.get(name), pl.Duration)
        ms, text = pl.col("ms"), pl.col("text")
        as_time = ms.cast(pl.Duration("ms")).dt.to_string("iso") if is_duration else _date_text(ms, self.is_1904)
        value = pl.when(ms.is_not_null()).then(as_time).when(~text.is_in(nulls)).then(text)
        cells = pl.DataFrame({"text": self.texts.get_column(name), "ms": self.ms.get_column(name)})
        return cells.select(value.alias(name)).to_series()

    def all_faults(self) -> dict[int, dict[str, str]]:
        """Row, from 0 on → column → why its cell cannot be read; of the columns that are wanted."""
        wanted = [name for name in self.texts.columns if not self.declared or name in self.declared]
        found: dict[int, dict[str, str]] = {}
        for (row, name), why in sorted([*self.faults.items(), *self._early_dates(wanted)]):
            if row >= 0 and name in wanted:
                found.setdefault(row, {})[name] = why
        return found

    def _early_dates(self, wanted: Sequence[str]) -> Iterator[tuple[tuple[int, str], str]]:
        for name in wanted:
            if not self.is_1904 and not isinstance(self.declared.get(name), pl.Duration):
                ms = self.ms.get_column(name)
                is_early = (ms < MARCH_1900) & ~ms.is_between(0, DAY_MS, closed="left")
                yield from (((row, name), EARLY_DATE) for row in is_early.fill_null(value=False).arg_true())


def _content(path: Path, max_bytes: int) -> bytes:
    check_limit(path, "bytes", path.stat().st_size, max_bytes)
    content = path.read_bytes()
    if not content:
        raise refused(path, "it is empty: 0 bytes, where an Excel workbook was expected")
    if content.startswith(OLE):
        raise refused(path, "it is an encrypted workbook, or one of the old format .xls: expected .xlsx")
    if not content.startswith(ZIP):
        raise refused(path, f"expected an Excel workbook (.xlsx), but it begins with the bytes {content[:4].hex(' ')}")
    return content


def _load(path: Path, content: bytes, sheet: str | int) -> tuple[pl.DataFrame, pl.DataFrame, dict[Cell, str]]:
    """All cells as text, the numbers behind those with a date or time in milliseconds, and the errors."""
    import fastexcel  # noqa: PLC0415  an extra

    try:
        workbook = fastexcel.read_excel(content)
        as_text = workbook.load_sheet(sheet, header_row=None, skip_rows=0, dtypes="string")
        batch, errors = as_text.to_arrow_with_errors()
        as_time = workbook.load_sheet(sheet, header_row=None, skip_rows=0, dtypes="duration").to_arrow()
    except fastexcel.FastExcelError as error:
        raise refused(path, f"it cannot be read: {describe_error(error)}") from error
    texts, serials = (pl.DataFrame(pl.from_arrow(each)) for each in (batch, as_time))
    found = {each.offset_position: _error_name(each.detail) for each in (errors.errors if errors else ())}
    return texts, serials.select(pl.all().to_physical()), found


def _error_name(detail: str) -> str:
    """`Expected string but got 'Error(Div0)'` → what Excel shows."""
    name = detail.rpartition("Error(")[2].partition(")")[0]
    return ERRORS.get(name, name)


def _names(path: Path, texts: pl.DataFrame, header: int) -> dict[int, str]:
    """Place → name of the columns; those without a name hold nothing."""
    if header >= texts.height:
        raise refused(
            path, f"its sheet has {texts.height:,} rows, expected the names of the columns in row {header + 1}"
        )
    found = [*enumerate(texts.row(header))]
    names = {place: name for place, name in found if name}
    below = texts.slice(header + 1)
    if unnamed := [n for n, name in found if not name and below.to_series(n).null_count() < below.height]:
        raise refused(path, f"its column number {unnamed[0] + 1} has values, but no name in row {header + 1}")
    listed = [*names.values()]
    if twice := sorted({name for name in listed if listed.count(name) > 1}):
        raise refused(path, f"row {header + 1} names {', '.join(map(repr, twice))} more than once")
    if wrong := [name for name in listed if len(name) > LONGEST_NAME or name.startswith(MARK)]:
        raise refused(path, f"{wrong[0][:80]!r} cannot be the name of a column")
    if not names:
        raise refused(path, f"row {header + 1} of its sheet names no column")
    return names


def _date_text(ms: pl.Expr, is_1904: bool) -> pl.Expr:
    """Days as dates, with their time of day if they have one, and what is less than a day as a time of day."""
    epoch = EPOCH_1904 if is_1904 else EPOCH_1900
    is_inside = ms.is_between(-EARLIEST_DAYS * DAY_MS, LAST_DAY - DAY_MS)
    moment = epoch.dt.cast_time_unit("ms") + pl.when(is_inside).then(ms).cast(pl.Duration("ms"))
    day, clock = moment.dt.to_string("%Y-%m-%d"), moment.dt.to_string("%H:%M:%S%.f")
    is_time = ms.is_between(0, DAY_MS, closed="left")
    text = pl.when(is_time).then(clock).when(ms % DAY_MS == 0).then(day).otherwise(day + " " + clock)
    return pl.coalesce(text, ms.cast(pl.String))


def _with_faults(sheet: _Sheet, values: Sequence[pl.Series]) -> pl.DataFrame:
    """The rows that hold anything, with their numbers, and of those that cannot be read why."""
    height, faults = sheet.texts.height, sheet.all_faults()
    first = {row: next(iter(found.items())) for row, found in faults.items()}
    reasons = [f"excel({first[row][1]} in {first[row][0]})" if row in first else None for row in range(height)]
    texts = [
        ", ".join(f"{name}: {why}" for name, why in faults[n].items()) if n in faults else None for n in range(height)
    ]
    numbers = pl.int_range(sheet.start + 1, sheet.start + height + 1, dtype=pl.UInt32, eager=True).alias(NUMBER)
    rows = pl.DataFrame([numbers, pl.Series(RECORD, texts, pl.String), pl.Series(FAULT, reasons, pl.String), *values])
    is_empty = pl.all_horizontal(pl.exclude(NUMBER, RECORD).is_null())
    return rows.filter(~is_empty)
