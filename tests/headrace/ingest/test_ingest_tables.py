"""Ingest of database tables: canonical Parquet, one partition per UTC day, read in one transaction.

Only partitions whose rows, watermark or columns changed are read again. A table is updated completely or not at all.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from weather import INSERT, NEW, OLD, TABLE, WEATHER, Weather, create_dataset, create_weather_table

from headrace.engine.result_versions import result_version
from headrace.guards.finding_log import open_finding_log
from headrace.guards.gate import FindingsError, accept_finding
from headrace.ingest import table_source
from headrace.ingest.database.backend import DatabaseError
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage.table_store import TableStore


def test_rows_become_one_file_per_utc_day_sorted_by_key(weather: Weather) -> None:
    done = weather.ingest()

    assert done.new == ("2013-01-01", "2013-01-02", "2013-01-03")
    assert (done.read, done.rows) == (3, 18)
    rows = weather.rows()
    assert rows.select("origin", "at").rows() == [
        (origin, datetime(2013, 1, 1, hour, 30, tzinfo=UTC)) for origin in ("EWR", "JFK") for hour in (0, 12, 23)
    ]
    assert rows.schema["at"] == rows.schema["updated_at"] == pl.Datetime("us", "UTC")


def test_a_result_is_one_line(weather: Weather) -> None:
    assert re.fullmatch(rf"{TABLE}: 3 listed, 3 new; read 3, 18 rows, [\d,]+ bytes", str(weather.ingest()))
    assert str(weather.ingest()) == f"{TABLE}: 3 listed, nothing new; read 0, 0 rows, 0 bytes"


def test_each_partition_records_its_query_and_statistics(weather: Weather) -> None:
    weather.ingest()

    entry = weather.table_store.manifest(TABLE).partitions["2013-01-02"]

    assert entry.rows == 6
    facts = entry.metadata["query"]
    assert (facts["table"], facts["where"], facts["rows"]) == ("weather", "UTC day of at = 2013-01-02", 6)
    assert facts["watermark"].startswith("2013-01-05")


def test_a_timestamp_belongs_to_its_utc_day_whatever_its_offset(weather: Weather) -> None:
    weather.run(INSERT + f"('LGA', '2013-01-01 22:00:00-05:00', 1, '{OLD}')")

    weather.ingest()

    assert "LGA" in weather.rows("2013-01-02")["origin"]


def test_a_second_run_reads_no_partition_and_leaves_the_same_manifest(weather: Weather) -> None:
    weather.ingest()
    before = weather.table_store.manifest(TABLE).to_files().head

    done = weather.ingest()

    assert (done.new, done.changed, done.deleted, done.read, done.rows) == ((), (), (), 0, 0)
    assert weather.table_store.manifest(TABLE).to_files().head == before


def test_a_new_result_version_reads_every_partition_again(weather: Weather, monkeypatch: pytest.MonkeyPatch) -> None:
    weather.ingest()
    monkeypatch.setattr(table_source, "result_version", lambda kind: result_version(kind) + 1)

    done = weather.ingest()

    assert (done.read, done.changed) == (3, ())


def test_a_second_run_reads_no_row_from_postgresql(postgresql_weather: Weather) -> None:
    postgresql_weather.ingest()
    assert postgresql_weather.reads == 1

    postgresql_weather.ingest()

    assert postgresql_weather.reads == 1


def test_only_the_day_of_a_changed_row_is_read_again(weather: Weather) -> None:
    weather.ingest()
    before = weather.hashes
    weather.run(
        "UPDATE weather SET temp = 99, updated_at = '2013-02-01 00:00:00+00:00'"
        " WHERE origin = 'JFK' AND at = '2013-01-02 12:30:00+00:00'"
    )

    done = weather.ingest()

    assert (done.new, done.changed, done.deleted) == ((), ("2013-01-02",), ())
    assert (done.read, done.rows) == (1, 6)
    assert 99 in weather.rows("2013-01-02")["temp"]
    assert {name: md5 for name, md5 in weather.hashes.items() if name != "2013-01-02"} == {
        name: md5 for name, md5 in before.items() if name != "2013-01-02"
    }


def test_a_row_deleted_in_the_database_is_deleted_here(weather: Weather) -> None:
    weather.ingest()
    weather.run("DELETE FROM weather WHERE origin = 'JFK' AND at = '2013-01-02 12:30:00+00:00'")

    done = weather.ingest()

    assert done.changed == ("2013-01-02",)
    assert weather.rows("2013-01-02").height == 5


def test_a_day_deleted_in_the_database_is_deleted_here_and_reported(weather: Weather) -> None:
    weather.ingest()
    weather.run("DELETE FROM weather WHERE at < '2013-01-02'")

    done = weather.ingest()

    assert (done.changed, done.deleted, done.read) == ((), ("2013-01-01",), 0)
    assert sorted(weather.hashes) == ["2013-01-02", "2013-01-03"]


def test_late_rows_and_new_days_are_read(weather: Weather) -> None:
    weather.ingest()
    weather.run(INSERT + f"('LGA', '2013-01-01 05:30:00+00:00', 1, '{OLD}')")
    weather.run(INSERT + f"('LGA', '2013-01-09 05:30:00+00:00', 1, '{NEW}')")

    done = weather.ingest()

    assert (done.new, done.changed, done.rows) == (("2013-01-09",), ("2013-01-01",), 8)


def test_a_row_replaced_by_another_below_the_maximum_watermark_is_detected(weather: Weather) -> None:
    weather.ingest()
    weather.run("DELETE FROM weather WHERE origin = 'JFK' AND at = '2013-01-02 12:30:00+00:00'")
    weather.run("INSERT INTO weather VALUES ('LGA', '2013-01-02 12:30:00+00:00', 1, '2013-01-04 00:00:00+00:00')")

    assert weather.ingest().changed == ("2013-01-02",)


def test_an_update_that_leaves_the_watermark_is_detected_by_a_full_refresh_only(weather: Weather) -> None:
    weather.ingest()
    weather.run("UPDATE weather SET temp = 7 WHERE at < '2013-01-02'")

    assert weather.ingest().changed == ()
    done = weather.ingest(full_refresh=True)

    assert (done.changed, done.read) == (("2013-01-01",), 3)
    assert weather.rows()["temp"].unique().to_list() == [7]


def test_equal_rows_give_equal_bytes_in_whatever_order_the_database_returns_them(
    weather: Weather, tmp_path: Path
) -> None:
    weather.ingest()
    before = weather.hashes
    weather.run("DROP TABLE weather")
    create_weather_table(weather.run, "TIMESTAMP" if weather.relay is None else "timestamptz", backwards=True)
    other = replace(weather, table_store=TableStore.at(tmp_path / "other"))

    other.ingest()

    assert other.hashes == before


def test_a_new_column_reads_every_partition_again(weather: Weather) -> None:
    weather.ingest()
    weather.run("ALTER TABLE weather ADD COLUMN humid REAL")

    assert weather.ingest().read == 3
    assert weather.rows().columns == ["origin", "at", "temp", "updated_at", "humid"]


def test_a_table_without_partitions_is_the_partition_all(weather: Weather) -> None:
    done = weather.ingest(replace(WEATHER, partition_by=None))

    assert done.new == ("all",)
    assert weather.rows("all").height == 18


def test_an_empty_table_does_not_empty_ours_until_that_is_accepted(weather: Weather) -> None:
    weather.ingest()
    weather.run("DELETE FROM weather")

    with pytest.raises(FindingsError, match=rf"{TABLE} has 3 partitions, but the table weather .* lists none") as found:
        weather.ingest()

    for finding in found.value.findings:
        accept_finding(open_finding_log(weather.table_store, "sky"), finding.id, by="ann", reason="intended")
    assert weather.ingest().deleted == ("2013-01-01", "2013-01-02", "2013-01-03")


def test_a_value_that_cannot_be_read_does_not_stop_the_other_days(sqlite_weather: Weather) -> None:
    sqlite_weather.run("UPDATE weather SET temp = 'cold' WHERE at LIKE '2013-01-02%'")
    with pytest.raises(DatabaseError, match=rf"{TABLE} 2013-01-02 \(table weather\): .*temp: expected every value"):
        sqlite_weather.ingest()
    sqlite_weather.run("UPDATE weather SET temp = 1 WHERE at LIKE '2013-01-02%'")

    assert sqlite_weather.ingest().read == 1


def test_a_table_that_cannot_be_read_does_not_stop_the_others_of_its_database(weather: Weather) -> None:
    missing = replace(WEATHER, table="nowhere")
    dataset = create_dataset(first=missing, weather=WEATHER, last=missing)

    with pytest.raises(DatabaseError, match=r"no table nowhere"):
        ingest(dataset, weather.table_store, Settings())

    assert len(weather.table_store.manifest(TABLE).partitions) == 3
