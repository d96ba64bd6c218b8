"""source → raw, for database tables: rows as canonical Parquet, a partition a UTC day, all from one moment.

Only partitions whose rows, watermark or columns changed are read again; a table is whole or as it was.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from servers import PostgreSQL, Relay, free_port

from pipelines.dataset import Dataset, Query, Source
from pipelines.errors import NotConfiguredError
from pipelines.ingest import EmptyListingError, Ingested, Progress, ingest
from pipelines.settings import Settings
from pipelines.systems.database import snapshot
from pipelines.systems.sql import DatabaseError, DatabaseUnreachableError, NoPartitionError, ZonelessTimeError
from pipelines.table import Lake

TABLE = "raw/sky/weather"
WEATHER = Query("weather", ("origin", "at"), "updated_at", "at")
PLANES = Query("planes", ("tail",), "updated_at")
OLD = "2013-01-05 00:00:00+00:00"
NEW = "2013-02-01 00:00:00+00:00"
INSERT = "INSERT INTO weather VALUES "


def source(name: str, query: Query) -> Source:
    return Source(name, query, pl.read_parquet, None, lambda rows: rows, query.key)


def dataset(**queries: Query) -> Dataset:
    return Dataset("sky", "", "", tuple(source(name, query) for name, query in queries.items()))


@dataclass(frozen=True)
class Setup:
    """A database with weather of three days, and an empty workspace."""

    address: str
    run: Callable[[str], object]
    lake: Lake
    relay: Relay | None = None

    def ingest(
        self,
        query: Query = WEATHER,
        *,
        full: bool = False,
        allow_empty: bool = False,
        progress: Progress = lambda _source, _done, _total: None,
    ) -> Ingested:
        """Run what is tested."""
        one = dataset(weather=query)
        return ingest(one, self.lake, Settings(), full=full, allow_empty=allow_empty, progress=progress)[0]

    def rows(self, partition: str = "2013-01-01") -> pl.DataFrame:
        """Rows of a raw partition."""
        return pl.read_parquet(self.lake.paths(TABLE)[partition])

    @property
    def hashes(self) -> dict[str, str]:
        """Partition → md5."""
        return {name: entry.md5 for name, entry in self.lake.manifest(TABLE).partitions.items()}

    @property
    def reads(self) -> int:
        """Statements that asked for rows of the weather."""
        assert self.relay is not None
        return self.relay.count(b'COPY (SELECT "origin", "at"')


def fill(run: Callable[[str], object], instant: str, *, backwards: bool = False) -> None:
    """Weather of three UTC days, the first hour of each written with another offset than UTC."""
    run(f"CREATE TABLE weather (origin TEXT, at {instant}, temp REAL, updated_at {instant})")
    rows = [
        f"('{origin}', '2013-01-{day:02} {hour:02}:30:00+00:00', {day}.5, '{OLD}')"
        for day in (1, 2, 3)
        for hour in (0, 12, 23)
        for origin in ("EWR", "JFK")
    ]
    for row in reversed(rows) if backwards else rows:
        run(INSERT + row)


@pytest.fixture(scope="module")
def database(postgres: PostgreSQL) -> str:
    return postgres.new_database()


@pytest.fixture
def postgresql(
    postgres: PostgreSQL, database: str, relay: Callable[[int], Relay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Setup:
    name, front = database, relay(postgres.port)

    def run(statement: str) -> object:
        with postgres.connect(name) as connection:
            return connection.execute(statement.encode())

    monkeypatch.setenv("HEADRACE_DATABASE_URL", postgres.address(name, port=front.port))
    run("DROP SCHEMA public CASCADE")
    run("CREATE SCHEMA public")
    fill(run, "timestamptz")
    return Setup(postgres.address(name, port=front.port), run, Lake.at(tmp_path), front)


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    path = tmp_path / "source.db"

    def run(statement: str) -> object:
        connection = sqlite3.connect(path)
        try:
            with connection:
                return connection.execute(statement)
        finally:
            connection.close()

    monkeypatch.setenv("HEADRACE_DATABASE_URL", f"sqlite:///{path}")
    fill(run, "TIMESTAMP")
    return Setup(f"sqlite:///{path}", run, Lake.at(tmp_path / "workspace"))


@pytest.fixture(params=["postgresql", "sqlite"])
def here(request: pytest.FixtureRequest) -> Setup:
    found: Setup = request.getfixturevalue(request.param)
    return found


def test_rows_become_one_file_a_utc_day_in_the_order_of_their_key(here: Setup) -> None:
    done = here.ingest()

    assert done.new == ("2013-01-01", "2013-01-02", "2013-01-03")
    assert (done.read, done.rows) == (3, 18)
    rows = here.rows()
    assert rows.select("origin", "at").rows() == [
        (origin, datetime(2013, 1, 1, hour, 30, tzinfo=UTC)) for origin in ("EWR", "JFK") for hour in (0, 12, 23)
    ]
    assert rows.schema["at"] == rows.schema["updated_at"] == pl.Datetime("us", "UTC")


def test_each_partition_says_what_was_asked_and_counted(here: Setup) -> None:
    here.ingest()

    entry = here.lake.manifest(TABLE).partitions["2013-01-02"]

    assert entry.rows == 6
    facts = entry.facts["query"]
    assert (facts["table"], facts["where"], facts["rows"]) == ("weather", "UTC day of at = 2013-01-02", 6)
    assert facts["watermark"].startswith("2013-01-05")


def test_a_time_belongs_to_its_utc_day_whatever_offset_it_was_written_with(here: Setup) -> None:
    here.run(INSERT + f"('LGA', '2013-01-01 22:00:00-05:00', 1, '{OLD}')")

    here.ingest()

    assert "LGA" in here.rows("2013-01-02")["origin"]


def test_a_second_run_reads_no_partition_and_leaves_the_same_manifest(here: Setup) -> None:
    here.ingest()
    before = here.lake.manifest(TABLE).to_bytes()

    done = here.ingest()

    assert (done.new, done.changed, done.deleted, done.read, done.rows) == ((), (), (), 0, 0)
    assert here.lake.manifest(TABLE).to_bytes() == before


def test_a_second_run_asks_postgresql_for_no_row(postgresql: Setup) -> None:
    postgresql.ingest()
    assert postgresql.reads == 1

    postgresql.ingest()

    assert postgresql.reads == 1


def test_a_changed_row_makes_its_day_alone_be_read_again(here: Setup) -> None:
    here.ingest()
    before = here.hashes
    here.run(
        "UPDATE weather SET temp = 99, updated_at = '2013-02-01 00:00:00+00:00'"
        " WHERE origin = 'JFK' AND at = '2013-01-02 12:30:00+00:00'"
    )

    done = here.ingest()

    assert (done.new, done.changed, done.deleted) == ((), ("2013-01-02",), ())
    assert (done.read, done.rows) == (1, 6)
    assert 99 in here.rows("2013-01-02")["temp"]
    assert {name: md5 for name, md5 in here.hashes.items() if name != "2013-01-02"} == {
        name: md5 for name, md5 in before.items() if name != "2013-01-02"
    }


def test_a_row_deleted_in_the_database_is_deleted_here(here: Setup) -> None:
    here.ingest()
    here.run("DELETE FROM weather WHERE origin = 'JFK' AND at = '2013-01-02 12:30:00+00:00'")

    done = here.ingest()

    assert done.changed == ("2013-01-02",)
    assert here.rows("2013-01-02").height == 5


def test_a_day_deleted_in_the_database_is_deleted_here_and_reported(here: Setup) -> None:
    here.ingest()
    here.run("DELETE FROM weather WHERE at < '2013-01-02'")

    done = here.ingest()

    assert (done.changed, done.deleted, done.read) == ((), ("2013-01-01",), 0)
    assert sorted(here.hashes) == ["2013-01-02", "2013-01-03"]


def test_late_rows_and_new_days_are_read(here: Setup) -> None:
    here.ingest()
    here.run(INSERT + f"('LGA', '2013-01-01 05:30:00+00:00', 1, '{OLD}')")
    here.run(INSERT + f"('LGA', '2013-01-09 05:30:00+00:00', 1, '{NEW}')")

    done = here.ingest()

    assert (done.new, done.changed, done.rows) == (("2013-01-09",), ("2013-01-01",), 8)


def test_a_row_replaced_by_another_below_the_watermark_is_seen(here: Setup) -> None:
    here.ingest()
    here.run("DELETE FROM weather WHERE origin = 'JFK' AND at = '2013-01-02 12:30:00+00:00'")
    here.run("INSERT INTO weather VALUES ('LGA', '2013-01-02 12:30:00+00:00', 1, '2013-01-04 00:00:00+00:00')")

    assert here.ingest().changed == ("2013-01-02",)


def test_an_update_that_leaves_the_watermark_is_seen_by_a_full_read_only(here: Setup) -> None:
    here.ingest()
    here.run("UPDATE weather SET temp = 7 WHERE at < '2013-01-02'")

    assert here.ingest().changed == ()
    done = here.ingest(full=True)

    assert (done.changed, done.read) == (("2013-01-01",), 3)
    assert here.rows()["temp"].unique().to_list() == [7]


def test_equal_rows_are_equal_bytes_in_whatever_order_the_database_gives_them(here: Setup, tmp_path: Path) -> None:
    here.ingest()
    before = here.hashes
    here.run("DROP TABLE weather")
    fill(here.run, "TIMESTAMP" if here.relay is None else "timestamptz", backwards=True)
    other = replace(here, lake=Lake.at(tmp_path / "other"))

    other.ingest()

    assert other.hashes == before


def test_a_new_column_makes_every_partition_be_read_again(here: Setup) -> None:
    here.ingest()
    here.run("ALTER TABLE weather ADD COLUMN humid REAL")

    assert here.ingest().read == 3
    assert here.rows().columns == ["origin", "at", "temp", "updated_at", "humid"]


def test_a_table_without_partitions_is_the_partition_all(here: Setup) -> None:
    done = here.ingest(replace(WEATHER, partition_by=None))

    assert done.new == ("all",)
    assert here.rows("all").height == 18


def test_names_that_need_quotes_are_read(here: Setup) -> None:
    here.run("""CREATE TABLE "Odd ""Name%s" ("select" INTEGER, "it's %(x)s :y" TEXT)""")
    here.run("""INSERT INTO "Odd ""Name%s" VALUES (1, 'a')""")

    here.ingest(Query('Odd "Name%s', ("it's %(x)s :y",), "select"))

    assert here.rows("all").rows() == [(1, "a")]


def test_all_tables_come_from_one_moment(postgresql: Setup) -> None:
    postgresql.run(f"CREATE TABLE planes AS SELECT 'N1' AS tail, '{OLD}'::timestamptz AS updated_at")

    def buy(name: str, done: int, _total: int) -> None:
        if name == "weather" and done == 1:
            postgresql.run("INSERT INTO planes VALUES ('N2', now())")
            postgresql.run("DELETE FROM weather")

    both = dataset(weather=WEATHER, planes=PLANES)
    done = ingest(both, postgresql.lake, Settings(), progress=buy)

    assert [item.rows for item in done] == [18, 1]


def test_a_writer_during_the_read_does_not_show_in_sqlite(sqlite: Setup) -> None:
    sqlite.run("PRAGMA journal_mode = wal")
    with snapshot(sqlite.address) as moment:
        listing = moment.listing(WEATHER)
        sqlite.run("DELETE FROM weather")
        rows = sum(part.num_rows for _, part in moment.read(WEATHER, listing, listing.groups))

    assert rows == 18


def grow(setup: Setup) -> None:
    """Enough rows that no buffer on the way holds them all."""
    setup.run(
        "INSERT INTO weather"
        " SELECT repeat('X', 250) || n, '2013-01-01T00:00Z'::timestamptz + n * interval '1 second', n, now()"
        " FROM generate_series(1, 250000) n"
    )


def test_a_connection_cut_while_reading_is_an_error_that_says_how_far_it_came_and_the_table_stays(
    postgresql: Setup,
) -> None:
    postgresql.ingest()
    before = postgresql.lake.manifest(TABLE).to_bytes()
    grow(postgresql)
    assert postgresql.relay is not None
    postgresql.relay.cut(after=10_000_000)

    with pytest.raises(DatabaseUnreachableError) as raised:
        postgresql.ingest()

    message = str(raised.value)
    assert "weather: cut while reading partition 2013-01-0" in message
    assert "rows of" in message
    assert "run the same command again" in message
    assert "canary" not in message
    assert postgresql.lake.manifest(TABLE).to_bytes() == before
    assert postgresql.ingest().changed == ("2013-01-01", "2013-01-02", "2013-01-03")


def test_a_backend_that_is_terminated_while_reading_is_the_same_error(postgresql: Setup) -> None:
    grow(postgresql)

    def kill(_name: str, done: int, _total: int) -> None:
        if done == 1:
            postgresql.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'headrace' AND datname = current_database()"
            )

    with pytest.raises(
        DatabaseUnreachableError, match=r"weather: cut while reading partition 2013-01-0\d, after \d+ rows"
    ):
        postgresql.ingest(progress=kill)
    assert not postgresql.hashes


def test_partitions_read_before_a_cut_are_not_read_again(postgresql: Setup) -> None:
    def crash(_name: str, done: int, _total: int) -> None:
        if done == 2:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        postgresql.ingest(progress=crash)
    assert not postgresql.hashes

    done = postgresql.ingest()

    assert (done.read, len(done.new)) == (1, 3)


def test_a_wrong_password_is_an_error_that_does_not_show_it(
    postgresql: Setup, postgres: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(postgres, password="canary-wrong").address()  # noqa: S106
    monkeypatch.setenv("HEADRACE_DATABASE_URL", wrong)

    with pytest.raises(
        DatabaseUnreachableError, match=r"password authentication failed.*Check user and password"
    ) as raised:
        postgresql.ingest()

    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_server_that_is_down_is_tried_for_the_time_allowed_and_named() -> None:
    port = free_port()
    address = f"postgresql+psycopg://someone:canary@127.0.0.1:{port}/source"

    with (
        pytest.raises(DatabaseUnreachableError, match=rf"127\.0\.0\.1:{port}/source.*refused.*stack status") as raised,
        snapshot(address, patience=0.3),
    ):
        pass

    assert "canary" not in str(raised.value)


def test_no_address_is_an_error_that_names_the_variable(sqlite: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_DATABASE_URL")

    with pytest.raises(
        NotConfiguredError, match="weather: expected the address of its database in HEADRACE_DATABASE_URL"
    ):
        sqlite.ingest()


def test_a_source_may_have_a_database_of_its_own(sqlite: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_DATABASE_URL")
    monkeypatch.setenv("SKY_DATABASE_URL", sqlite.address)

    assert sqlite.ingest(replace(WEATHER, database="SKY_DATABASE_URL")).rows == 18


@pytest.mark.parametrize("address", ["canary", "mysql://someone:canary@127.0.0.1/source"])
def test_an_address_that_cannot_be_used_is_an_error_without_the_password(address: str) -> None:
    with pytest.raises(NotConfiguredError, match="postgresql") as raised, snapshot(address):
        pass

    assert "canary" not in str(raised.value)


def test_a_missing_table_is_an_error_that_names_it(here: Setup) -> None:
    with pytest.raises(DatabaseError, match=r"has no table nowhere\. Fix the source's declaration"):
        here.ingest(replace(WEATHER, table="nowhere"))


def test_a_missing_column_is_an_error_with_those_there_are(here: Setup) -> None:
    with pytest.raises(
        DatabaseError, match="weather: expected the columns changed_at, seen origin, at, temp, updated_at"
    ):
        here.ingest(replace(WEATHER, watermark="changed_at"))


def test_rows_without_a_day_are_an_error_that_counts_them(here: Setup) -> None:
    here.run(INSERT + f"('LGA', NULL, 1, '{OLD}')")

    with pytest.raises(NoPartitionError, match="weather: 1 rows have no UTC day in at"):
        here.ingest()


def test_an_infinite_time_has_no_day(postgresql: Setup) -> None:
    postgresql.run(INSERT + f"('LGA', 'infinity', 1, '{OLD}')")

    with pytest.raises(NoPartitionError, match="1 rows have no UTC day"):
        postgresql.ingest()


def test_an_empty_table_does_not_empty_ours_unless_that_is_said(here: Setup) -> None:
    here.ingest()
    here.run("DELETE FROM weather")

    with pytest.raises(EmptyListingError, match=rf"{TABLE} has 3 partitions, but the table weather .* shows none"):
        here.ingest()

    assert here.ingest(allow_empty=True).deleted == ("2013-01-01", "2013-01-02", "2013-01-03")


def test_times_without_a_zone_are_refused_with_the_way_out(postgresql: Setup) -> None:
    postgresql.run("ALTER TABLE weather ADD COLUMN seen timestamp")

    with pytest.raises(ZonelessTimeError, match=r"weather: seen hold times without a zone.*AT TIME ZONE"):
        postgresql.ingest()

    postgresql.run("CREATE VIEW zoned AS SELECT origin, at, updated_at, seen AT TIME ZONE 'UTC' AS seen FROM weather")
    assert postgresql.ingest(replace(WEATHER, table="zoned")).rows == 18


def test_a_time_that_sqlite_holds_without_a_zone_is_refused_with_the_value(sqlite: Setup) -> None:
    sqlite.run(INSERT + f"('LGA', '2013-01-02 05:00:00', 1, '{OLD}')")

    with pytest.raises(
        ZonelessTimeError, match=r"weather\.at: expected a time with its zone.*seen 2013-01-02 05:00:00"
    ):
        sqlite.ingest()
    assert not sqlite.hashes


def test_types_that_arrow_lacks_come_as_postgresql_s_own_text(postgresql: Setup) -> None:
    postgresql.run(
        "CREATE TABLE odd AS SELECT 1 AS id, 12345678901234567890.1234567890::numeric AS n, '{\"a\": 1}'::jsonb AS j,"
        " '6ecd8c99-4036-403d-bf84-cf8400f67836'::uuid AS u, interval '1 day' AS i, '{1.50}'::numeric[] AS a,"
        " 'ab'::char(3) AS c, true AS b, date '2013-01-01' AS d"
    )

    postgresql.ingest(Query("odd", ("id",), "id"))

    row = postgresql.rows("all").drop("b", "d").row(0)
    uuid = "6ecd8c99-4036-403d-bf84-cf8400f67836"
    assert row == (1, "12345678901234567890.1234567890", '{"a": 1}', uuid, "1 day", "{1.50}", "ab ")


def test_a_value_that_is_not_of_its_column_s_type_is_refused_by_name(sqlite: Setup) -> None:
    sqlite.run(INSERT + f"('LGA', '2013-01-02 05:00:00+00:00', 'warm', '{OLD}')")

    with pytest.raises(DatabaseError, match=r"weather\.temp: expected every value to be double.*warm"):
        sqlite.ingest()


def test_a_column_of_no_declared_type_is_refused(sqlite: Setup) -> None:
    sqlite.run("CREATE VIEW bare AS SELECT origin, at, updated_at, temp + 1 AS hotter FROM weather")

    with pytest.raises(DatabaseError, match=r"bare\.hotter is declared without a type.*CAST"):
        sqlite.ingest(replace(WEATHER, table="bare"))


def test_a_column_that_begins_with_nulls_keeps_its_type(sqlite: Setup) -> None:
    sqlite.run("ALTER TABLE weather ADD COLUMN remark TEXT")
    sqlite.run(INSERT + f"('ZZZ', '2013-01-03 23:59:00+00:00', 1, '{OLD}', 'hail')")

    sqlite.ingest()

    assert sqlite.rows()["remark"].dtype == pl.String
    assert sqlite.rows("2013-01-03")["remark"].to_list()[-1] == "hail"


def test_a_file_that_is_not_there_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "missing.db"

    with (
        pytest.raises(DatabaseUnreachableError, match=rf"Cannot open {path}: there is no such file"),
        snapshot(f"sqlite:///{path}"),
    ):
        pass

    assert not path.exists()


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is no database, whatever its name may say " * 100)

    with pytest.raises(DatabaseError, match="file is not a database"), snapshot(f"sqlite:///{path}"):
        pass
