"""A query as a source: one SELECT, read in the snapshot of the tables; its columns have names, types and partitions."""

from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest
from weather import INSERT, NEW, TABLE, WEATHER, Weather, create_dataset

from headrace.dataset import TableSource
from headrace.errors import HeadraceError
from headrace.ingest.database.backend import DatabaseError, NullPartitionError
from headrace.ingest.ingest import ingest
from headrace.partitions import Monthly
from headrace.settings import Settings

WARM = TableSource(
    query="SELECT at, origin, temp AS warmth, updated_at FROM weather WHERE temp > 1.5",
    key=("origin", "at"),
    watermark="updated_at",
    partition_by="at",
)


def query(sql: str, **declared: object) -> TableSource:
    return replace(TableSource(query=sql, key=("origin",)), **declared)  # type: ignore[arg-type]


def test_the_columns_of_a_query_are_read_with_its_names_and_the_order_of_its_columns(weather: Weather) -> None:
    done = weather.ingest(WARM)

    assert done.new == ("2013-01-02", "2013-01-03")
    rows = weather.rows("2013-01-02")
    assert rows.columns == ["at", "origin", "warmth", "updated_at"]
    assert rows["at"].dtype == pl.Datetime("us", "UTC")
    assert rows["at"].min() == datetime(2013, 1, 2, 0, 30, tzinfo=UTC)
    assert rows["warmth"].to_list() == [2.5] * 6


def test_a_query_reads_only_the_partitions_that_have_changed(weather: Weather) -> None:
    weather.ingest(WARM)
    weather.run(INSERT + f"('EWR', '2013-01-03 05:30:00+00:00', 0.5, '{NEW}')")
    invisible = weather.ingest(WARM)
    weather.run(INSERT + f"('EWR', '2013-01-03 05:30:00+00:00', 3.5, '{NEW}')")

    assert (invisible.read, invisible.changed) == (0, ())
    assert weather.ingest(WARM).changed == ("2013-01-03",)


def test_another_query_with_the_same_rows_changes_no_partition(weather: Weather) -> None:
    weather.ingest(WARM)

    again = weather.ingest(replace(WARM, query=WARM.query + " AND 1 = 1"))

    assert (again.read, again.changed) == (2, ())


@pytest.mark.parametrize("end", ["; ;", " -- the warm; ones", "\n;\n-- it's done"])
def test_a_semicolon_or_a_comment_at_the_end_is_no_part_of_the_query(weather: Weather, end: str) -> None:
    assert weather.ingest(replace(WARM, query=WARM.query + end)).rows == 12


def test_marks_that_drivers_take_for_parameters_are_text(weather: Weather) -> None:
    marks = "50% of 'it''s' :origin %s %(x)s ? $1 {0} \\d;--"
    quoted = "'" + marks.replace("'", "''") + "'"
    weather.run(f"""UPDATE weather SET origin = {quoted} WHERE temp = 1.5""")  # noqa: S608

    cast = "temp::real" if weather.relay else "temp"
    weather.ingest(query(f'SELECT origin, {cast} AS "100%" FROM weather WHERE origin = {quoted}'))  # noqa: S608

    assert weather.rows("all")["origin"].unique().to_list() == [marks]


def test_the_types_of_expressions_are_those_that_postgresql_reports(postgresql_weather: Weather) -> None:
    postgresql_weather.ingest(
        query(
            "WITH days AS (SELECT origin, at::date AS day, temp FROM weather) SELECT origin, day, count(*) AS hours,"
            " avg(temp)::real AS temp, NULL::boolean AS wet, array_agg(temp) AS temps FROM days GROUP BY 1, 2",
            key=("origin", "day"),
            partition_by="day",
        )
    )

    assert dict(postgresql_weather.rows().schema) == {
        "origin": pl.String,
        "day": pl.Date,
        "hours": pl.Int64,
        "temp": pl.Float32,
        "wet": pl.Boolean,
        "temps": pl.List(pl.Float32),
    }
    assert postgresql_weather.rows()["hours"].to_list() == [3, 3]


def test_the_types_of_expressions_in_sqlite_are_those_that_they_are_cast_to(sqlite_weather: Weather) -> None:
    sql = "SELECT origin, {} AS hours, CAST(max(temp) AS REAL) AS temp FROM weather GROUP BY 1"
    with pytest.raises(DatabaseError, match=r"hours is declared without a type.*CAST"):
        sqlite_weather.ingest(query(sql.format("count(*)")))

    sqlite_weather.ingest(query(sql.format("CAST(count(*) AS INTEGER)")))

    assert sqlite_weather.rows("all").rows() == [("EWR", 9, 3.5), ("JFK", 9, 3.5)]


def test_partitions_of_a_query_have_the_grain_that_is_declared(weather: Weather) -> None:
    dataset = create_dataset(weather=WARM)
    monthly = replace(dataset, sources=(replace(dataset.sources[0], partitions=Monthly()),))

    (done,) = ingest(monthly, weather.table_store, Settings())

    assert (done.new, done.rows) == (("2013-01",), 12)


def test_a_query_sees_the_snapshot_of_the_tables(postgresql_weather: Weather) -> None:
    def delete(name: str, done: int, _total: int) -> None:
        if name == "weather" and done == 1:
            postgresql_weather.run("DELETE FROM weather")

    both = create_dataset(weather=WEATHER, warm=WARM)
    done = ingest(both, postgresql_weather.table_store, Settings(), progress=delete)

    assert [item.rows for item in done] == [18, 12]


def test_a_view_is_read_as_a_table_and_in_a_query(weather: Weather) -> None:
    weather.run("CREATE VIEW cold AS SELECT origin, at, temp FROM weather WHERE temp < 2")

    weather.ingest(TableSource("cold", ("origin", "at"), None, "at"))
    table = weather.hashes
    weather.ingest(query("SELECT * FROM cold", key=("origin", "at"), partition_by="at"))

    assert weather.hashes == table
    assert list(table) == ["2013-01-01"]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (
            "SELECT origin, temp AS origin FROM weather",
            "a name of its own for each column, found origin more than once",
        ),
        ("SELECT origin, temp + 1 FROM weather", r"found no name for .*Write `… AS name`"),
        ("SELECT origin FROM weather WHERE nope = 1", "nope"),
        ("SELECT origin FROM nowhere", "nowhere"),
        ("SELECT at FROM weather", "expected the columns origin, found at. Correct .* or the query"),
        ("DELETE FROM weather", "begins with SELECT or WITH, found 'DELETE'. Correct the source's declaration"),
        ("SELECT origin FROM weather WHERE origin = :origin", "cannot be read"),
    ],
)
def test_a_query_that_cannot_be_a_source_is_refused_and_changes_nothing(
    weather: Weather, sql: str, reason: str
) -> None:
    with pytest.raises(HeadraceError, match=f"(?s){reason}"):
        weather.ingest(query(sql))

    assert weather.ingest().rows == 18


def test_a_query_that_fails_at_a_row_names_the_query_and_leaves_the_others(weather: Weather) -> None:
    overflow = (
        "9223372036854775807 + CAST(temp AS bigint)"
        if weather.relay
        else "abs(-9223372036854775807 - CAST(temp / temp AS INTEGER))"
    )
    failing = query(f"SELECT origin, CAST({overflow} AS BIGINT) AS broken FROM weather")  # noqa: S608

    with pytest.raises(HeadraceError, match=r"the query `SELECT origin, CAST"):
        ingest(create_dataset(broken=failing, weather=WEATHER), weather.table_store, Settings())

    assert len(weather.hashes) == 3


def test_rows_without_a_partition_are_counted(weather: Weather) -> None:
    weather.run(INSERT + f"('EWR', NULL, 2.5, '{NEW}')")

    with pytest.raises(NullPartitionError, match=r"the query `SELECT at, origin.*1 row has no UTC day in at"):
        weather.ingest(WARM)


def test_a_query_is_recorded_with_its_text(weather: Weather) -> None:
    weather.ingest(WARM)

    entry = weather.table_store.manifest(TABLE).partitions["2013-01-02"]

    assert entry.metadata["query"]["sql"] == WARM.query
    assert entry.metadata["query"]["where"] == "UTC day of at = 2013-01-02"
    assert "table" not in entry.metadata["query"]
