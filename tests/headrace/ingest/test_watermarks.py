"""What the listing of a database table sees: any change that sets the watermark, whatever its type and its values."""

from collections.abc import Callable

import pytest
from weather import TABLE, Weather

from headrace.dataset import TableSource

MARKED = TableSource("marked", ("id",), "mark")
INSERT, UPDATE = "INSERT INTO marked VALUES ", "UPDATE marked SET value = 1, mark = "

POSTGRESQL = [
    ("timestamptz", ["infinity", "infinity", "2013-01-01Z"], "2013-02-01Z"),
    ("timestamptz", ["-infinity", "infinity", "2013-01-01Z"], "infinity"),
    ("timestamptz", ["2013-01-01 00:00:01Z", "2013-01-01 00:00:09Z", "2013-01-01 00:00:00.000001Z"], "2013-01-01Z"),
    ("date", ["2013-01-01", "2013-01-09", "2013-01-02"], "2013-01-03"),
    ("numeric", ["5", "1", "1"], "3"),
    ("numeric", ["NaN", "1", "1.5"], "1.50000000000000000001"),
    ("float8", ["5", "1", "1"], "3"),
    ("float8", ["Infinity", "1", "0.1"], "0.10000000000000002"),
    ("bigint", ["5", "1", "1"], "3"),
    ("bigint", ["9223372036854775807", "-9223372036854775808", "1"], "2"),
    ("text", ["z", "a", "b"], "c"),
    ("uuid", [f"{digit * 8}-4036-403d-bf84-cf8400f67836" for digit in "fab"], "cccccccc-4036-403d-bf84-cf8400f67836"),
    ("boolean", ["true", "true", "false"], "true"),
    ("jsonb", ['{"v": 9}', '{"v": 1}', '{"v": 2}'], '{"v": 3}'),
    ("json", ['{"v": 9}', '{"v": 1}', '{"v": 2}'], '{"v": 3}'),
    ("interval", ["9 days", "1 day", "2 days"], "3 days"),
    ("bytea", ["\\xff", "\\x01", "\\x02"], "\\x03"),
    ("int[]", ["{9}", "{1}", "{2}"], "{3}"),
]

SQLITE = [
    ("TIMESTAMP", ["2013-01-09T00:00:00Z", "2013-01-01T00:00:00.000100Z"], "2013-01-01T00:00:00.000200Z"),
    ("INTEGER", ["5", "1"], "3"),
    ("REAL", ["5.0", "1.0"], "3.0"),
    ("TEXT", ["z", "a"], "b"),
    ("BLOB", ["z", "a"], "b"),
    ("DATE", ["2013-01-09", "2013-01-01"], "2013-01-02"),
]


def create_marked(run: Callable[[str], object], kind: str, marks: list[str | None]) -> None:
    """A table with one row for each watermark, numbered from 0."""
    run(f"CREATE TABLE marked (id INTEGER, value INTEGER, mark {kind})")
    for number, mark in enumerate(marks):
        run(INSERT + f"({number}, 0, {literal(kind, mark)})")


def literal(kind: str, mark: str | None) -> str:
    text = "NULL" if mark is None else f"'{mark}'"
    return f"CAST({text} AS BLOB)" if kind == "BLOB" else text


def check_update_is_seen(weather: Weather, kind: str, marks: list[str], mark: str) -> None:
    create_marked(weather.run, kind, list(marks))
    weather.ingest(MARKED)
    assert weather.ingest(MARKED).read == 0

    weather.run(UPDATE + f"{literal(kind, mark)} WHERE id = {len(marks) - 1}")

    assert weather.ingest(MARKED).changed == ("all",)


@pytest.mark.parametrize(("kind", "marks", "mark"), POSTGRESQL)
def test_an_update_that_sets_the_watermark_is_seen_in_postgresql(
    postgresql_weather: Weather, kind: str, marks: list[str], mark: str
) -> None:
    check_update_is_seen(postgresql_weather, kind, marks, mark)


@pytest.mark.parametrize(("kind", "marks", "mark"), SQLITE)
def test_an_update_that_sets_the_watermark_is_seen_in_sqlite(
    sqlite_weather: Weather, kind: str, marks: list[str], mark: str
) -> None:
    check_update_is_seen(sqlite_weather, kind, marks, mark)


def test_updates_that_cancel_out_in_a_sum_are_seen(weather: Weather) -> None:
    create_marked(weather.run, "INTEGER", ["1", "5", "9"])
    weather.ingest(MARKED)

    weather.run("UPDATE marked SET value = 1, mark = 2 WHERE mark = 1")
    weather.run("UPDATE marked SET value = 1, mark = 4 WHERE mark = 5")

    assert weather.ingest(MARKED).changed == ("all",)


@pytest.mark.parametrize("marks", [[None, None], [None, "5"]])
def test_a_partition_with_a_row_without_a_watermark_is_always_read(weather: Weather, marks: list[str | None]) -> None:
    create_marked(weather.run, "INTEGER", marks)
    weather.ingest(MARKED)
    unchanged = weather.ingest(MARKED)

    weather.run("UPDATE marked SET value = 1 WHERE id = 0")
    updated = weather.ingest(MARKED)
    weather.run("DELETE FROM marked WHERE id = 0")
    weather.run("INSERT INTO marked VALUES (7, 0, NULL)")
    replaced = weather.ingest(MARKED)

    assert (unchanged.read, unchanged.changed) == (1, ())
    assert updated.changed == ("all",)
    assert replaced.changed == ("all",)


def test_the_text_of_a_value_does_not_depend_on_settings_of_the_role(
    weather_database: str, postgresql_weather: Weather
) -> None:
    create_marked(postgresql_weather.run, "timestamptz", ["2013-01-02 03:04:05.678901Z", "infinity"])
    postgresql_weather.run("ALTER TABLE marked ADD COLUMN wait interval DEFAULT '1 day 2 hours'")
    postgresql_weather.ingest(MARKED)
    before = postgresql_weather.hashes
    settings = {
        "DateStyle": "'SQL, DMY'",
        "IntervalStyle": "iso_8601",
        "TimeZone": "'Asia/Tokyo'",
        "extra_float_digits": "-15",
        "bytea_output": "escape",
    }
    for name, value in settings.items():
        postgresql_weather.run(f'ALTER DATABASE "{weather_database}" SET {name} = {value}')
    try:
        unchanged = postgresql_weather.ingest(MARKED)
        refreshed = postgresql_weather.ingest(MARKED, full_refresh=True)
    finally:
        for name in settings:
            postgresql_weather.run(f'ALTER DATABASE "{weather_database}" RESET {name}')

    assert (unchanged.read, refreshed.changed) == (0, ())
    assert postgresql_weather.hashes == before


def test_a_watermark_of_bytes_that_are_no_text_is_kept_in_hexadecimal(sqlite_weather: Weather) -> None:
    sqlite_weather.run("CREATE TABLE marked (id INTEGER, value INTEGER, mark BLOB)")
    sqlite_weather.run(INSERT + "(0, 0, x'00ff'), (1, 0, x'80')")
    sqlite_weather.ingest(MARKED)

    sqlite_weather.run(UPDATE + "x'8000' WHERE id = 1")

    assert sqlite_weather.ingest(MARKED).changed == ("all",)
    (entry,) = sqlite_weather.table_store.manifest(TABLE).partitions.values()
    assert entry.metadata["query"]["watermark"] == "8000"


def test_the_newest_watermark_of_a_partition_is_recorded(weather: Weather) -> None:
    create_marked(weather.run, "INTEGER", ["5", "12", "9"])
    weather.ingest(MARKED)

    [entry] = weather.table_store.manifest(TABLE).partitions.values()

    assert entry.metadata["query"]["watermark"] in {"12", 12}
