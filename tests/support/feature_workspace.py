"""A small workspace with feature tables, for the tests of publish and retrieve: real files, cache and manifests."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from feast import FeatureStore

from headrace.dataset import EVENT_TIME, KNOWN_TIME, UTC_MICROSECONDS, Dataset, FeatureTable, Guards, Input
from headrace.feast.open import close_store, open_store
from headrace.feast.retrieval_job import HeadraceRetrievalJob
from headrace.feast.retrieve import feast_retrieval
from headrace.publish.publish import PublishResult, publish
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

LARGE_INT = 2**53 + 1
"""The first integer that a float cannot represent."""

REPO = Path(__file__).parents[2]
NOON = datetime(2013, 1, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _no_kernel(**_tables: pl.LazyFrame) -> pl.LazyFrame:
    raise AssertionError("these tables are written by the tests")


WEATHER = FeatureTable(
    name="origin_weather",
    keys=("origin",),
    inputs={"weather": Input("validated/weather")},
    transform=_no_kernel,
    features={
        "temp_c": pl.Float64(),
        "gusts": pl.Int64(),
        "humidity": pl.Float32(),
        "sky": pl.String(),
        "frozen": pl.Boolean(),
    },
    ttl=timedelta(hours=6),
)
AIRCRAFT = FeatureTable(
    name="aircraft_history",
    keys=("tailnum",),
    inputs={"flights": Input("validated/flights")},
    transform=_no_kernel,
    features={"delay_min": pl.Float64(), "flights_7d": pl.Int32()},
    ttl=timedelta(days=7),
)
ROUTES = FeatureTable(
    name="route_traffic",
    keys=("carrier_id", "origin"),
    inputs={"flights": Input("validated/flights")},
    transform=_no_kernel,
    features={"temp_c": pl.Float64()},
    ttl=timedelta(0),
    key_types={"carrier_id": pl.Int64()},
)
DATASET = Dataset(
    name="little",
    description="A dataset of the tests",
    owner="tests",
    sources=(),
    features=(WEATHER, AIRCRAFT, ROUTES),
    service="little_service",
    guards=Guards(max_vanished_share=1, max_future=None),  # keys come and go as a test wants it
)


def create_workspace(root: Path) -> TableStore:
    """Create a workspace with no table, and Feast's configuration as it is shipped."""
    (root / "feature_repo").mkdir(parents=True)
    shutil.copy(REPO / "feature_repo" / "feature_store.yaml", root / "feature_repo")
    return TableStore.at(root)


def settings(root: Path) -> Settings:
    """Registry and online store in files of the workspace."""
    return Settings.model_validate(
        {
            "FEAST_REGISTRY_URL": f"sqlite:///{root}/feast/registry.db",
            "FEAST_ONLINE_STORE_PATH": f"{root}/feast/online.db",
        }
    )


_OPEN_STORES: list[FeatureStore] = []


def open_workspace_store(table_store: TableStore) -> FeatureStore:
    """Open Feast's store of the workspace, until `close_all`."""
    _OPEN_STORES.append(open_store(table_store.root / "feature_repo", settings(table_store.root)))
    return _OPEN_STORES[-1]


def close_all() -> None:
    """Close every store that was opened here."""
    while _OPEN_STORES:
        close_store(_OPEN_STORES.pop())


def write_table(table_store: TableStore, table: FeatureTable, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table, one partition per UTC day. A missing feature is null; known time defaults to event time."""
    columns = dict.fromkeys(table.keys, pl.String()) | dict(table.key_types)
    schema = {**columns, EVENT_TIME: UTC_MICROSECONDS, KNOWN_TIME: UTC_MICROSECONDS, **table.features}
    full = [{KNOWN_TIME: row[EVENT_TIME], **dict.fromkeys(table.features), **row} for row in rows]
    frame = pl.DataFrame(full, schema=schema)
    days = frame.group_by(pl.col(EVENT_TIME).dt.date().cast(pl.String))
    entries = {str(day): _entry(table_store, table, part) for (day,), part in days}
    table_store.checkout(Manifest(f"features/{DATASET.name}/{table.name}", partitions=entries))


def _entry(table_store: TableStore, table: FeatureTable, rows: pl.DataFrame) -> PartitionEntry:
    ordered = parquet.canonical(rows, [*table.keys, EVENT_TIME])
    stored = table_store.cache.add(lambda path: parquet.write(ordered, path))
    return PartitionEntry(stored.md5, stored.md5, stored.size, rows.height)


def add_second_dataset(table_store: TableStore) -> Dataset:
    """Add a second dataset with the same rows in other tables."""
    tables = tuple(replace(table, name=f"other_{table.name}") for table in DATASET.features)
    for table in DATASET.features:
        made = table_store.manifest(f"features/{DATASET.name}/{table.name}")
        table_store.checkout(replace(made, table=f"features/other/other_{table.name}"))
    return replace(DATASET, name="other", service="other_service", features=tables)


def write_all_tables(table_store: TableStore) -> None:
    """Write every table, with a few rows around noon of 9 January."""
    write_table(
        table_store,
        WEATHER,
        [
            {"origin": "EWR", EVENT_TIME: NOON - HOUR, "temp_c": 1.5, "gusts": 2**53 + 1, "humidity": 0.1},
            {"origin": "EWR", EVENT_TIME: NOON, "temp_c": 2.5, "gusts": None, "sky": "clear", "frozen": False},
            {"origin": "JFK", EVENT_TIME: NOON - 2 * HOUR, "temp_c": 0.1 + 0.2, "gusts": 2**53 + 1, "frozen": True},
            {"origin": "LGA", EVENT_TIME: NOON - 7 * HOUR, "temp_c": 9.0},
        ],
    )
    write_table(
        table_store,
        AIRCRAFT,
        [
            {"tailnum": "N1", EVENT_TIME: NOON - timedelta(days=8), "delay_min": 3.0, "flights_7d": 1},
            {"tailnum": "N2", EVENT_TIME: NOON - timedelta(days=2), "delay_min": -4.0, "flights_7d": 7},
            {"tailnum": "N3", EVENT_TIME: NOON - HOUR},
        ],
    )
    write_table(
        table_store, ROUTES, [{"carrier_id": 2**53 + 1, "origin": "EWR", EVENT_TIME: NOON - HOUR, "temp_c": 7.0}]
    )


def tag_release(table_store: TableStore, number: int) -> str:
    """Tag the workspace's tables as the release `little/<number>`, as `headrace release` records them."""
    stages = {}
    for table in table_store.tables(DATASET.name):
        manifest = table_store.manifest(table)
        stages[table] = {"cmd": "true", "outs": [table_store.dvc_out(manifest, {})]}
    (table_store.root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    name = f"{DATASET.name}/{number}"
    _git(table_store.root, "init", "--quiet")
    _git(table_store.root, "add", "dvc.lock")
    _git(table_store.root, "commit", "--quiet", "--allow-empty", "--message", name)
    _git(table_store.root, "tag", name)
    return name


def _git(root: Path, *words: str) -> None:
    person = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    subprocess.run(["git", "-C", root, *person, *words], check=True)


AIRCRAFT_ROWS = [
    {"tailnum": "N2", "event_time": NOON - 2 * HOUR, "delay_min": -4.0},
    {"tailnum": "N3", "event_time": NOON - HOUR, "delay_min": 3.0},
]

AIRCRAFT_CHANGES: dict[str, tuple[list[dict[str, Any]], list[float | None]]] = {
    "corrected at the same time": ([{**AIRCRAFT_ROWS[0], "delay_min": 99.0}, AIRCRAFT_ROWS[1]], [99.0, 3.0]),
    "deleted": ([AIRCRAFT_ROWS[0]], [-4.0, None]),
    "late, and newer than what was there": (
        [*AIRCRAFT_ROWS, {"tailnum": "N3", "event_time": NOON - HOUR / 2, "known_time": NOON, "delay_min": 5.0}],
        [-4.0, 5.0],
    ),
    "late, and older than what was there": (
        [*AIRCRAFT_ROWS, {"tailnum": "N3", "event_time": NOON - 3 * HOUR, "known_time": NOON, "delay_min": 5.0}],
        [-4.0, 3.0],
    ),
    "withdrawn": ([AIRCRAFT_ROWS[0], {**AIRCRAFT_ROWS[1], "delay_min": None}], [-4.0, None]),
    "older than its TTL": (
        [AIRCRAFT_ROWS[0], {**AIRCRAFT_ROWS[1], "event_time": NOON - timedelta(days=8)}],
        [-4.0, None],
    ),
    "an older event": ([AIRCRAFT_ROWS[0], {**AIRCRAFT_ROWS[1], "event_time": NOON - timedelta(days=6)}], [-4.0, 3.0]),
    "a key deleted and one of another value": ([{**AIRCRAFT_ROWS[0], "tailnum": "N3"}], [None, -4.0]),
}
"""Change of the aircraft table → its rows afterwards, and the latest delays of N2 and N3."""


def retrieval_job(store: FeatureStore, requests: object, *names: str, **options: Any) -> HeadraceRetrievalJob:  # noqa: ANN401
    job = store.get_historical_features(requests, list(names), **options)
    assert isinstance(job, HeadraceRetrievalJob)
    return job


def weather_requests(origins: Sequence[str | None], times: Sequence[datetime]) -> pl.DataFrame:
    schema = {"origin": pl.String(), "event_timestamp": UTC_MICROSECONDS}
    return pl.DataFrame({"origin": origins, "event_timestamp": times}, schema=schema)


def requests_with_all_keys(times: Sequence[datetime]) -> pl.DataFrame:
    count = len(times)
    return weather_requests(["EWR"] * count, times).with_columns(
        tailnum=pl.lit("N2"), carrier_id=pl.lit(LARGE_INT, pl.Int64)
    )


def publish_release(table_store: TableStore, release: str | None = None, dataset: Dataset = DATASET) -> PublishResult:
    return publish(dataset, table_store, settings(table_store.root), release)


def online_delays(table_store: TableStore, tailnums: Sequence[str]) -> list[float | None]:
    store = open_workspace_store(table_store)
    rows = [{"tailnum": tailnum, "origin": "EWR", "carrier_id": 1} for tailnum in tailnums]
    service = store.get_feature_service(DATASET.service)
    answer = store.get_online_features(service, rows, full_feature_names=True).to_dict()
    return list(answer["aircraft_history__delay_min"])


def offline_delays(table_store: TableStore, tailnums: Sequence[str], at: PublishResult) -> list[float | None]:
    asked = pl.DataFrame({"tailnum": tailnums}).with_columns(
        origin=pl.lit("EWR"), carrier_id=pl.lit(1, pl.Int64), event_timestamp=pl.lit(at.as_of)
    )
    answer = feast_retrieval(DATASET, open_workspace_store(table_store), asked).to_polars()
    return answer["aircraft_history__delay_min"].to_list()


def execute_on_sqlite(table_store: TableStore, statement: str) -> None:
    with closing(sqlite3.connect(table_store.root / "feast" / "online.db")) as database:
        database.executescript(statement)
