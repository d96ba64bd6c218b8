"""What becomes of values: source type x declared type. `docs/types.md` is written from these, and tests run them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import dataframely as dy
import polars as pl
import pyarrow as pa

from headrace.validate.columns import boolean, utc_time

NAN, INF = float("nan"), float("inf")
REJECTED = "its row is rejected"
"""Outcome of a value that is not exactly one of the declared type."""

LATEST, EARLIEST = datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), datetime(1, 1, 1, tzinfo=UTC)

DECLARED: Mapping[str, Callable[[], dy.Column]] = {
    "String": lambda: dy.String(nullable=True),
    "Int64": lambda: dy.Int64(nullable=True),
    "Int32": lambda: dy.Int32(nullable=True),
    "Int16": lambda: dy.Int16(nullable=True),
    "UInt8": lambda: dy.UInt8(nullable=True),
    "UInt64": lambda: dy.UInt64(nullable=True),
    "Float64": lambda: dy.Float64(nullable=True, allow_nan=True, allow_inf=True),
    "Float32": lambda: dy.Float32(nullable=True, allow_nan=True, allow_inf=True),
    "Decimal(10, 2)": lambda: dy.Decimal(10, 2, nullable=True),
    "Decimal(38, 10)": lambda: dy.Decimal(38, 10, nullable=True),
    "boolean(yes, no)": lambda: boolean(true=("yes",), false=("no",), nullable=True),
    "boolean(1, 0)": lambda: boolean(true=("1",), false=("0",), nullable=True),
    "Bool": lambda: dy.Bool(nullable=True),
    "Date": lambda: dy.Date(nullable=True),
    "Time": lambda: dy.Time(nullable=True),
    "utc_time": lambda: utc_time(nullable=True),
    "Enum([a, b])": lambda: dy.Enum(["a", "b"], nullable=True),
    "Categorical": lambda: dy.Categorical(nullable=True),
    "Binary": lambda: dy.Binary(nullable=True),
    "Duration": lambda: dy.Duration(nullable=True),
    "List(Int64)": lambda: dy.List(dy.Int64(nullable=True), nullable=True),
    "List(Int32)": lambda: dy.List(dy.Int32(nullable=True), nullable=True),
    "List(String)": lambda: dy.List(dy.String(nullable=True), nullable=True),
    "List(utc_time)": lambda: dy.List(utc_time(nullable=True), nullable=True),
    "List(Date)": lambda: dy.List(dy.Date(nullable=True), nullable=True),
    "Struct(at: utc_time)": lambda: dy.Struct({"at": utc_time(nullable=True)}, nullable=True),
}
"""How the page calls a column of a contract → the column, which allows null, NaN and infinity."""


@dataclass(frozen=True)
class Conversion:
    """One source type and one declared type.

    Attributes:
        source: The kind of source.
        source_type: The type in it.
        declared: Key of `DECLARED`.
        outcomes: Value as it is written in the source → the value that arrives, or `REJECTED`.
        refused: What the error says, where no value of the source type can be one of the declared type.
    """

    source: str
    source_type: str
    declared: str
    outcomes: Mapping[Any, Any] = field(default_factory=dict)
    refused: str = ""

    @property
    def name(self) -> str:
        """Name for a test."""
        return f"{self.source}: {self.source_type} as {self.declared}"


@dataclass(frozen=True)
class Refusal:
    """A value for which a source is refused before any contract is applied.

    Attributes:
        source: The kind of source.
        source_type: The type in it.
        value: The value as it is written in the source.
        message: What the error says.
    """

    source: str
    source_type: str
    value: str
    message: str


def _csv(declared: str, outcomes: Mapping[str, Any] | None = None, *, refused: str = "") -> Conversion:
    return Conversion("CSV", "text", declared, outcomes or {}, refused)


def _exact(*values: Any) -> dict[Any, Any]:  # noqa: ANN401  values of any type
    return {value: value for value in values}


DECLARE_TEXT = "declare it as dy.String and parse it in `transform`"

DURATIONS = {
    "P1DT2H3M": timedelta(days=1, hours=2, minutes=3),
    "PT0.5S": timedelta(milliseconds=500),
    "-P1W": timedelta(days=-7),
    "26:03:00.5": timedelta(days=1, hours=2, minutes=3, milliseconds=500),
    "1 days 02:03:04.000005": timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5),
    "-1 day, 23:00:00": timedelta(hours=-1),
    "2 days": timedelta(days=2),
    **dict.fromkeys(["P1M", "1 mon", "02:03", "00:60:00", "PT0.0000001S", "90", "P", "P106751992D"], REJECTED),
}

CSV = (
    _csv("String", _exact("0017", " a ", "12.50", "café", "null")),
    _csv(
        "Int64", {"12": 12, "-9223372036854775808": -(2**63), **dict.fromkeys(["2e3", "1.0", " 1", "1_000"], REJECTED)}
    ),
    _csv("UInt8", {"255": 255, "256": REJECTED, "-1": REJECTED}),
    _csv(
        "Float64",
        {"0.1": 0.1, "1e3": 1000.0, "1e-400": 0.0, "NaN": NAN, "-inf": -INF, "1e400": REJECTED, "1,5": REJECTED},
    ),
    _csv("Float32", {"0.5": 0.5, "16777217": 16777216.0, "1e39": REJECTED}),
    _csv("Decimal(10, 2)", {"1.230": Decimal("1.23"), ".5": Decimal("0.5"), "1.239": REJECTED, "1e3": REJECTED}),
    _csv("Decimal(38, 10)", {"0.0000000001": Decimal("1E-10"), "0.00000000005": REJECTED}),
    _csv("Bool", {"true": True, "FALSE": False, "1": REJECTED, "yes": REJECTED}),
    _csv("Date", {"0001-01-01": date.min, "9999-12-31": date.max, "13-01-09": REJECTED, "2013-02-30": REJECTED}),
    _csv("Time", {"05:00:00": time(5), "23:59:59.999999": time(23, 59, 59, 999999), "24:00:00": REJECTED}),
    _csv(
        "utc_time",
        {
            "2013-01-09T05:00:00Z": datetime(2013, 1, 9, 5, tzinfo=UTC),
            "2013-01-09 05:00:00.5+01:00": datetime(2013, 1, 9, 4, 0, 0, 500000, UTC),
            "9999-12-31T23:59:59.999999Z": LATEST,
            "2013-01-09T05:00:00": REJECTED,
            "2012-06-30T23:59:60Z": REJECTED,
            "9999-12-31T23:59:59-01:00": REJECTED,
            "2013-01-09T05:00:00.0000001Z": REJECTED,
        },
    ),
    _csv("Enum([a, b])", {"a": "a", "c": REJECTED}),
    _csv("Categorical", _exact("a", "any")),
    _csv("boolean(yes, no)", {"yes": True, "NO": False, "true": REJECTED, "y": REJECTED}),
    _csv("Duration", DURATIONS),
    _csv(
        "List(Int64)",
        {
            "[1,null,2.0]": [1, None, 2],
            "[]": [],
            **dict.fromkeys(["[1.5]", "1", "[1", "{}", "[NaN]"], REJECTED),
        },
    ),
    _csv(
        "Struct(at: utc_time)",
        {
            '{"at":"0001-01-01T00:00:00Z"}': {"at": EARLIEST},
            "{}": {"at": None},
            **dict.fromkeys(['{"at":1}', '{"b":1}', '{"at":null,"at":null}', "[]", "a"], REJECTED),
        },
    ),
    _csv("Binary", refused=DECLARE_TEXT),
)


def _json(declared: str, outcomes: Mapping[str, Any] | None = None, *, refused: str = "") -> Conversion:
    return Conversion("JSON", "JSON", declared, outcomes or {}, refused)


JSON = (
    _json(
        "String",
        {
            '"a"': "a",
            '""': "",
            r'"\u00e9\ud83d\ude00"': "é😀",
            "1.10": "1.10",
            "12345678901234567890": "12345678901234567890",
            "true": "true",
            '{"a":[1.10,null]}': '{"a":[1.10,null]}',
        },
    ),
    _json(
        "Int64",
        {
            "9007199254740993": 2**53 + 1,
            "-9223372036854775808": -(2**63),
            "1.0": 1,
            "1e3": 1000,
            '"12"': 12,
            **dict.fromkeys(["9223372036854775808", "1.5", "1e400", "1e999999999", "true", '"1.0"', "[1]"], REJECTED),
        },
    ),
    _json("UInt8", {"255": 255, "256": REJECTED, "-1": REJECTED}),
    _json(
        "Float64",
        {"0.1": 0.1, "1e3": 1000.0, "-0.0": -0.0, "1e-400": 0.0, '"NaN"': NAN, '"-inf"': -INF, "1e400": REJECTED},
    ),
    _json("Float32", {"0.5": 0.5, "16777217": 16777216.0, "1e39": REJECTED}),
    _json("Decimal(10, 2)", {"1.10": Decimal("1.1"), "1e3": Decimal(1000), '"1.5"': Decimal("1.5"), "1.239": REJECTED}),
    _json(
        "Decimal(38, 10)",
        {"12345678901234567890.0123456789": Decimal("12345678901234567890.0123456789"), "1e-11": REJECTED},
    ),
    _json("Bool", {"true": True, "false": False, '"TRUE"': True, "1": REJECTED}),
    _json("Date", {'"0001-01-01"': date.min, '"9999-12-31"': date.max, "20130109": REJECTED}),
    _json("Time", {'"23:59:59.999999"': time(23, 59, 59, 999999), '"24:00:00"': REJECTED}),
    _json(
        "utc_time",
        {
            '"9999-12-31T23:59:59.999999Z"': LATEST,
            '"0001-01-01T01:00:00+01:00"': EARLIEST,
            '"2013-01-09T05:00:00"': REJECTED,
            "1357707600": REJECTED,
        },
    ),
    _json("Enum([a, b])", {'"a"': "a", '"c"': REJECTED}),
    _json("List(Int64)", {"[1,null,2.0]": [1, None, 2], "[]": [], **dict.fromkeys(["[1.5]", '"[1]"', "{}"], REJECTED)}),
    _json("List(utc_time)", {'["9999-12-31T23:59:59.999999Z"]': [LATEST], '["9999-12-31T23:59:59-01:00"]': REJECTED}),
    _json(
        "Struct(at: utc_time)",
        {
            '{"at":"0001-01-01T00:00:00Z"}': {"at": EARLIEST},
            "{}": {"at": None},
            **dict.fromkeys(['{"at":1}', '{"at":null,"b":1}', "[]"], REJECTED),
        },
    ),
    _json("boolean(yes, no)", {'"Yes"': True, '"no"': False, "true": True, '"true"': REJECTED}),
    _json("Duration", {f'"{text}"': value for text, value in DURATIONS.items()} | {"90": REJECTED}),
    _json("Binary", refused=DECLARE_TEXT),
)


def _sqlite(
    source_type: str, declared: str, outcomes: Mapping[str, Any] | None = None, *, refused: str = ""
) -> Conversion:
    return Conversion("SQLite", source_type, declared, outcomes or {}, refused)


SQLITE = (
    _sqlite("INTEGER", "Int64", {"9223372036854775807": 2**63 - 1, "-9223372036854775808": -(2**63)}),
    _sqlite("INTEGER", "Int16", {"32767": 32767, "32768": REJECTED}),
    _sqlite("INTEGER", "Float64", {"9007199254740992": 2.0**53, "9007199254740993": REJECTED}),
    _sqlite("INTEGER", "String", refused="correct its contract"),
    _sqlite("REAL", "Float64", {"0.1": 0.1, "1.7976931348623157e308": 1.7976931348623157e308, "9e999": INF}),
    _sqlite("REAL", "Float32", {"0.5": 0.5, "0.1": REJECTED}),
    _sqlite("REAL", "Int64", {"2.0": 2, "2.5": REJECTED}),
    _sqlite("REAL", "Decimal(10, 2)", {"0.1": Decimal("0.1"), "1.005": REJECTED}),
    _sqlite("NUMERIC", "Decimal(10, 2)", {"12": Decimal(12), "0.25": Decimal("0.25"), "0.125": REJECTED}),
    _sqlite("TEXT", "String", {"'a'": "a", "''": ""}),
    _sqlite(
        "TEXT", "Decimal(38, 10)", {"'12345678901234567890.1234567890'": Decimal("12345678901234567890.123456789")}
    ),
    _sqlite("BLOB", "Binary", {"x'ff00'": b"\xff\0", "x''": b""}),
    _sqlite("BOOLEAN", "Bool", {"0": False, "1": True}),
    _sqlite("DATE", "Date", {"'0001-01-01'": date.min, "'9999-12-31'": date.max}),
    _sqlite(
        "TIMESTAMP", "utc_time", {"'9999-12-31T23:59:59.999999Z'": LATEST, "'0001-01-01 01:00:00+01:00'": EARLIEST}
    ),
)


def _pg(source_type: str, declared: str, outcomes: Mapping[str, Any] | None = None, *, refused: str = "") -> Conversion:
    return Conversion("PostgreSQL", source_type, declared, outcomes or {}, refused)


POSTGRESQL = (
    _pg("smallint", "Int64", {"32767": 32767}),
    _pg("bigint", "Int64", {"9223372036854775807": 2**63 - 1, "-9223372036854775808": -(2**63)}),
    _pg("bigint", "Int32", {"2147483647": 2**31 - 1, "2147483648": REJECTED}),
    _pg("bigint", "Bool", refused="correct its contract"),
    _pg("real", "Float32", {"0.1": 0.10000000149011612, "'NaN'": NAN}),
    _pg("double precision", "Float64", {"5e-324": 5e-324, "'NaN'": NAN, "'-Infinity'": -INF, "'-0'": -0.0}),
    _pg("double precision", "Float32", {"0.5": 0.5, "0.1": REJECTED}),
    _pg("numeric", "Decimal(10, 2)", {"1.230": Decimal("1.23"), "19.999": REJECTED, "'NaN'": REJECTED}),
    _pg("numeric", "String", {"12345678901234567890.10": "12345678901234567890.10", "'Infinity'": "Infinity"}),
    _pg("numeric", "Float64", {"0.1": 0.1, "'NaN'": NAN}),
    _pg("money", "Decimal(10, 2)", {"'1234.56'": Decimal("1234.56"), "'-0.05'": Decimal("-0.05")}),
    _pg("oid", "Int64", {"4294967295": 2**32 - 1}),
    _pg("text", "String", {"''": "", "'café'": "café"}),
    _pg("char(3)", "String", {"'ab'": "ab "}),
    _pg("bytea", "Binary", {r"'\xff00'": b"\xff\0"}),
    _pg("boolean", "Bool", {"true": True, "false": False}),
    _pg(
        "date",
        "Date",
        {
            "'0001-01-01'": date.min,
            "'9999-12-31'": date.max,
            **dict.fromkeys(["'infinity'", "'0001-12-31 BC'", "'10000-01-01'"], REJECTED),
        },
    ),
    _pg("time", "Time", {"'23:59:59.999999'": time(23, 59, 59, 999999), "'24:00:00'": REJECTED}),
    _pg("timetz", "String", {"'24:00:00+02'": "24:00:00+02"}),
    _pg(
        "timestamptz",
        "utc_time",
        {
            "'9999-12-31 23:59:59.999999Z'": LATEST,
            "'0001-01-01 01:00:00+01:00'": EARLIEST,
            **dict.fromkeys(["'infinity'", "'-infinity'", "'294276-12-31 23:59:59.999999Z'"], REJECTED),
        },
    ),
    _pg(
        "interval",
        "String",
        {"'1 mon -2 days 3.5 sec'": "1 mon -2 days +00:00:03.5", "'-178000000 years'": "-178000000 years"},
    ),
    _pg("uuid", "String", {"'6ecd8c99-4036-403d-bf84-cf8400f67836'": "6ecd8c99-4036-403d-bf84-cf8400f67836"}),
    _pg("jsonb", "String", {"""'{"a": 1.10}'""": '{"a": 1.10}'}),
    _pg("mood (an enum)", "Enum([a, b])", {"'a'": "a", "'c'": REJECTED}),
    _pg("integer[]", "List(Int32)", {"'{1,NULL}'": [1, None], "'{}'": []}),
    _pg("text[]", "List(String)", {"""'{"",NULL}'""": ["", None]}),
    _pg("date[]", "List(Date)", {"'{9999-12-31}'": [date.max], "'{infinity}'": REJECTED}),
    _pg(
        "timestamptz[]",
        "List(utc_time)",
        {"'{9999-12-31 23:59:59.999999Z,NULL}'": [LATEST, None], "'{infinity}'": REJECTED},
    ),
    _pg("time[]", "String", {"'{24:00,05:00}'": "{24:00:00,05:00:00}"}),
    _pg("numeric[]", "String", {"'{1.50,NULL}'": "{1.50,NULL}"}),
    _pg("pair (a composite)", "String", {"ROW('24:00', 'infinity')": "(24:00:00,infinity)"}),
    _pg("tstzrange", "String", {"'[2013-01-01Z,infinity)'": '["2013-01-01 00:00:00+00",infinity)'}),
)


def _parquet(
    source_type: pa.DataType, declared: str, outcomes: Mapping[Any, Any] | None = None, *, refused: str = ""
) -> Conversion:
    return Conversion("Parquet", str(source_type), declared, outcomes or {}, refused)


FAR_US = 2**63 - 1
PARQUET_TYPES: Mapping[str, pa.DataType] = {
    str(kind): kind
    for kind in (
        *(pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(10, 3)),
        *(pa.bool_(), pa.string(), pa.binary(), pa.date32(), pa.time64("us"), pa.null()),
        *(pa.timestamp(unit, "UTC") for unit in ("ms", "us", "ns")),
        *(pa.timestamp("us", "America/New_York"), pa.timestamp("us"), pa.duration("ms"), pa.duration("ns")),
        pa.dictionary(pa.int32(), pa.string()),
        *(pa.list_(pa.int64()), pa.list_(pa.int32()), pa.list_(pa.timestamp("us", "UTC"))),
        pa.struct({"at": pa.timestamp("us", "UTC")}),
    )
}
"""Name of a type of Arrow → the type."""

TICKS: Mapping[str, Callable[[Any], Any]] = {
    "timestamp": lambda tick: tick,
    "duration": lambda tick: tick,
    "list<item: timestamp[us, tz=UTC]>": lambda tick: [tick],
    "struct<at: timestamp[us, tz=UTC]>": lambda tick: {"at": tick},
}
"""Beginning of the name of a type whose values are given as ticks → the value of one tick."""

PARQUET = (
    _parquet(pa.int8(), "Int64", {-128: -128}),
    _parquet(pa.int64(), "Int64", _exact(2**63 - 1, -(2**63))),
    _parquet(pa.int64(), "UInt8", {255: 255, 256: REJECTED, -1: REJECTED}),
    _parquet(pa.uint64(), "UInt64", _exact(2**64 - 1)),
    _parquet(pa.uint64(), "Int64", {5: 5, 2**63: REJECTED}),
    _parquet(pa.int64(), "utc_time", refused="correct its contract"),
    _parquet(pa.float16(), "Float64", {0.5: 0.5}),
    _parquet(pa.float64(), "Float64", {NAN: NAN, -INF: -INF, 5e-324: 5e-324, -0.0: -0.0}),
    _parquet(pa.float64(), "Int64", {2.0: 2, 2.5: REJECTED, NAN: REJECTED, 2.0**63: REJECTED}),
    _parquet(pa.float64(), "Decimal(38, 10)", {0.1: Decimal("0.1"), 1e-11: REJECTED, INF: REJECTED}),
    _parquet(pa.float32(), "Float64", {0.5: 0.5}),
    _parquet(pa.decimal128(10, 3), "Decimal(10, 2)", {Decimal("1.230"): Decimal("1.23"), Decimal("1.005"): REJECTED}),
    _parquet(pa.decimal128(10, 3), "Int64", {Decimal("2.000"): 2, Decimal("2.500"): REJECTED}),
    _parquet(pa.bool_(), "Bool", _exact(True, False)),
    _parquet(pa.bool_(), "Int64", refused="correct its contract"),
    _parquet(pa.string(), "String", _exact("", "café")),
    _parquet(pa.string(), "Int64", {"12": 12, "1.0": REJECTED}),
    _parquet(pa.string(), "List(Int64)", {"[1]": [1], "[1.5]": REJECTED}),
    _parquet(pa.string(), "Duration", {"PT1S": timedelta(seconds=1), "1 s": REJECTED}),
    _parquet(pa.int64(), "boolean(1, 0)", {1: True, 0: False, 2: REJECTED}),
    _parquet(pa.binary(), "Binary", _exact(b"\xff\0", b"")),
    _parquet(pa.binary(), "String", refused="correct its contract"),
    _parquet(pa.date32(), "Date", _exact(date.min, date.max)),
    _parquet(pa.date32(), "utc_time", refused="correct its contract"),
    _parquet(pa.time64("us"), "Time", _exact(time(0), time(23, 59, 59, 999999))),
    _parquet(pa.timestamp("us", "UTC"), "utc_time", {0: datetime(1970, 1, 1, tzinfo=UTC), FAR_US: REJECTED}),
    _parquet(pa.timestamp("ms", "UTC"), "utc_time", {1: datetime(1970, 1, 1, 0, 0, 0, 1000, UTC), FAR_US: REJECTED}),
    _parquet(pa.timestamp("ns", "UTC"), "utc_time", {1000: datetime(1970, 1, 1, 0, 0, 0, 1, UTC), 1500: REJECTED}),
    _parquet(pa.timestamp("us", "America/New_York"), "utc_time", {0: datetime(1970, 1, 1, tzinfo=UTC)}),
    _parquet(pa.timestamp("us"), "utc_time", refused="name no zone"),
    _parquet(pa.duration("ms"), "Duration", {1: timedelta(milliseconds=1)}),
    _parquet(pa.duration("ns"), "Duration", {1000: timedelta(microseconds=1), 1500: REJECTED}),
    _parquet(pa.dictionary(pa.int32(), pa.string()), "Enum([a, b])", {"a": "a", "c": REJECTED}),
    _parquet(pa.null(), "utc_time", {None: None}),
    _parquet(pa.list_(pa.int64()), "List(Int64)", {(1, None): [1, None], (): []}),
    _parquet(pa.list_(pa.int32()), "List(Int64)", {(1, None): [1, None], (): []}),
    _parquet(pa.list_(pa.int64()), "List(Int32)", {(1, None): [1, None], (2**31,): REJECTED}),
    _parquet(pa.list_(pa.int64()), "List(utc_time)", refused="correct its contract"),
    _parquet(
        pa.list_(pa.timestamp("us", "UTC")), "List(utc_time)", {0: [datetime(1970, 1, 1, tzinfo=UTC)], FAR_US: REJECTED}
    ),
    _parquet(
        pa.struct({"at": pa.timestamp("us", "UTC")}),
        "Struct(at: utc_time)",
        {0: {"at": datetime(1970, 1, 1, tzinfo=UTC)}, FAR_US: REJECTED},
    ),
)

CONVERSIONS = (*CSV, *JSON, *PARQUET, *POSTGRESQL, *SQLITE)

REFUSALS = (
    Refusal("JSON", "a line", '{"v":NaN}', "json(NaN or infinity)"),
    Refusal("JSON", "a line", '{"v":-Infinity}', "json(NaN or infinity)"),
    Refusal("JSON", "a line", '{"v":1,"v":1}', "json(duplicate key)"),
    Refusal("JSON", "a line", '{"v":{"a":1,"a":2}}', "json(duplicate key)"),
    Refusal("JSON", "a line", r'{"v":"\ud800"}', "json(lone surrogate)"),
    Refusal("JSON", "a line", '{"v":1', "json(syntax)"),
    Refusal("JSON", "a line", '{"v":01}', "json(syntax)"),
    Refusal("JSON", "a line", "[1]", "json(no object)"),
    Refusal("Parquet", "time64[us]", "24:00:00", "the column v holds the time 24:00:00"),
    Refusal("Parquet", "list<item: time64[us]>", "[24:00:00]", "the column v holds the time 24:00:00"),
    Refusal("PostgreSQL", "timestamp", "'2013-01-01'", "v hold timestamps without a time zone"),
    Refusal("PostgreSQL", "integer[]", "'{{1,2},{3,4}}'", "expected arrays of one dimension that count from 1"),
    Refusal("PostgreSQL", "integer[]", "'[0:1]={1,2}'", "expected arrays of one dimension that count from 1"),
    Refusal("SQLite", "INTEGER", "1.5", "expected every value to be int64"),
    Refusal("SQLite", "INTEGER", "9223372036854775808", "expected every value to be int64"),
    Refusal("SQLite", "REAL", "'abc'", "expected every value to be double"),
    Refusal("SQLite", "NUMERIC", "9007199254740993", "is no 64-bit float"),
    Refusal("SQLite", "TEXT", "x'6162'", "expected every value to be string"),
    Refusal("SQLite", "TEXT", "CAST(x'ff41' AS TEXT)", "Could not decode to UTF-8"),
    Refusal("SQLite", "BLOB", "'ab'", "expected every value to be binary"),
    Refusal("SQLite", "BOOLEAN", "2", "is neither 0 nor 1"),
    Refusal("SQLite", "DATE", "'2013-02-30'", "day is out of range"),
    Refusal("SQLite", "TIMESTAMP", "'2013-01-02 05:00:00'", "expected a timestamp with a UTC offset"),
    Refusal("SQLite", "TIMESTAMP", "'2013-01-01T00:00:00.0000001Z'", "finer than microseconds"),
    Refusal("SQLite", "TIMESTAMP", "'9999-12-31T23:59:59-01:00'", "date value out of range"),
    Refusal("SQLite", "no declared type", "1", "is declared without a type"),
)


def parquet_array(conversion: Conversion) -> pa.Array:
    """The values of a case of Parquet."""
    kind = PARQUET_TYPES[conversion.source_type]
    values: list[Any] = [list(value) if isinstance(value, tuple) else value for value in conversion.outcomes]
    for prefix, from_tick in TICKS.items():
        if conversion.source_type.startswith(prefix):
            return pa.array(map(from_tick, values), _ticks(kind)).cast(kind)
    if pa.types.is_float16(kind):
        return pa.array(values, pa.float32()).cast(kind)
    return pa.array(values, kind)


def _ticks(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(pa.int64())
    return pa.struct({"at": pa.int64()}) if pa.types.is_struct(kind) else pa.int64()


def polars_type(declared: str) -> pl.DataType:
    """The type that is declared."""
    return DECLARED[declared]().dtype
