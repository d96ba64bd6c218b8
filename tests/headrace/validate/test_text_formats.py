"""Numbers, dates and times in the forms that a dialect declares; what is in no such form is rejected with its text.

The oracles are Python's `strptime` and numbers that are written by hand.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.dataset import ObjectSource, Source
from headrace.partitions import Daily
from headrace.validate.column_history import EarlierType, evolving
from headrace.validate.columns import boolean, utc_time
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.errors import ColumnTypeChangedError
from headrace.validate.result import ValidationResult
from headrace.validate.validate_partition import validate_partition

GERMAN = CsvDialect(";", decimal=",", thousands=".", date_formats=("%d.%m.%Y",))


class Values(dy.Schema):
    id = dy.Int64()
    number = dy.Float64(nullable=True, allow_inf=True, allow_nan=True)
    amount = dy.Decimal(12, 2, nullable=True)
    count = dy.Int64(nullable=True)
    day = dy.Date(nullable=True)
    at = utc_time(nullable=True)
    code = dy.String(nullable=True)


SOURCE = Source(
    "values",
    ObjectSource("", ".*", ".csv"),
    lambda path: read_csv(path, GERMAN),
    Values,
    lambda rows: rows,
    ("id",),
    max_rejected_share=1.0,
)


def validate(folder: Path, dialect: CsvDialect, **values: str) -> ValidationResult:
    """One row with these values, after a row that fits any dialect."""
    names = list(Values.columns())
    lines = [names, ["1"], ["2", *(values.get(name, "") for name in names[1:])]]
    quoted = [dialect.separator.join(f'"{value}"' if value else "" for value in line) for line in lines]
    quoted[1] = '"1"' + dialect.separator * (len(names) - 1)
    path = folder / "values.csv"
    path.write_text("\n".join([*quoted, ""]))
    return validate_partition(replace(SOURCE, read=lambda path: read_csv(path, dialect)), "all", {"all": path})


def typed(folder: Path, dialect: CsvDialect, column: str, text: str) -> object:
    """What a text becomes; `"rejected"` if it is none."""
    try:
        result = validate(folder, dialect, **{column: text})
    except ColumnTypeChangedError:  # the only value of the column
        return "rejected"
    return result.accepted.filter(pl.col("id") == 2)[column].item()


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("number", "1.234.567,5", 1234567.5),
        ("number", "1234567,5", 1234567.5),
        ("number", "-0,5e3", -500.0),
        ("number", "1.5", "rejected"),
        ("number", "12.34.567", "rejected"),
        ("number", "1234.567", "rejected"),
        ("number", "1,5.0", "rejected"),
        ("number", "inf", float("inf")),
        ("amount", "1.234,50", Decimal("1234.50")),
        ("amount", "1,505", "rejected"),
        ("count", "1.000", 1000),
        ("count", "1,0", "rejected"),
        ("day", "9.1.2013", date(2013, 1, 9)),
        ("day", "31.12.2013", date(2013, 12, 31)),
        ("day", "31.02.2013", "rejected"),
        ("day", "2013-01-09", "rejected"),
        ("day", "9.1.13", "rejected"),
        ("code", "1.234,50", "1.234,50"),
        ("code", "9.1.2013", "9.1.2013"),
    ],
)
def test_a_value_is_read_in_the_declared_form_of_its_columns_type(
    tmp_path: Path, column: str, text: str, value: object
) -> None:
    assert typed(tmp_path, GERMAN, column, text) == value


def test_a_rejected_row_shows_its_values_as_they_came(tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    names = ";".join(Values.columns())
    path.write_text(f'{names}\n1;1,5;1.234,5;;9.1.2013;;x\n2;1.5;2,5;;9.1.2013;;"1.000"\n3;1;;;;\n')

    result = validate_partition(SOURCE, "all", {"all": path})

    assert result.accepted.rows() == [(1, 1.5, Decimal("1234.50"), None, date(2013, 1, 9), None, "x")]
    assert result.rejected.rows() == [
        (2, "2", "1.5", "2,5", None, "9.1.2013", None, "1.000", 3, None, ["number|dtype"]),
        (3, None, None, None, None, None, None, None, 4, "3;1;;;;", ["line|fields"]),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("09/Jan/2013:05:00:01 +0100", datetime(2013, 1, 9, 4, 0, 1, tzinfo=UTC)),
        ("9.1.2013 5:00 +00:00", datetime(2013, 1, 9, 5, tzinfo=UTC)),
        ("9.1.2013 5:00", "rejected"),
        ("2013-01-09T05:00:00Z", "rejected"),
    ],
)
def test_the_first_format_that_fits_reads_a_time_with_its_zone(tmp_path: Path, text: str, value: object) -> None:
    dialect = CsvDialect(time_formats=("%d/%b/%Y:%H:%M:%S %z", "%d.%m.%Y %H:%M %z"))

    assert typed(tmp_path, dialect, "at", text) == value


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("0123/.", min_size=6, max_size=10), st.sampled_from(["%d/%m/%Y", "%Y.%m.%d", "%m/%d/%y"]))
def test_dates_are_those_that_strptime_reads(tmp_path: Path, text: str, form: str) -> None:
    expected: object = "rejected"
    with suppress(ValueError):
        expected = datetime.strptime(text, form).date()  # noqa: DTZ007

    assert typed(tmp_path, CsvDialect(date_formats=(form,)), "day", text) == expected


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["%d.%m.%Y %H:%M:%S%.f %z", "%Y%m%d%H%M%S%.f%z"]),
)
def test_times_are_to_the_microsecond(tmp_path: Path, moment: datetime, minutes: int, form: str) -> None:
    sign, offset = "-" if minutes < 0 else "+", time(*divmod(abs(minutes), 60))
    written = moment.strftime(form.replace("%Y", f"{moment.year:04}").replace("%.f", ".%f").replace("%z", ""))

    found = typed(tmp_path, CsvDialect(time_formats=(form,)), "at", f"{written}{sign}{offset:%H%M}")

    assert found == moment.replace(tzinfo=UTC) - timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("decimal", "thousands"), [(",", "."), (".", ","), (",", "\N{NARROW NO-BREAK SPACE}"), (".", "'")]
)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.decimals(-(10**9), 10**9, places=2))
def test_a_grouped_number_is_the_number(tmp_path: Path, decimal: str, thousands: str, number: Decimal) -> None:
    text = f"{number:,}".translate({ord(","): thousands, ord("."): decimal})

    assert typed(tmp_path, CsvDialect(";", decimal=decimal, thousands=thousands), "amount", text) == number


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decimal": ""}, "expected one character as `decimal`, found ''"),
        ({"decimal": "1"}, "expected one character as `decimal`"),
        ({"decimal": ",", "thousands": ","}, "other than the decimal ',' as `thousands`"),
        ({"decimal": '"'}, "expected a `decimal` that means nothing else in the file"),
        ({"decimal": ",", "quote": None}, "expected a `decimal` that means nothing else in the file"),
        ({"date_formats": "%d.%m.%Y"}, "expected a tuple of formats as `date_formats`"),
        ({"date_formats": ("%d.%m",)}, "expected year, month and day, each once, in `date_formats`, found '%d.%m'"),
        ({"date_formats": ("%d.%m.%Y %H",)}, "expected dates without a time"),
        ({"date_formats": ("%D",)}, "found '%D' in '%D'"),
        ({"time_formats": ("%d.%m.%Y %H:%M",)}, "hour, minute and zone (%z), each once"),
        ({"quote": "''"}, "expected one ASCII character other than a line end as `quote`, or None"),
        ({"escape": "\n"}, "expected one ASCII character other than a line end as `escape`"),
        ({"escape": '"'}, "expected three different characters as `separator`, `quote` and `escape`"),
        ({"separator": "'", "quote": "'"}, "expected three different characters"),
        ({"names": ()}, "expected a tuple of texts as `names`, found ()"),
        ({"names": ("a", "a")}, "expected different `names`"),
        ({"names": ("a",), "reject_repeated_header": True}, "has no header to repeat"),
        ({"skip_lines": -1}, "expected a number of lines as `skip_lines`, found -1"),
        ({"comment": ""}, "expected a text without line ends as `comment`"),
        ({"comment": ","}, "expected a `comment` that no record begins with"),
    ],
)
def test_a_dialect_that_no_file_can_have_is_refused_when_it_is_declared(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^CsvDialect: ") as refusal:
        CsvDialect(**arguments)  # type: ignore[arg-type]

    assert message in str(refusal.value)


def test_a_text_that_an_earlier_form_is_parsed_to_is_read_as_any_text_of_the_file(tmp_path: Path) -> None:
    columns = {
        "id": dy.Int64(),
        "amount": evolving(dy.Float64(), earlier_types=before(lambda text: text.str.strip_suffix(" EUR"))),
        "day": evolving(dy.Date(), earlier_types=before(lambda text: text.str.head(10))),
        "paid": evolving(boolean(true=("ja",), false=("nein",)), earlier_types=before(lambda text: text.str.head(4))),
    }
    path = tmp_path / "values.csv"
    path.write_text("id;amount;day;paid\n1;1.234 EUR;03.02.2013 10:00;ja\n2;0,5 EUR;04.02.2013 x;nein!\n")
    contract = type("Earlier", (dy.Schema,), columns)

    result = validate_partition(
        replace(SOURCE, contract=contract, partitions=Daily()), "2013-02-01", {"2013-02-01": path}
    )

    assert result.accepted.rows() == [(1, 1234.0, date(2013, 2, 3), True), (2, 0.5, date(2013, 2, 4), False)]


def before(parse: Callable[[pl.Expr], pl.Expr]) -> EarlierType:
    """A text until March."""
    return EarlierType(pl.String(), until="2013-03-01", parse=parse)
