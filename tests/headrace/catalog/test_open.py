"""`headrace.open` promises: the rows of a release or of the workspace, in any clone; only what is needed is fetched.

Real workspaces with a real remote; a clone has git's files alone until something is read.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from workspaces import DAYS, Workspace

import headrace
from headrace.catalog.open import open_dataset
from headrace.catalog.tables import DatasetTables, may_hold
from headrace.retrieve.errors import UnreadablePartitionError
from headrace.storage.partition_names import partition_interval

CARRIERS, FLIGHTS = "features/carrier_delays", "validated/flights"
FIRST, SECOND = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in DAYS[:2])


@pytest.fixture(scope="module")
def released_workspace(_released: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with release `flights/1`, for tests that only read."""
    return _released.copy(tmp_path_factory.mktemp("open"))


@pytest.fixture(scope="module")
def release(released_workspace: Workspace) -> DatasetTables:
    """The release, where it was made."""
    return open_dataset("flights", release="flights/1", workspace=released_workspace.root)


@pytest.fixture
def clone(released_workspace: Workspace, tmp_path: Path) -> Workspace:
    """A clone that never pulled."""
    return released_workspace.clone(f"clone-{tmp_path.name}")


def cached_partitions(clone: Workspace, table: str) -> list[str]:
    """The partitions whose bytes are in the clone's cache."""
    state, _, name = table.partition("/")
    manifest = clone.table_store.manifest(f"{state}/flights/{name}")
    return [day for day, entry in sorted(manifest.partitions.items()) if clone.table_store.cache.has(entry.md5)]


# --- a dataset is a mapping of tables ---


def test_a_dataset_is_a_mapping_of_its_tables(release: DatasetTables, released_workspace: Workspace) -> None:
    assert list(release) == sorted(release)
    assert len(release) == len(released_workspace.table_store.tables("flights"))
    assert CARRIERS in release
    assert "features/nothing" not in release
    assert release.get("features/nothing") is None
    assert release[CARRIERS].partitions == (*DAYS,)


def test_what_is_printed_names_the_release_and_what_is_in_each_table(release: DatasetTables) -> None:
    lines = repr(release).splitlines()

    assert lines[0] == "<DatasetTables flights in flights/1"
    assert len(lines) == 1 + len(release)
    rows = release[CARRIERS].rows
    assert f"  {CARRIERS}" in repr(release)
    assert repr(release[CARRIERS]) == (
        f"<DatasetTable {CARRIERS}: 3 partitions (2013-01-01 … 2013-01-03), {rows:,} rows>"
    )
    assert repr(release["raw/flights"]).endswith("3 partitions (2013-01-01 … 2013-01-03)>"), "nobody counted its rows"


def test_the_workspace_has_what_came_since_the_release(released: Workspace) -> None:
    released.raw.delete_day(DAYS[0])
    released.refresh()

    now = open_dataset("flights", workspace=released.root)
    before = open_dataset("flights", release="latest", workspace=released.root)

    assert before.release == "flights/1"
    assert before["raw/flights"].partitions == (*DAYS,)
    assert now["raw/flights"].partitions == (*DAYS[1:],)
    assert now[CARRIERS].content_hash != before[CARRIERS].content_hash
    assert now["features/origin_weather"].content_hash == before["features/origin_weather"].content_hash
    assert now.releases == ["flights/1"]


# --- every form gives the same rows ---


def test_polars_arrow_pandas_and_duckdb_give_the_same_rows(
    release: DatasetTables, released_workspace: Workspace
) -> None:
    table, expected = (
        release[CARRIERS],
        released_workspace.table_store.scan("features/flights/carrier_delays").collect(),
    )

    assert_frame_equal(table.polars().collect(), expected)
    assert_frame_equal(pl.DataFrame(table.arrow()), expected)
    assert_frame_equal(table.duckdb().pl().cast(dict(expected.schema)), expected)
    frame = table.pandas()
    assert frame.shape == expected.shape
    assert frame["carrier"].tolist() == expected["carrier"].to_list()
    assert {str(frame[name].dtype) for name, kind in expected.schema.items() if kind.is_integer()} <= {"Int64", "Int32"}
    assert table.schema == expected.schema
    assert table.rows == expected.height


@pytest.mark.parametrize(
    "query",
    [
        lambda rows: rows.filter(pl.col("event_time") < SECOND),
        lambda rows: rows.filter(pl.col("event_time").is_between(FIRST, FIRST) | (pl.col("carrier") == "UA")),
        lambda rows: rows.filter(pl.col("event_time") == SECOND, pl.col("carrier").is_in(["UA", "B6"])),
        lambda rows: rows.filter(pl.col("known_time") >= SECOND).select("carrier", "event_time"),
        lambda rows: rows.head(7).filter(pl.col("carrier") != "UA"),
        lambda rows: rows.filter(pl.col("carrier") == "UA").head(2),
        lambda rows: rows.tail(3),
        lambda rows: rows.select(pl.len()),
        lambda rows: rows.filter(pl.col("event_time") < datetime(2000, 1, 1, tzinfo=UTC)),
        lambda rows: rows.group_by("carrier").agg(pl.len()).sort("carrier"),
    ],
)
def test_a_lazy_query_gives_what_the_same_query_gives_on_the_files(
    release: DatasetTables, released_workspace: Workspace, query: Callable[[pl.LazyFrame], pl.LazyFrame]
) -> None:
    files = released_workspace.table_store.scan("features/flights/carrier_delays")

    assert_frame_equal(query(release[CARRIERS].polars()).collect(), query(files).collect())
    assert_frame_equal(query(release[CARRIERS].polars()).collect(engine="streaming"), query(files).collect())


def test_a_part_of_a_table_is_a_table(release: DatasetTables) -> None:
    part = release[CARRIERS].select(partitions=[DAYS[1]], columns=["event_time", "carrier"])

    assert part.partitions == (DAYS[1],)
    assert part.schema.names() == ["event_time", "carrier"]
    expected = release[CARRIERS].polars().filter(pl.col("event_time").dt.date().cast(pl.String) == DAYS[1])
    assert_frame_equal(part.polars().collect(), expected.select("event_time", "carrier").collect())
    assert part.duckdb().columns == part.arrow().column_names == ["event_time", "carrier"]
    assert part.rows == part.polars().collect().height


def test_duckdb_joins_tables_on_one_connection(release: DatasetTables) -> None:
    connection = duckdb.connect()
    delays, flights = release[CARRIERS].duckdb(connection), release[FLIGHTS].duckdb(connection)  # noqa: F841  named in the query

    found = connection.sql("SELECT count(DISTINCT carrier) FROM delays WHERE carrier IN (SELECT carrier FROM flights)")

    rows = release[CARRIERS].polars().collect()
    carriers = release[FLIGHTS].polars().select("carrier").collect()["carrier"]
    assert found.pl().item() == rows.filter(pl.col("carrier").is_in(carriers.implode()))["carrier"].n_unique()


# --- only what is needed is fetched ---


def test_a_clone_that_never_pulled_fetches_nothing_until_rows_are_read(clone: Workspace) -> None:
    tables = open_dataset("flights", release="flights/1", workspace=clone.root)

    table = tables[CARRIERS]

    assert repr(table).endswith("rows>")
    assert cached_partitions(clone, CARRIERS) == [], "opening reads manifests"
    rows = table.polars().filter(pl.col("event_time") >= SECOND)
    assert cached_partitions(clone, CARRIERS) == [DAYS[0]], "a lazy frame needs the schema"
    assert rows.collect().height > 0
    assert cached_partitions(clone, CARRIERS) == DAYS
    assert cached_partitions(clone, FLIGHTS) == []


def test_a_filter_on_event_time_fetches_the_days_that_may_hold_it(
    clone: Workspace, released_workspace: Workspace
) -> None:
    table = open_dataset("flights", release="flights/1", workspace=clone.root)[CARRIERS]
    wanted = pl.col("event_time") < SECOND

    rows = table.polars().filter(wanted).collect()

    assert_frame_equal(
        rows, released_workspace.table_store.scan("features/flights/carrier_delays").filter(wanted).collect()
    )
    assert cached_partitions(clone, CARRIERS) == [DAYS[0]]


def test_the_head_of_a_table_fetches_its_first_partition(clone: Workspace) -> None:
    table = open_dataset("flights", release="flights/1", workspace=clone.root)[CARRIERS]

    assert table.polars().head(3).collect().height == 3
    assert cached_partitions(clone, CARRIERS) == [DAYS[0]]


def test_chosen_partitions_are_fetched_and_no_other(clone: Workspace) -> None:
    tables = open_dataset("flights", release="flights/1", workspace=clone.root)

    assert tables[CARRIERS].select(partitions=[DAYS[2]]).duckdb().count("*").fetchall()
    assert [*tables["raw/flights"].select(partitions=[DAYS[1]]).paths()] == [DAYS[1]]

    assert cached_partitions(clone, CARRIERS) == [DAYS[2]]
    assert cached_partitions(clone, "raw/flights") == [DAYS[1]]


@pytest.mark.parametrize(
    ("predicate", "kept"),
    [
        (pl.col("event_time") >= SECOND, ["2013-01-02", "2013-01-03", "all"]),
        (pl.col("event_time") < SECOND, ["2013-01-01", "all"]),
        (pl.col("event_time") == SECOND, ["2013-01-02", "all"]),
        (pl.col("event_time").is_between(FIRST, SECOND, closed="left"), ["2013-01-01", "all"]),
        ((pl.col("event_time") < SECOND) & (pl.col("x") > 1), ["2013-01-01", "all"]),
        ((pl.col("event_time") < SECOND) | (pl.col("x") > 1), [*DAYS, "all"]),
        (pl.col("x") > 1, [*DAYS, "all"]),
        (pl.col("event_time").dt.hour() > 3, [*DAYS, "all"]),
        (pl.col("event_time").is_null(), [*DAYS, "all"]),
    ],
)
def test_a_partition_is_left_out_only_where_no_row_of_its_day_can_be_wanted(
    predicate: pl.Expr, kept: list[str]
) -> None:
    schema = {"event_time": pl.Datetime("us", "UTC"), "x": pl.Int64()}

    found = may_hold(predicate, schema, {name: partition_interval(name) for name in [*DAYS, "all"]})

    assert found == kept, "Polars changed `Expr._skip_batch_predicate`, which `may_hold` asks: see catalog/tables.py"


# --- raw files ---


def test_raw_files_come_as_paths_and_raw_rows_of_a_database_as_rows_too(
    release: DatasetTables, released_workspace: Workspace
) -> None:
    flights, planes = release["raw/flights"], release["raw/planes"]

    assert [*flights.paths()] == list(DAYS)
    assert {day: path.read_bytes() for day, path in flights.paths().items()} == {
        day: path.read_bytes() for day, path in released_workspace.table_store.paths("raw/flights/flights").items()
    }
    with pytest.raises(headrace.NotParquetError, match=r"raw/flights holds raw files \(.csv.gz\).*validated/flights"):
        flights.polars()
    assert planes.polars().collect().height == release["validated/planes"].rows


# --- what cannot be opened ---


def test_what_there_is_not_is_named_with_the_next_command(
    released_workspace: Workspace, release: DatasetTables
) -> None:
    with pytest.raises(headrace.UnknownDatasetError, match=r"no table of a dataset 'trains'.*flights.*run trains"):
        open_dataset("trains", workspace=released_workspace.root)
    with pytest.raises(headrace.UnknownReleaseError, match=r"no release 'flights/9'.*flights/1.*git fetch --tags"):
        open_dataset("flights", release="flights/9", workspace=released_workspace.root)
    with pytest.raises(headrace.HeadraceError, match=r"digits has no release.*headrace release digits"):
        open_dataset("digits", release="latest", workspace=released_workspace.root)
    with pytest.raises(headrace.NoSuchTableError, match=r"no table 'features/carrier_delay' in flights/1.*_delays"):
        release["features/carrier_delay"]
    with pytest.raises(headrace.NoSuchTableError, match=r"no partition 2014-01-01; it has 2013-01-01 … 2013-01-03"):
        release[CARRIERS].select(partitions=["2014-01-01"])


def test_a_table_without_a_partition_says_so(release: DatasetTables) -> None:
    labels = release["labels/delay_cause"]

    assert (labels.partitions, labels.rows) == ((), 0)
    for read in (labels.polars, labels.arrow, labels.pandas, labels.duckdb):
        with pytest.raises(headrace.EmptyTableError, match=r"labels/delay_cause has no partition.*status flights"):
            read()


def test_a_folder_outside_a_project_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(headrace.HeadraceError, match=r"There is no project here.*headrace init"):
        headrace.open("flights")


def test_bytes_that_are_not_those_of_the_release_are_refused(clone: Workspace) -> None:
    table = open_dataset("flights", release="flights/1", workspace=clone.root)[CARRIERS]
    path = table.paths()[DAYS[1]]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(UnreadablePartitionError, match=r"2013-01-02: expected md5 .* Delete that file"):
        table.arrow()
    with pytest.raises(pl.exceptions.ComputeError, match=r"2013-01-02: expected md5 .* Delete that file"):
        table.polars().collect()


# --- training rows, from anywhere in a clone ---


def test_a_script_in_a_clone_gets_training_rows_with_and_without_feast(clone: Workspace) -> None:
    script = """
import json, sys
import polars as pl
import headrace

release = headrace.open("flights", release="latest")
flights = release["validated/flights"].polars().filter(pl.col("carrier") == "UA").head(5).collect()
requests = flights.select("carrier", "origin", "tailnum", event_timestamp=pl.col("scheduled_at"))
rows = release.retrieve(requests, ["carrier_delays:departed_3h", "origin_weather:temperature_f"]).to_polars()
assert "feast" not in sys.modules
every = release.retrieve(requests).to_polars()
with release.feature_store() as store:
    service = store.get_feature_service(release.declaration.service)
    job = store.get_historical_features(requests, service, full_feature_names=True)
    same = pl.DataFrame(job.to_arrow()).equals(every)
print(json.dumps({"rows": rows.height, "columns": rows.columns, "same": same, "name": release.declaration.name}))
"""
    folder = clone.root / "notebooks"
    folder.mkdir()
    (folder / "train.py").write_text(f"import os\nos.chdir({str(folder)!r})\n{script}", "utf-8")

    found = json.loads(clone.command("python", str(folder / "train.py")).splitlines()[-1])

    assert found["rows"] == 5
    assert found["columns"][-2:] == ["carrier_delays__departed_3h", "origin_weather__temperature_f"]
    assert found["same"]
    assert found["name"] == "flights"
