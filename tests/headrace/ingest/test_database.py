"""Databases: a run reads one consistent snapshot; whatever cannot be read completely and exactly is an error.

No message contains a password.
"""

import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, time
from pathlib import Path

import polars as pl
import pytest
from servers import PostgreSQL, free_port
from weather import INSERT, OLD, PLANES, TABLE, WEATHER, Weather, create_dataset

from headrace.dataset import TableSource
from headrace.errors import HeadraceError, NotConfiguredError
from headrace.ingest.database.backend import (
    DatabaseAccessDeniedError,
    DatabaseError,
    DatabaseUnreachableError,
    NaiveTimestampError,
    NullPartitionError,
    StatementTimeoutError,
)
from headrace.ingest.database.postgresql import PostgreSQLBackend, redact
from headrace.ingest.database.read_transaction import open_read_transaction
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage.table_store import TableStore

INSERT_ODD = "INSERT INTO odd VALUES "


def test_names_that_need_quotes_are_read(weather: Weather) -> None:
    weather.run("""CREATE TABLE "Odd ""Name%s" ("select" INTEGER, "it's %(x)s :y" TEXT)""")
    weather.run("""INSERT INTO "Odd ""Name%s" VALUES (1, 'a')""")

    weather.ingest(TableSource('Odd "Name%s', ("it's %(x)s :y",), "select"))

    assert weather.rows("all").rows() == [(1, "a")]


def test_all_tables_are_read_in_one_transaction(postgresql_weather: Weather) -> None:
    postgresql_weather.run(f"CREATE TABLE planes AS SELECT 'N1' AS tail, '{OLD}'::timestamptz AS updated_at")

    def buy(name: str, done: int, _total: int) -> None:
        if name == "weather" and done == 1:
            postgresql_weather.run("INSERT INTO planes VALUES ('N2', now())")
            postgresql_weather.run("DELETE FROM weather")

    both = create_dataset(weather=WEATHER, planes=PLANES)
    done = ingest(both, postgresql_weather.table_store, Settings(), progress=buy)

    assert [item.rows for item in done] == [18, 1]


def test_a_concurrent_write_is_not_visible_to_a_read_of_sqlite(sqlite_weather: Weather) -> None:
    sqlite_weather.run("PRAGMA journal_mode = wal")
    with open_read_transaction(sqlite_weather.address) as transaction:
        listing = transaction.list_partitions(WEATHER)
        sqlite_weather.run("DELETE FROM weather")
        rows = sum(part.num_rows for _, part in transaction.read_partitions(WEATHER, listing, listing.partitions))

    assert rows == 18


def test_a_row_count_that_differs_from_the_listing_is_an_error(weather: Weather) -> None:
    with open_read_transaction(weather.address) as transaction:
        listing = transaction.list_partitions(WEATHER)
        wrong = replace(
            listing, partitions={name: replace(stats, rows=7) for name, stats in listing.partitions.items()}
        )

        with pytest.raises(DatabaseError, match="weather 2013-01-01: expected the 7 rows that were counted, found 6"):
            list(transaction.read_partitions(WEATHER, wrong, ["2013-01-01"]))


def grow(database: Weather) -> None:
    """Insert more rows than any buffer between the server and us holds."""
    database.run(
        "INSERT INTO weather"
        " SELECT repeat('X', 250) || n, '2013-01-01T00:00Z'::timestamptz + n * interval '1 second', n, now()"
        " FROM generate_series(1, 250000) n"
    )


def test_a_connection_cut_while_reading_is_an_error_with_the_progress_and_the_table_is_left_as_it_is(
    postgresql_weather: Weather,
) -> None:
    postgresql_weather.ingest()
    before = postgresql_weather.table_store.manifest(TABLE).to_files().head
    grow(postgresql_weather)
    assert postgresql_weather.relay is not None
    postgresql_weather.relay.cut_connections(after=10_000_000)

    with pytest.raises(DatabaseUnreachableError) as raised:
        postgresql_weather.ingest()

    message = str(raised.value)
    assert "weather: connection cut while reading partition 2013-01-0" in message
    assert "rows of" in message
    assert "run the same command again" in message
    assert "canary" not in message
    assert postgresql_weather.table_store.manifest(TABLE).to_files().head == before
    assert postgresql_weather.ingest().changed == ("2013-01-01", "2013-01-02", "2013-01-03")


def test_a_backend_that_is_terminated_while_reading_is_the_same_error(postgresql_weather: Weather) -> None:
    grow(postgresql_weather)

    def kill(_name: str, done: int, _total: int) -> None:
        if done == 1:
            postgresql_weather.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'headrace' AND datname = current_database()"
            )

    with pytest.raises(
        DatabaseUnreachableError, match=r"weather: connection cut while reading partition 2013-01-0\d, after \d+ rows"
    ):
        postgresql_weather.ingest(progress=kill)
    assert not postgresql_weather.hashes


def test_partitions_read_before_a_cut_are_not_read_again(postgresql_weather: Weather) -> None:
    def crash(_name: str, done: int, _total: int) -> None:
        if done == 2:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        postgresql_weather.ingest(progress=crash)
    assert not postgresql_weather.hashes

    done = postgresql_weather.ingest()

    assert (done.read, len(done.new)) == (1, 3)


def test_a_wrong_password_is_an_error_that_does_not_show_it(
    postgresql_weather: Weather, postgres: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(postgres, password="canary-wrong").address()  # noqa: S106
    monkeypatch.setenv("HEADRACE_DATABASE_URL", wrong)

    with pytest.raises(
        DatabaseAccessDeniedError, match=r"password authentication failed.*Check user and password"
    ) as raised:
        postgresql_weather.ingest()

    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_password_in_a_driver_message_is_redacted() -> None:
    assert redact("no entry for\n someone:canary@host", "canary") == "no entry for someone:***@host"


def test_a_server_that_is_down_is_retried_until_the_timeout_and_named() -> None:
    port = free_port()
    address = f"postgresql+psycopg://someone:canary@127.0.0.1:{port}/source"

    with (
        pytest.raises(DatabaseUnreachableError, match=rf"127\.0\.0\.1:{port}/source.*refused.*stack status") as raised,
        open_read_transaction(address, retry_timeout_s=0.3),
    ):
        pass

    assert "canary" not in str(raised.value)


def test_a_missing_address_is_an_error_that_names_the_variable(
    sqlite_weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_DATABASE_URL")

    with pytest.raises(
        NotConfiguredError, match="weather: expected the address of its database in HEADRACE_DATABASE_URL"
    ):
        sqlite_weather.ingest()


def test_a_source_may_have_a_database_of_its_own(sqlite_weather: Weather, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_DATABASE_URL")
    monkeypatch.setenv("SKY_DATABASE_URL", sqlite_weather.address)

    assert sqlite_weather.ingest(replace(WEATHER, database="SKY_DATABASE_URL")).rows == 18


@pytest.mark.parametrize(
    "address", ["canary", "mysql://someone:canary@127.0.0.1/source", "postgresql://me:canary@host:port/source"]
)
def test_an_address_that_cannot_be_used_is_an_error_without_the_password(address: str) -> None:
    with pytest.raises(NotConfiguredError, match="postgresql") as raised, open_read_transaction(address):
        pass

    assert "canary" not in str(raised.value)


def test_a_missing_table_is_an_error_that_names_it(weather: Weather) -> None:
    with pytest.raises(DatabaseError, match=r"has no table nowhere\. Correct the source's declaration"):
        weather.ingest(replace(WEATHER, table="nowhere"))


def test_a_missing_column_is_an_error_with_those_there_are(weather: Weather) -> None:
    with pytest.raises(
        DatabaseError, match="weather: expected the columns changed_at, found origin, at, temp, updated_at"
    ):
        weather.ingest(replace(WEATHER, watermark="changed_at"))


def test_rows_without_a_day_are_an_error_that_counts_them(weather: Weather) -> None:
    weather.run(INSERT + f"('LGA', NULL, 1, '{OLD}')")

    with pytest.raises(NullPartitionError, match="weather: 1 row has no UTC day in at"):
        weather.ingest()


@pytest.mark.parametrize("at", ["infinity", "12013-01-01 00:00:00+00:00"])
def test_a_timestamp_out_of_range_belongs_to_no_partition(postgresql_weather: Weather, at: str) -> None:
    postgresql_weather.run(INSERT + f"('LGA', '{at}', 1, '{OLD}')")

    with pytest.raises(NullPartitionError, match="1 row has no UTC day"):
        postgresql_weather.ingest()


def test_timestamps_without_a_time_zone_are_an_error_with_a_way_out(postgresql_weather: Weather) -> None:
    postgresql_weather.run("ALTER TABLE weather ADD COLUMN seen timestamp")

    with pytest.raises(NaiveTimestampError, match=r"weather: seen hold timestamps without a time zone.*AT TIME ZONE"):
        postgresql_weather.ingest()

    postgresql_weather.run(
        "CREATE VIEW zoned AS SELECT origin, at, updated_at, seen AT TIME ZONE 'UTC' AS seen FROM weather"
    )
    assert postgresql_weather.ingest(replace(WEATHER, table="zoned")).rows == 18


def test_a_timestamp_in_sqlite_without_an_offset_is_an_error_with_the_value(sqlite_weather: Weather) -> None:
    sqlite_weather.run(INSERT + f"('LGA', '2013-01-02 05:00:00', 1, '{OLD}')")

    with pytest.raises(
        NaiveTimestampError, match=r"weather\.at: expected a timestamp with a UTC offset.*found 2013-01-02 05:00:00"
    ):
        sqlite_weather.ingest()
    assert not sqlite_weather.hashes


def test_types_that_arrow_lacks_are_read_as_postgresql_s_own_text(postgresql_weather: Weather) -> None:
    postgresql_weather.run(
        "CREATE TABLE odd AS SELECT 1 AS id, 12345678901234567890.1234567890::numeric AS n, '{\"a\": 1}'::jsonb AS j,"
        " '6ecd8c99-4036-403d-bf84-cf8400f67836'::uuid AS u, interval '1 day' AS i, '{1.50}'::numeric[] AS a,"
        " 'ab'::char(3) AS c, true AS b, date '2013-01-01' AS d"
    )

    postgresql_weather.ingest(TableSource("odd", ("id",), "id"))

    row = postgresql_weather.rows("all").drop("b", "d").row(0)
    uuid = "6ecd8c99-4036-403d-bf84-cf8400f67836"
    assert row == (1, "12345678901234567890.1234567890", '{"a": 1}', uuid, "1 day", "{1.50}", "ab ")


def test_a_value_of_another_type_than_its_column_is_an_error_that_names_the_column(sqlite_weather: Weather) -> None:
    sqlite_weather.run(INSERT + f"('LGA', '2013-01-02 05:00:00+00:00', 'warm', '{OLD}')")

    with pytest.raises(DatabaseError, match=r"weather\.temp: expected every value to be double.*warm"):
        sqlite_weather.ingest()


def test_a_column_without_a_declared_type_is_an_error(sqlite_weather: Weather) -> None:
    sqlite_weather.run("CREATE VIEW bare AS SELECT origin, at, updated_at, temp + 1 AS hotter FROM weather")

    with pytest.raises(DatabaseError, match=r"bare\.hotter is declared without a type.*CAST"):
        sqlite_weather.ingest(replace(WEATHER, table="bare"))


def test_a_column_that_starts_with_nulls_keeps_its_type(sqlite_weather: Weather) -> None:
    sqlite_weather.run("ALTER TABLE weather ADD COLUMN remark TEXT")
    sqlite_weather.run(INSERT + f"('ZZZ', '2013-01-03 23:59:00+00:00', 1, '{OLD}', 'hail')")

    sqlite_weather.ingest()

    assert sqlite_weather.rows()["remark"].dtype == pl.String
    assert sqlite_weather.rows("2013-01-03")["remark"].to_list()[-1] == "hail"


def test_a_missing_file_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "missing.db"

    with (
        pytest.raises(DatabaseAccessDeniedError, match=rf"Cannot open {path}: there is no such file"),
        open_read_transaction(f"sqlite:///{path}"),
    ):
        pass

    assert not path.exists()


def test_a_file_that_is_not_a_database_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is not a database, whatever its name says " * 100)

    with pytest.raises(DatabaseError, match="file is not a database"), open_read_transaction(f"sqlite:///{path}"):
        pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("'1234.56'::money", "1234.56"),
        ("'-0.05'::money", "-0.05"),
        ("'1234.56'::amount", "1234.56"),
        ("ARRAY['1.50', NULL]::money[]", "{1.50,NULL}"),
        ("4294967295::oid", "4294967295"),
        ("'sin'::regproc", "sin"),
        (r"""'\377'::"char" """, r"\377"),
        (r"""ARRAY['\377', 'a']::"char"[]""", r'{"\\377",a}'),
        ("time '24:00:00'", "24:00:00"),
        ("timetz '24:00:00+02'", "24:00:00+02"),
        ("ARRAY['24:00', '05:00', NULL]::time[]", "{24:00:00,05:00:00,NULL}"),
        ("ARRAY['2013-01-01']::timestamp[]", '{"2013-01-01 00:00:00"}'),
        ("ARRAY['1.50']::amount[]", "{$1.50}"),
        ("ARRAY[4294967295]::number[]", "{4294967295}"),
        ("tstzrange('2013-01-01Z', 'infinity')", '["2013-01-01 00:00:00+00",infinity)'),
        (
            "ROW('24:00', 'infinity', 4294967295, 1.5, '{{1,2}}')::pair",
            '(24:00:00,infinity,4294967295,$1.50,"{{1,2}}")',
        ),
        ("ARRAY[ROW('24:00', NULL, 1, NULL, NULL)::pair]", '{"(24:00:00,,1,,)"}'),
    ],
)
def test_a_value_of_postgresql_that_arrow_would_change_is_kept_as_text(
    postgresql_weather: Weather, value: str, text: str
) -> None:
    postgresql_weather.run("CREATE DOMAIN amount AS money; CREATE DOMAIN number AS oid")
    postgresql_weather.run("CREATE TYPE pair AS (t time, ts timestamptz, o oid, m money, a int[])")
    postgresql_weather.run(f"CREATE TABLE odd AS SELECT 1 AS id, {value} AS v")

    postgresql_weather.ingest(TableSource("odd", ("id",), "id"))

    assert postgresql_weather.rows("all").rows() == [(1, text)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ARRAY[true, NULL]", [True, None]),
        ("'{}'::int8[]", []),
        ("ARRAY['NaN', '-Infinity', NULL]::float8[]", [pytest.approx(float("nan"), nan_ok=True), float("-inf"), None]),
        (r"ARRAY['\x00ff'::bytea]", [b"\x00\xff"]),
        ("ARRAY['0001-01-01', '9999-12-31']::date[]", [date(1, 1, 1), date(9999, 12, 31)]),
        ("ARRAY['9999-12-31 23:59:59.999999Z']::timestamptz[]", [datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)]),
        ("ARRAY['happy']::mood[]", ["happy"]),
        ("ARRAY['', 'a\"b', NULL]::varchar[]", ["", 'a"b', None]),
    ],
)
def test_an_array_of_values_that_arrow_holds_is_a_list(
    postgresql_weather: Weather, value: str, expected: object
) -> None:
    postgresql_weather.run("CREATE TYPE mood AS ENUM ('happy')")
    postgresql_weather.run(f"CREATE TABLE odd AS SELECT 1 AS id, {value} AS v")

    postgresql_weather.ingest(TableSource("odd", ("id",), "id"))

    assert postgresql_weather.rows("all")["v"].to_list() == [expected]


@pytest.mark.parametrize(("encoding", "text"), [("LATIN1", "café"), ("EUC_JP", "日本")])
def test_text_arrives_whatever_the_encoding_of_the_database(
    postgres: PostgreSQL, postgresql_weather: Weather, monkeypatch: pytest.MonkeyPatch, encoding: str, text: str
) -> None:
    database = postgres.new_database(encoding)
    with postgres.connect(database) as connection:
        connection.execute("SET client_encoding = 'UTF8'")
        connection.execute("CREATE TABLE odd (id int, v text)")
        connection.execute("INSERT INTO odd VALUES (1, %s)", [text])
    monkeypatch.setenv("HEADRACE_DATABASE_URL", postgres.address(database))

    postgresql_weather.ingest(TableSource("odd", ("id",), "id"))

    assert postgresql_weather.rows("all").rows() == [(1, text)]


@pytest.mark.parametrize("value", [r"E'caf\351'", r"ARRAY[E'caf\351']"])
def test_text_that_is_not_utf_8_is_an_error_with_a_way_out(
    postgres: PostgreSQL, postgresql_weather: Weather, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    database = postgres.new_database("SQL_ASCII")
    with postgres.connect(database) as connection:
        connection.execute(f"CREATE TABLE odd AS SELECT 1 AS id, {value} AS v".encode())
    monkeypatch.setenv("HEADRACE_DATABASE_URL", postgres.address(database))

    with pytest.raises(DatabaseError, match=r"odd holds text that is not UTF-8: .*0xe9.*convert_from"):
        postgresql_weather.ingest(TableSource("odd", ("id",), "id"))


DAYS_OF_ODD = """
CREATE TABLE odd AS SELECT id, timestamptz '2013-01-01 12:00Z' + id * interval '1 day' AS at, {value} AS v
FROM generate_series(0, 4) AS id
"""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param("CASE WHEN id % 2 = 1 THEN E'caf\\xe9' ELSE 'tea' END", "not UTF-8", id="when it is read"),
        pytest.param("CASE WHEN id % 2 = 1 THEN '{{1},{2}}' ELSE '{1}' END::int[]", "::text AS v", id="when counted"),
    ],
)
def test_days_that_cannot_be_read_do_not_stop_the_others_of_their_table(
    postgres: PostgreSQL, postgresql_weather: Weather, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    database = postgres.new_database("SQL_ASCII")
    with postgres.connect(database) as connection:
        connection.execute(DAYS_OF_ODD.format(value=value).encode())
    monkeypatch.setenv("HEADRACE_DATABASE_URL", postgres.address(database))
    odd = TableSource("odd", ("id",), "id", "at")

    with pytest.raises(HeadraceError) as failed:
        postgresql_weather.ingest(odd)
    with postgres.connect(database) as connection:
        connection.execute(b"UPDATE odd SET v = (SELECT v FROM odd WHERE id = 0), id = id + 10 WHERE id % 2 = 1")
    result = postgresql_weather.ingest(odd)

    assert [day for day in range(1, 6) if f"2013-01-{day:02}" in str(failed.value)] == [2, 4]
    assert message in str(failed.value)
    assert result.read == 2, "the others were remembered"
    assert sorted(postgresql_weather.hashes) == [f"2013-01-{day:02}" for day in range(1, 6)]


def test_a_day_that_changed_after_an_error_of_another_is_not_taken_for_the_one_that_was_listed(
    postgres: PostgreSQL, postgresql_weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres.new_database("SQL_ASCII")
    with postgres.connect(database) as connection:
        connection.execute(DAYS_OF_ODD.format(value="CASE id WHEN 0 THEN E'caf\\xe9' ELSE 'tea' END").encode())
    monkeypatch.setenv("HEADRACE_DATABASE_URL", postgres.address(database))
    restart_transaction = PostgreSQLBackend.restart_transaction

    def change_and_restart(self: PostgreSQLBackend) -> None:
        with postgres.connect(database) as connection:
            connection.execute(b"UPDATE odd SET v = 'milk', id = 13 WHERE id IN (3, 13)")
        restart_transaction(self)

    monkeypatch.setattr(PostgreSQLBackend, "restart_transaction", change_and_restart)

    with pytest.raises(HeadraceError) as failed:
        postgresql_weather.ingest(TableSource("odd", ("id",), "id", "at"))

    assert "2013-01-04" in str(failed.value)
    assert "its rows changed while the table was read. Run the same command again." in str(failed.value)
    assert "2013-01-02" not in str(failed.value)


def test_beside_midnight_at_the_end_of_a_day_other_times_are_text_too(postgresql_weather: Weather) -> None:
    postgresql_weather.run("CREATE TABLE odd (id int, v time, w time)")
    postgresql_weather.run(
        "INSERT INTO odd VALUES (1, '24:00', '23:59:59.999999'), (2, '00:00:00.5', NULL), (3, NULL, NULL)"
    )

    postgresql_weather.ingest(TableSource("odd", ("id",), "id"))

    rows = postgresql_weather.rows("all")
    assert rows["v"].to_list() == ["24:00:00", "00:00:00.500000", None]
    assert rows["w"].to_list() == [time(23, 59, 59, 999999), None, None]


@pytest.mark.parametrize("value", ["{{1,2},{3,4}}", "[0:1]={1,2}", "[2:3]={1,2}"])
def test_an_array_that_a_list_does_not_show_is_an_error_with_a_way_out(postgresql_weather: Weather, value: str) -> None:
    postgresql_weather.run(f"CREATE TABLE odd AS SELECT 1 AS id, '{value}'::int[] AS v")

    with pytest.raises(DatabaseError, match=r"odd all: .* found 1 others in v\. .*`v::text AS v`"):
        postgresql_weather.ingest(TableSource("odd", ("id",), "id"))

    postgresql_weather.run("CREATE VIEW plain AS SELECT id, v::text AS v FROM odd")
    postgresql_weather.ingest(TableSource("plain", ("id",), "id"))
    assert postgresql_weather.rows("all").rows() == [(1, value)]


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("INTEGER", "1.5", "found 1.5: it is stored as float"),
        ("INTEGER", "1e300", "found 1e+300: it is stored as float"),
        ("INTEGER", "'abc'", "found 'abc': it is stored as str"),
        ("REAL", "'abc'", "found 'abc': it is stored as str"),
        ("NUMERIC", "9007199254740993", "found 9007199254740993: it is no 64-bit float"),
        ("TEXT", "CAST(x'6162' AS BLOB)", "found b'ab': it is stored as bytes"),
        ("TEXT", "CAST(x'ff41' AS TEXT)", "column 'v'"),
        ("BLOB", "'ab'", "found 'ab': it is stored as str"),
        ("BOOLEAN", "2", "found 2: it is neither 0 nor 1"),
        ("DATE", "20130101", "found 20130101: it is stored as int"),
        ("DATE", "'2013-02-30'", "found '2013-02-30': day is out of range"),
        ("DATE", "x'00'", "found b'\\x00': it is stored as bytes"),
        ("TIMESTAMP", "'2013-01-01T00:00:00.0000001Z'", "found '2013-01-01T00:00:00.0000001Z': it is finer"),
        ("TIMESTAMP", "1357000000", "found 1357000000: it is stored as int"),
        ("TIMESTAMP", "'0001-01-01 00:00:00+01:00'", "found '0001-01-01 00:00:00+01:00': date value out of range"),
    ],
)
def test_a_value_of_sqlite_that_is_none_of_its_column_is_an_error_that_names_table_column_and_value(
    sqlite_weather: Weather, kind: str, value: str, found: str
) -> None:
    sqlite_weather.run(f"CREATE TABLE odd (id INTEGER, v {kind})")
    sqlite_weather.run(INSERT_ODD + f"(1, NULL), (2, {value})")

    with pytest.raises(DatabaseError, match=rf"odd.*{re.escape(found)}"):
        sqlite_weather.ingest(TableSource("odd", ("id",), "id"))
    assert not sqlite_weather.hashes


def test_values_at_the_ends_of_their_type_come_from_sqlite_as_they_are(sqlite_weather: Weather) -> None:
    sqlite_weather.run("CREATE TABLE odd (id INTEGER, i INTEGER, r REAL, n NUMERIC, t TIMESTAMP, d DATE, b BLOB)")
    row = (2**63 - 1, 1.7976931348623157e308, 2**53, "0001-01-01T00:00:00.000001Z", "9999-12-31", "x''")
    sqlite_weather.run(INSERT_ODD + f"(1, {row[0]}, {row[1]!r}, {row[2]}, '{row[3]}', '{row[4]}', {row[5]})")
    sqlite_weather.run(INSERT_ODD + f"(2, {-(2**63)}, 9e999, 0.5, '9999-12-31T23:59:59.9999990Z', '0001-01-01', x'ff')")

    sqlite_weather.ingest(TableSource("odd", ("id",), "id"))

    first, last = datetime(1, 1, 1, 0, 0, 0, 1, UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)
    assert sqlite_weather.rows("all").drop("id").rows() == [
        (2**63 - 1, 1.7976931348623157e308, float(2**53), first, date(9999, 12, 31), b""),
        (-(2**63), float("inf"), 0.5, last, date(1, 1, 1), b"\xff"),
    ]


def test_generated_columns_of_sqlite_are_read(sqlite_weather: Weather) -> None:
    sqlite_weather.run("CREATE TABLE odd (id INTEGER, twice INTEGER AS (id * 2) STORED, thrice INTEGER AS (id * 3))")
    sqlite_weather.run("INSERT INTO odd (id) VALUES (5)")

    sqlite_weather.ingest(TableSource("odd", ("id",), "id"))

    assert sqlite_weather.rows("all").rows() == [(5, 10, 15)]


def sqlite_rows(folder: Path, source: TableSource, *statements: str) -> Mapping[str, pl.DataFrame]:
    """The raw partitions of a table of SQLite."""
    with pytest.MonkeyPatch.context() as patch, closing(sqlite3.connect(folder / "source.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        patch.setenv("HEADRACE_DATABASE_URL", f"sqlite:///{folder / 'source.db'}")
        table_store = TableStore.at(folder / "tables")
        list(ingest(create_dataset(odd=source), table_store, Settings()))
    return {name: pl.read_parquet(path) for name, path in table_store.paths("raw/sky/odd").items()}


@pytest.mark.parametrize(("table", "name"), [('"a.b"', "a.b"), ("b", "main.b"), ('"main.b"', "main.b"), ("b", "b")])
def test_tables_of_sqlite_may_have_a_dot_in_their_name_or_a_database_before_it(
    tmp_path: Path, table: str, name: str
) -> None:
    source = TableSource(name, ("id",), "id")

    rows = sqlite_rows(tmp_path, source, f"CREATE TABLE {table} (id INTEGER)", f"INSERT INTO {table} VALUES (7)")  # noqa: S608

    assert rows["all"].rows() == [(7,)]


def test_a_column_may_have_no_name(tmp_path: Path) -> None:
    statements = ('CREATE TABLE t (id INTEGER, "" INTEGER, column_1 INTEGER)', "INSERT INTO t VALUES (1, 2, 3)")

    rows = sqlite_rows(tmp_path, TableSource("t", ("id",), "id"), *statements)

    assert rows["all"].to_dicts() == [{"id": 1, "": 2, "column_1": 3}]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("'2013-1-9'", "'2013-1-9'"),
        ("'20130109'", "'20130109'"),
        ("'2013-02-30'", "2013-02-30"),
        ("'10000-01-01'", "'10000-01-01'"),
        ("1357707600", "'1357707600'"),
        ("''", "''"),
        ("NULL", "NULL"),
    ],
)
@pytest.mark.parametrize("kind", ["TIMESTAMP", "DATE"])
def test_a_value_of_sqlite_that_is_no_day_is_shown_with_the_forms_that_are(
    tmp_path: Path, value: str, found: str, kind: str
) -> None:
    source = TableSource("t", ("id",), "id", partition_by="at")
    statements = (f"CREATE TABLE t (id INTEGER, at {kind})", f"INSERT INTO t VALUES (1, {value})")  # noqa: S608

    with pytest.raises(
        NullPartitionError, match=rf"t: 1 row has no UTC day in at \(found {found}; expected the text 2013-01-09"
    ):
        sqlite_rows(tmp_path, source, *statements)


SLOW = "CREATE VIEW slow AS SELECT weather.*, pg_sleep(0.2)::text AS nap FROM weather"


def test_a_statement_that_takes_too_long_is_given_up_and_named_with_the_setting(postgresql_weather: Weather) -> None:
    postgresql_weather.run(SLOW)
    slow = create_dataset(weather=replace(WEATHER, table="slow", watermark="nap"), other=WEATHER)

    with pytest.raises(
        StatementTimeoutError, match=r"slow took longer than HEADRACE_STATEMENT_TIMEOUT_S \(0\.1 s\)"
    ) as e:
        ingest(slow, postgresql_weather.table_store, Settings(statement_timeout_s=0.1))

    assert e.value.is_transient
    assert postgresql_weather.table_store.manifest("raw/sky/other").rows == 18, "the next table is read"


@pytest.mark.parametrize(("own", "limit_s", "counts"), [("3min", 60, "1min"), ("20s", 60, "20s"), ("20s", 0, "20s")])
def test_a_shorter_limit_of_the_address_stays(
    postgresql_weather: Weather, own: str, limit_s: float, counts: str
) -> None:
    address = f"{postgresql_weather.address}?options=-c%20statement_timeout%3D{own}"

    with open_read_transaction(address, statement_timeout_s=limit_s) as transaction:
        found = transaction.backend.fetch_all("SELECT current_setting('statement_timeout')", "none")

    assert found == [(counts,)]
