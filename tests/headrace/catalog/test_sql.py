"""`headrace sql` promises: DuckDB over a release or the workspace; only the tables that are named are fetched."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from workspaces import DAYS, Workspace

from headrace.catalog.errors import EmptyTableError, NotParquetError
from headrace.catalog.open import open_dataset
from headrace.catalog.sql import QueryError, connect, format_result, write_result
from headrace.catalog.tables import DatasetTables
from headrace.cli import app

READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    "csv": pl.read_csv,
    "json": pl.read_json,
    "parquet": pl.read_parquet,
}
BY_CARRIER = "SELECT carrier, count(*) AS flights FROM validated.flights GROUP BY ALL ORDER BY ALL"


@pytest.fixture(scope="module")
def released_workspace(_released: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with release `flights/1`, for tests that only read."""
    return _released.copy(tmp_path_factory.mktemp("sql"))


@pytest.fixture(scope="module")
def release(released_workspace: Workspace) -> DatasetTables:
    return open_dataset("flights", release="flights/1", workspace=released_workspace.root)


@pytest.fixture(scope="module")
def by_carrier(released_workspace: Workspace) -> pl.DataFrame:
    """What the query must give, by another engine."""
    flights = released_workspace.table_store.scan("validated/flights/flights")
    return flights.group_by("carrier").agg(pl.len().cast(pl.Int64).alias("flights")).sort("carrier").collect()


def test_a_release_is_queried_in_a_clone_and_only_the_named_tables_are_fetched(
    released_workspace: Workspace, tmp_path: Path, by_carrier: pl.DataFrame
) -> None:
    clone = released_workspace.clone(f"clone-{tmp_path.name}")

    printed = clone.command("headrace", "sql", "flights", BY_CARRIER, "--release", "flights/1", "--format", "csv")

    assert_frame_equal(pl.read_csv(printed.encode()), by_carrier)
    named, other = (clone.table_store.manifest(table) for table in ("validated/flights/flights", "raw/flights/flights"))
    assert all(clone.table_store.cache.has(entry.md5) for entry in named.partitions.values())
    assert not any(clone.table_store.cache.has(entry.md5) for entry in other.partitions.values())


def test_the_workspace_is_queried_by_default(
    released: Workspace, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    released.raw.delete_day(DAYS[0])
    released.refresh()
    monkeypatch.chdir(released.root)
    days = "SELECT count(DISTINCT CAST(scheduled_at AS DATE)) AS days FROM validated.flights"
    counted = []

    for release in ((), ("--release", "latest")):
        app(["sql", "flights", days, "--format", "json", *release], standalone_mode=False)
        counted.append(json.loads(capsysbinary.readouterr().out)[0]["days"])

    assert counted[0] < counted[1]


@pytest.mark.parametrize("kind", READERS)
def test_a_file_holds_the_rows_in_the_format_of_its_ending(
    released_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_carrier: pl.DataFrame, kind: str
) -> None:
    monkeypatch.chdir(released_workspace.root)
    out = tmp_path / f"rows.{kind}"

    app(["sql", "flights", BY_CARRIER, "--release", "flights/1", "--out", str(out)], standalone_mode=False)

    assert_frame_equal(READERS[kind](out), by_carrier)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_terminal_gets_a_table_and_a_query_may_come_from_standard_input(
    released_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(released_workspace.root)
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 1 AS one, 'é' AS text"))

    app(["sql", "flights", "-"], standalone_mode=False)

    printed = capsys.readouterr().out
    assert "one" in printed
    assert "é" in printed


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM validated.flights f JOIN features.carrier_delays d USING (carrier) LIMIT 3",
        'FROM "validated"."flights" SELECT count(*) -- a comment',
        "PIVOT validated.flights ON origin USING count(*) GROUP BY carrier",
        "DESCRIBE features . carrier_delays",
        "SUMMARIZE VALIDATED.flights",
        "WITH validated AS (SELECT 1 AS x) SELECT x, (SELECT count(*) FROM features.carrier_delays) FROM validated",
        "CREATE TEMP TABLE t AS FROM validated.flights LIMIT 2; FROM t",
    ],
)
def test_every_kind_of_query_finds_its_tables(release: DatasetTables, statement: str, tmp_path: Path) -> None:
    write_result(release, statement, tmp_path / "rows.parquet", "parquet")

    assert pl.read_parquet(tmp_path / "rows.parquet").width > 0


def test_there_is_a_view_for_what_is_named_and_nothing_else(release: DatasetTables) -> None:
    connection = connect(release, "SELECT * FROM features.carrier_delays, validated.flight")

    views = connection.sql("SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    assert views == [("features.carrier_delays",)]


def test_times_are_in_utc_wherever_the_query_runs(release: DatasetTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")

    text = format_result(release, "SELECT min(event_time) AS first FROM features.origin_weather")

    assert "2013-01-01 06:00:00+00" in text


def test_json_has_null_for_what_json_cannot_say(release: DatasetTables, tmp_path: Path) -> None:
    statement = """SELECT 'nan'::DOUBLE AS "a ""b", 'inf'::FLOAT AS c, 0.5 AS d, 9007199254740993 AS e"""

    write_result(release, statement, tmp_path / "rows.json", "json")

    rows = json.loads((tmp_path / "rows.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert rows == [{'a "b': None, "c": None, "d": 0.5, "e": 9007199254740993}]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT nope FROM features.carrier_delays", r'column "nope" not found'),
        ("SELECT * FROM features.nope", r"does not exist(?s:.)*features\.carrier_delays"),
        ("SELEC 1", "syntax error"),
        ("SELECT CAST(carrier AS INT) FROM features.carrier_delays", "Could not convert"),
    ],
)
def test_a_statement_that_duckdb_refuses_is_named_with_the_tables_there_are(
    release: DatasetTables, tmp_path: Path, statement: str, message: str
) -> None:
    with pytest.raises(QueryError, match=message) as refused:
        write_result(release, statement, tmp_path / "rows.csv", "csv")

    assert "The tables in flights/1 are" in str(refused.value)
    assert [*tmp_path.iterdir()] == []


def test_a_table_without_rows_or_with_raw_files_says_so(release: DatasetTables) -> None:
    with pytest.raises(EmptyTableError, match="labels/delay_cause has no partition"):
        format_result(release, "SELECT * FROM labels.delay_cause")
    with pytest.raises(NotParquetError, match=r"raw/flights holds raw files \(.csv.gz\)"):
        format_result(release, "SELECT * FROM raw.flights")
