"""The history of a database table: what changed between two snapshots is recorded once, and never changes again."""

import shutil
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from crash_harness import State
from crash_state import VISIBLE_FOLDERS, hash_files
from weather import NEW, OLD, TABLE, Weather, create_dataset

from headrace import failpoints
from headrace.dataset import KNOWN_TIME, OPERATION, SEEN_TIME, TableSource
from headrace.guards.finding_log import open_finding_log
from headrace.guards.gate import FindingsError, accept_finding
from headrace.ingest.database.read_transaction import ReadTransaction
from headrace.ingest.ingest import HistoryLostError, ingest
from headrace.ingest.preview import preview_sources
from headrace.ingest.table_history import HistoryError, is_history
from headrace.settings import Settings
from headrace.storage.table_store import TableStore

CITIES = TableSource("cities", ("city",), "updated_at", history=True)
INSERT, UPDATE = "INSERT INTO cities VALUES ", "UPDATE cities SET "


@pytest.fixture
def cities(weather: Weather) -> Weather:
    """A table of two cities."""
    kind = "TIMESTAMP" if weather.relay is None else "timestamptz"
    weather.run(f"CREATE TABLE cities (city TEXT, people INTEGER, updated_at {kind})")
    insert(weather, "Bern", 1)
    insert(weather, "Wien", 2)
    return weather


def insert(cities: Weather, city: str, people: int, mark: str | None = OLD) -> None:
    cities.run(INSERT + f"('{city}', {people}, {literal(mark)})")


def update(cities: Weather, city: str, people: int, mark: str | None = OLD) -> None:
    cities.run(UPDATE + f"people = {people}, updated_at = {literal(mark)} WHERE city = '{city}'")


def literal(mark: str | None) -> str:
    return "NULL" if mark is None else f"'{mark}'"


def now(offset: timedelta = timedelta(0)) -> str:
    return (datetime.now(UTC) + offset).isoformat(" ")


def changes(cities: Weather) -> pl.DataFrame:
    """All that was recorded, by time."""
    paths = cities.table_store.paths(TABLE).values()
    return pl.concat([pl.read_parquet(path) for path in paths]).sort(KNOWN_TIME, "city")


def operations(cities: Weather) -> list[tuple[Any, ...]]:
    return changes(cities).select("city", "people", OPERATION).rows()


def last(cities: Weather) -> dict[str, Any]:
    return changes(cities).tail(1).row(0, named=True)


def test_the_first_snapshot_is_known_since_it_was_taken(cities: Weather) -> None:
    before = datetime.now(UTC)

    done = cities.ingest(CITIES)

    rows = changes(cities)
    assert rows.columns == ["city", "people", "updated_at", KNOWN_TIME, SEEN_TIME, OPERATION]
    assert operations(cities) == [("Bern", 1, "insert"), ("Wien", 2, "insert")]
    assert rows[KNOWN_TIME].to_list() == rows[SEEN_TIME].to_list()
    assert before <= rows[KNOWN_TIME][0] <= datetime.now(UTC)
    assert done.operations == {"insert": 2}
    assert str(done).endswith("; recorded 2 inserts")


def test_the_first_snapshot_is_known_since_the_declared_column_says(cities: Weather) -> None:
    insert(cities, "Graz", 3, None)
    insert(cities, "Kiel", 4, now(timedelta(days=3)))

    cities.ingest(replace(CITIES, initial_known_time="updated_at"))

    rows = {row["city"]: row for row in changes(cities).iter_rows(named=True)}
    assert rows["Bern"][KNOWN_TIME] == datetime.fromisoformat(OLD)
    assert rows["Graz"][KNOWN_TIME] == rows["Kiel"][KNOWN_TIME] == rows["Bern"][SEEN_TIME]
    assert min(cities.hashes) == "2013-01-05"


def test_a_run_without_a_change_writes_nothing(cities: Weather) -> None:
    cities.ingest(CITIES)
    before = cities.table_store.manifest(TABLE).to_files().head

    done = cities.ingest(CITIES)

    assert (done.new, done.changed, done.read, done.rows) == ((), (), 0, 0)
    assert cities.ingest(CITIES, full_refresh=True).operations == {}
    assert cities.table_store.manifest(TABLE).to_files().head == before


def test_an_update_is_known_since_its_watermark(cities: Weather) -> None:
    cities.ingest(CITIES)
    mark = now()
    update(cities, "Wien", 7, mark)

    done = cities.ingest(CITIES)

    assert done.operations == {"update": 1}
    assert operations(cities)[2:] == [("Wien", 7, "update")]
    assert last(cities)[KNOWN_TIME] == datetime.fromisoformat(mark) < last(cities)[SEEN_TIME]


@pytest.mark.parametrize("mark", [None, OLD, NEW, "future"])
def test_a_watermark_that_is_not_between_the_snapshots_says_nothing(cities: Weather, mark: str | None) -> None:
    cities.ingest(CITIES)
    update(cities, "Wien", 7, now(timedelta(days=1)) if mark == "future" else mark)

    cities.ingest(CITIES, full_refresh=True)

    assert (last(cities)["people"], last(cities)[KNOWN_TIME]) == (7, last(cities)[SEEN_TIME])


def test_a_watermark_that_is_no_time_says_nothing(cities: Weather) -> None:
    source = replace(CITIES, watermark="people")
    cities.ingest(source)
    update(cities, "Wien", 7, NEW)

    cities.ingest(source)

    assert (last(cities)["people"], last(cities)[KNOWN_TIME]) == (7, last(cities)[SEEN_TIME])


def test_a_deletion_has_the_last_values_and_the_time_when_it_was_seen(cities: Weather) -> None:
    cities.ingest(CITIES)
    cities.run("DELETE FROM cities WHERE city = 'Wien'")

    cities.ingest(CITIES)

    assert operations(cities)[2:] == [("Wien", 2, "delete")]
    assert last(cities)[KNOWN_TIME] == last(cities)[SEEN_TIME]
    assert cities.ingest(CITIES).operations == {}


def test_a_row_that_comes_back_is_inserted_again(cities: Weather) -> None:
    cities.ingest(CITIES)
    cities.run("DELETE FROM cities WHERE city = 'Wien'")
    cities.ingest(CITIES)
    insert(cities, "Wien", 2)

    cities.ingest(CITIES)

    assert [row[2] for row in operations(cities)] == ["insert", "insert", "delete", "insert"]


def test_of_two_updates_between_two_runs_the_last_is_seen(cities: Weather) -> None:
    cities.ingest(CITIES)
    update(cities, "Wien", 7, now())
    update(cities, "Wien", 8, now())

    cities.ingest(CITIES)

    assert operations(cities)[2:] == [("Wien", 8, "update")]


def test_a_watermark_alone_is_no_change(cities: Weather) -> None:
    cities.ingest(CITIES)
    update(cities, "Wien", 2, now())

    assert cities.ingest(CITIES).operations == {}


def test_an_update_that_leaves_the_watermark_is_recorded_by_a_full_refresh(cities: Weather) -> None:
    cities.ingest(CITIES)
    update(cities, "Wien", 7)

    assert cities.ingest(CITIES).operations == {}
    assert cities.ingest(CITIES, full_refresh=True).operations == {"update": 1}
    assert len(operations(cities)) == 3


def test_recorded_rows_stay_as_they_are(cities: Weather) -> None:
    cities.ingest(CITIES)
    before = changes(cities)
    update(cities, "Wien", 7, now())
    cities.run("DELETE FROM cities WHERE city = 'Bern'")

    cities.ingest(CITIES, full_refresh=True)

    assert changes(cities).filter(pl.col(SEEN_TIME) == before[SEEN_TIME][0]).equals(before)


def test_the_same_history_and_snapshot_give_the_same_bytes(
    cities: Weather, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReadTransaction, "current_time", lambda _self: datetime(2026, 1, 9, 5, tzinfo=UTC))
    other = replace(cities, table_store=TableStore.at(tmp_path / "other"))

    cities.ingest(CITIES)
    other.ingest(CITIES)

    assert other.hashes == cities.hashes


def test_a_clock_that_goes_back_leaves_the_order_of_the_snapshots(
    cities: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    cities.ingest(CITIES)
    monkeypatch.setattr(ReadTransaction, "current_time", lambda _self: datetime(2020, 1, 9, 5, tzinfo=UTC))
    update(cities, "Wien", 7, now())

    cities.ingest(CITIES)

    first, *_, newest = changes(cities)[SEEN_TIME]
    assert newest == first + timedelta(microseconds=1)
    assert operations(cities)[2:] == [("Wien", 7, "update")]


def test_two_rows_of_one_key_are_refused(cities: Weather) -> None:
    insert(cities, "Wien", 3)

    with pytest.raises(HistoryError, match=r"cities: expected one row per key \(city\), found 2 rows .* \('Wien',\)"):
        cities.ingest(CITIES)


def test_a_key_that_is_null_is_refused(cities: Weather) -> None:
    cities.run("UPDATE cities SET city = NULL WHERE city = 'Wien'")

    with pytest.raises(HistoryError, match=r"cities: expected a value in every column of the key \(city\), found NULL"):
        cities.ingest(CITIES)


def test_another_key_is_refused(cities: Weather) -> None:
    cities.ingest(CITIES)
    insert(cities, "Graz", 3)

    with pytest.raises(HistoryError, match=r"expected the key \(city\), .* found \(people\) in the declaration"):
        cities.ingest(replace(CITIES, key=("people",)))


def test_a_column_that_a_history_adds_is_refused(cities: Weather) -> None:
    cities.run("ALTER TABLE cities ADD COLUMN operation TEXT")

    with pytest.raises(HistoryError, match=r"expected no column operation.*`operation AS source_operation`"):
        cities.ingest(CITIES)


def test_a_column_of_another_type_is_refused(cities: Weather) -> None:
    cities.ingest(CITIES)
    cities.run("ALTER TABLE cities RENAME COLUMN people TO persons")
    cities.run("ALTER TABLE cities ADD COLUMN people TEXT")

    with pytest.raises(HistoryError, match=r"cities: expected people to be Int\d\d, as the history has it, found Str"):
        cities.ingest(CITIES)


def test_a_new_column_is_an_update_of_the_rows_that_have_a_value_in_it(cities: Weather) -> None:
    cities.ingest(CITIES)
    cities.run("ALTER TABLE cities ADD COLUMN land TEXT")
    cities.run("UPDATE cities SET land = 'AT' WHERE city = 'Wien'")

    assert cities.ingest(CITIES).operations == {"update": 1}
    assert last(cities)["land"] == "AT"


def test_most_rows_deleted_at_once_are_refused_until_that_is_accepted(cities: Weather) -> None:
    for city in ("Graz", "Kiel", "Bonn"):
        insert(cities, city, 1)
    cities.ingest(CITIES)
    cities.run("DELETE FROM cities WHERE city <> 'Bern'")

    with pytest.raises(FindingsError, match=rf"{TABLE}: 4 of 5 rows would vanish since the last ingest"):
        cities.ingest(CITIES)
    assert len(operations(cities)) == 5
    accept_all(cities)

    assert cities.ingest(CITIES).operations == {"delete": 4}


def test_an_empty_table_is_refused_until_that_is_accepted(cities: Weather) -> None:
    cities.ingest(CITIES)
    cities.run("DELETE FROM cities")

    with pytest.raises(FindingsError, match=rf"{TABLE} has 1 partition, but the table cities .* lists none"):
        cities.ingest(CITIES)
    accept_all(cities)

    assert cities.ingest(CITIES).operations == {"delete": 2}
    assert cities.ingest(CITIES).operations == {}


def accept_all(cities: Weather) -> None:
    with pytest.raises(FindingsError) as found:
        cities.ingest(CITIES)
    for finding in found.value.findings:
        accept_finding(open_finding_log(cities.table_store, "sky"), finding.id, by="ann", reason="intended")


def test_a_declaration_without_history_does_not_replace_one(cities: Weather) -> None:
    cities.ingest(CITIES)

    with pytest.raises(HistoryLostError, match=rf"{TABLE} is a history of 1 partition, .* without `history=True`"):
        cities.ingest(replace(CITIES, history=False))
    assert is_history(cities.table_store.manifest(TABLE))


def test_a_partition_that_is_named_leaves_a_history_as_it_is(cities: Weather) -> None:
    cities.ingest(CITIES)
    update(cities, "Wien", 7, now())
    (day,) = cities.hashes
    dataset = create_dataset(weather=CITIES)

    (done,) = ingest(dataset, cities.table_store, Settings(), partition=day)

    assert (done.listed, done.read) == (1, 0)


def test_a_plan_says_whether_the_table_will_be_read(cities: Weather) -> None:
    dataset = create_dataset(weather=CITIES)
    (first,) = preview_sources(dataset, cities.table_store, Settings())
    cities.ingest(CITIES)
    (second,) = preview_sources(dataset, cities.table_store, Settings())
    update(cities, "Wien", 7, now())
    (third,) = preview_sources(dataset, cities.table_store, Settings())

    assert ([*first.new], first.rows) == ([*cities.hashes], 2)
    assert (second.to_read, second.rows) == ((), 0)
    assert ([*third.changed], third.rows) == ([*cities.hashes], 2)


class Killed(BaseException):
    """The run ends here."""


def test_a_run_that_ends_before_any_of_its_effects_is_finished_by_the_next(
    sqlite_weather: Weather, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_weather.run("CREATE TABLE cities (city TEXT, people INTEGER, updated_at TIMESTAMP)")
    insert(sqlite_weather, "Bern", 1)
    insert(sqlite_weather, "Wien", 2)
    clock = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(ReadTransaction, "current_time", lambda _self: clock)
    sqlite_weather.ingest(CITIES)
    update(sqlite_weather, "Wien", 7, "2026-01-01 12:00:00+00:00")
    sqlite_weather.run("DELETE FROM cities WHERE city = 'Bern'")
    clock = datetime(2026, 1, 2, tzinfo=UTC)
    failpoint, begun = failpoints.failpoint, sqlite_weather.table_store.root

    def run(name: str, last: int) -> tuple[int, State]:
        """Copy the workspace, end its run before that effect, and run again; effects, and what is there."""
        shutil.copytree(begun, tmp_path / name)
        place, effects = replace(sqlite_weather, table_store=TableStore.at(tmp_path / name)), 0

        def count(*arguments: Any) -> Any:  # noqa: ANN401  as the one that it replaces
            nonlocal effects
            effects += 1
            if effects == last:
                raise Killed
            return failpoint(*arguments)

        with monkeypatch.context() as patched, suppress(Killed):
            patched.setattr(failpoints, "failpoint", count)
            place.ingest(CITIES)
        replace(place, table_store=TableStore.at(tmp_path / name)).ingest(CITIES)
        return effects, hash_files(tmp_path / name, *VISIBLE_FOLDERS)

    effects, undisturbed = run("undisturbed", 0)

    assert effects > 3
    recovered = {number: run(f"{number}", number)[1] for number in range(1, effects + 1)}
    assert {number: state for number, state in recovered.items() if state != undisturbed} == {}
