"""A table or query without a watermark: a hash of the rows of each partition tells whether it is read again.

The oracle of the property test is the set of rows itself: partitions are read if and only if their rows differ.
"""

import sqlite3
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from weather import INSERT, OLD, TABLE, WEATHER, Weather

from headrace.dataset import TableSource
from headrace.ingest.database.read_transaction import open_read_transaction

UNMARKED = replace(WEATHER, watermark=None)
ALL = TableSource("marked", ("id",), None)


def test_an_unchanged_partition_is_not_read_again(weather: Weather) -> None:
    first, second = weather.ingest(UNMARKED), weather.ingest(UNMARKED)

    assert (first.read, second.read) == (3, 0)


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("UPDATE weather SET temp = 9 WHERE at = '2013-01-02 12:30:00+00:00' AND origin = 'JFK'", ("2013-01-02",)),
        ("UPDATE weather SET temp = NULL WHERE at = '2013-01-02 12:30:00+00:00'", ("2013-01-02",)),
        ("DELETE FROM weather WHERE at = '2013-01-03 12:30:00+00:00'", ("2013-01-03",)),
        (INSERT + f"('EWR', '2013-01-01 05:30:00+00:00', 1.5, '{OLD}')", ("2013-01-01",)),
        (INSERT + f"('JFK', '2013-01-01 00:30:00+00:00', 1.5, '{OLD}')", ("2013-01-01",)),
        ("UPDATE weather SET origin = CASE origin WHEN 'EWR' THEN 'JFK' ELSE 'EWR' END", ()),
    ],
    ids=["value", "to null", "deleted", "inserted", "repeated", "the same rows"],
)
def test_exactly_the_partitions_with_other_rows_are_read_again(
    weather: Weather, change: str, changed: tuple[str, ...]
) -> None:
    weather.ingest(UNMARKED)

    weather.run(change)
    done = weather.ingest(UNMARKED)

    assert (done.read, done.changed) == (len(changed), changed)


PAIRS = [
    ("TEXT", "NULL", "''"),
    ("TEXT", "'a'", "'a '"),
    ("TEXT", "NULL", "'None'"),
    ("TEXT", "'1'", "'1.0'"),
    ("REAL", "0.1", "0.1000001"),
    ("BIGINT", "9223372036854775807", "9223372036854775806"),
]
POSTGRESQL_PAIRS = [
    ("float8", "'0'", "'-0'"),
    ("float8", "0.1", "0.10000000000000002"),
    ("numeric", "1.0", "1.00"),
    ("numeric", "'NaN'", "NULL"),
    ("json", """'{"a": 1}'""", """'{"a":1}'"""),
    ("interval", "'1 mon'", "'30 days'"),
    ("timestamptz", "'2013-01-01 00:00:00.000001Z'", "'2013-01-01Z'"),
    ("text[]", "'{a,b}'", """'{"a,b"}'"""),
    ("bytea", "'\\x00'", "'\\x0000'"),
]


def check_change_is_seen(weather: Weather, kind: str, before: str, after: str) -> None:
    weather.run(f"CREATE TABLE marked (id INTEGER, value {kind})")
    weather.run(f"INSERT INTO marked VALUES (1, {before}), (2, {after})")  # noqa: S608
    weather.ingest(ALL)
    assert weather.ingest(ALL).read == 0

    weather.run(f"UPDATE marked SET value = {after} WHERE id = 1")  # noqa: S608

    assert weather.ingest(ALL).changed == ("all",)


@pytest.mark.parametrize(("kind", "before", "after"), PAIRS)
def test_a_value_that_is_nearly_the_same_is_another_row(
    sqlite_weather: Weather, kind: str, before: str, after: str
) -> None:
    check_change_is_seen(sqlite_weather, kind, before, after)


@pytest.mark.parametrize(("kind", "before", "after"), [PAIRS[0], *POSTGRESQL_PAIRS])
def test_a_value_that_is_nearly_the_same_is_another_row_in_postgresql(
    postgresql_weather: Weather, kind: str, before: str, after: str
) -> None:
    check_change_is_seen(postgresql_weather, kind, before, after)


def test_values_that_are_swapped_between_columns_are_another_row(weather: Weather) -> None:
    weather.run("CREATE TABLE marked (id INTEGER, a TEXT, b TEXT)")
    weather.run("INSERT INTO marked VALUES (1, 'x', 'y,z'), (2, NULL, '')")
    weather.ingest(ALL)

    weather.run("UPDATE marked SET a = 'x,y', b = 'z' WHERE id = 1")
    moved = weather.ingest(ALL)
    weather.run("UPDATE marked SET a = '', b = NULL WHERE id = 2")

    assert moved.changed == ("all",)
    assert weather.ingest(ALL).changed == ("all",)


def test_another_order_of_columns_and_another_type_are_another_table(weather: Weather) -> None:
    weather.run("CREATE TABLE marked (id INTEGER, value INTEGER)")
    weather.run("INSERT INTO marked VALUES (1, 1)")
    weather.ingest(ALL)

    weather.run("DROP TABLE marked")
    weather.run("CREATE TABLE marked (value INTEGER, id INTEGER)")
    weather.run("INSERT INTO marked VALUES (1, 1)")
    reordered = weather.ingest(ALL)
    weather.run("DROP TABLE marked")
    weather.run("CREATE TABLE marked (value REAL, id INTEGER)")
    weather.run("INSERT INTO marked VALUES (1, 1)")

    assert reordered.changed == ("all",)
    assert weather.ingest(ALL).changed == ("all",)


def test_a_table_of_more_columns_than_a_function_takes_is_hashed_as_one_row(sqlite_weather: Weather) -> None:
    columns = [f"c{number}" for number in range(230)]
    sqlite_weather.run(f"CREATE TABLE marked (id INTEGER, {', '.join(f'{name} INTEGER' for name in columns)})")
    for row in (0, 1):
        sqlite_weather.run(f"INSERT INTO marked VALUES ({row}{f', {row}' * 230})")  # noqa: S608
    sqlite_weather.ingest(ALL)

    sqlite_weather.run("UPDATE marked SET c5 = 1 - c5, id = 1 - id")

    assert sqlite_weather.ingest(ALL).changed == ("all",)


def test_an_empty_table_has_no_partitions(weather: Weather) -> None:
    weather.run("DELETE FROM weather")

    assert weather.ingest(UNMARKED).listed == 0


def test_the_hash_of_the_rows_is_recorded(weather: Weather) -> None:
    weather.ingest(UNMARKED)

    query = weather.table_store.manifest(TABLE).partitions["2013-01-01"].metadata["query"]

    assert query["watermark"] is None
    assert query["digest"]


VALUES = st.tuples(st.integers(0, 2), st.sampled_from([None, "", "0", "a"]), st.sampled_from([None, 0.0, -0.0, 1.5]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), st.lists(VALUES, min_size=1, max_size=4))
def test_two_tables_have_equal_hashes_if_and_only_if_they_have_the_same_rows(
    sqlite_weather: Weather, one: list[tuple[object, ...]], other: list[tuple[object, ...]]
) -> None:
    digests = [_digest(sqlite_weather, rows) for rows in (one, other)]

    assert (digests[0] == digests[1]) == (sorted(map(repr, one)) == sorted(map(repr, other)))


def _digest(weather: Weather, rows: list[tuple[object, ...]]) -> str | None:
    path = weather.address.removeprefix("sqlite:///")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DROP TABLE IF EXISTS marked")
        connection.execute("CREATE TABLE marked (id INTEGER, a TEXT, b REAL)")
        connection.executemany("INSERT INTO marked VALUES (?, ?, ?)", rows)
    connection.close()
    with open_read_transaction(weather.address) as transaction:
        return transaction.list_partitions(ALL).partitions["all"].digest
