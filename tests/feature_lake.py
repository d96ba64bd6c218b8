"""A small workspace with feature tables, for the tests of publish and retrieve: real files, cache and manifests."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from pipelines import parquet
from pipelines.dataset import UTC_MICROSECONDS, Dataset, FeatureTable, Reads
from pipelines.features import EVENT_TIME, KNOWN_TIME
from pipelines.settings import Settings
from pipelines.systems.dvc import directory_bytes
from pipelines.table import MANIFEST, Entry, Lake, Manifest

REPO = Path(__file__).parents[1]
NOON = datetime(2013, 1, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _no_kernel(**_tables: pl.LazyFrame) -> pl.LazyFrame:
    raise AssertionError("these tables are written by the tests")


WEATHER = FeatureTable(
    name="origin_weather",
    keys=("origin",),
    reads={"weather": Reads("validated/weather")},
    kernel=_no_kernel,
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
    reads={"flights": Reads("validated/flights")},
    kernel=_no_kernel,
    features={"delay_min": pl.Float64(), "flights_7d": pl.Int32()},
    ttl=timedelta(days=7),
)
ROUTES = FeatureTable(
    name="route_traffic",
    keys=("carrier_id", "origin"),
    reads={"flights": Reads("validated/flights")},
    kernel=_no_kernel,
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
)


def workspace(root: Path) -> Lake:
    """A workspace with no table, and Feast's configuration as we ship it."""
    (root / "feature_repo").mkdir(parents=True)
    shutil.copy(REPO / "feature_repo" / "feature_store.yaml", root / "feature_repo")
    return Lake.at(root)


def settings(root: Path) -> Settings:
    """Registry and online store in files of the workspace."""
    return Settings.model_validate(
        {
            "FEAST_REGISTRY_URL": f"sqlite:///{root}/feast/registry.db",
            "FEAST_ONLINE_STORE_PATH": f"{root}/feast/online.db",
        }
    )


def fill(lake: Lake, table: FeatureTable, rows: Sequence[Mapping[str, Any]]) -> None:
    """Make `rows` the table: a partition a UTC day; a feature not given is null, known time is event time."""
    columns = dict.fromkeys(table.keys, pl.String()) | dict(table.key_types)
    schema = {**columns, EVENT_TIME: UTC_MICROSECONDS, KNOWN_TIME: UTC_MICROSECONDS, **table.features}
    full = [{KNOWN_TIME: row[EVENT_TIME], **dict.fromkeys(table.features), **row} for row in rows]
    frame = pl.DataFrame(full, schema=schema)
    days = frame.group_by(pl.col(EVENT_TIME).dt.date().cast(pl.String))
    entries = {str(day): _entry(lake, table, part) for (day,), part in days}
    lake.commit(Manifest(f"features/{DATASET.name}/{table.name}", partitions=entries))


def _entry(lake: Lake, table: FeatureTable, rows: pl.DataFrame) -> Entry:
    ordered = parquet.canonical(rows, [*table.keys, EVENT_TIME])
    stored = lake.cache.add(lambda path: parquet.write(ordered, path))
    return Entry(stored.md5, stored.md5, stored.size, rows.height)


def fill_all(lake: Lake) -> None:
    """Every table with a few rows around noon of 9 January."""
    fill(
        lake,
        WEATHER,
        [
            {"origin": "EWR", EVENT_TIME: NOON - HOUR, "temp_c": 1.5, "gusts": 2**53 + 1, "humidity": 0.1},
            {"origin": "EWR", EVENT_TIME: NOON, "temp_c": 2.5, "gusts": None, "sky": "clear", "frozen": False},
            {"origin": "JFK", EVENT_TIME: NOON - 2 * HOUR, "temp_c": 0.1 + 0.2, "gusts": 2**53 + 1, "frozen": True},
            {"origin": "LGA", EVENT_TIME: NOON - 7 * HOUR, "temp_c": 9.0},
        ],
    )
    fill(
        lake,
        AIRCRAFT,
        [
            {"tailnum": "N1", EVENT_TIME: NOON - timedelta(days=8), "delay_min": 3.0, "flights_7d": 1},
            {"tailnum": "N2", EVENT_TIME: NOON - timedelta(days=2), "delay_min": -4.0, "flights_7d": 7},
            {"tailnum": "N3", EVENT_TIME: NOON - HOUR},
        ],
    )
    fill(lake, ROUTES, [{"carrier_id": 2**53 + 1, "origin": "EWR", EVENT_TIME: NOON - HOUR, "temp_c": 7.0}])


def release(lake: Lake, number: int) -> str:
    """Tag the workspace's tables as the release `little/<number>`, as `headrace version` records them."""
    stages = {}
    for table in lake.tables(DATASET.name):
        manifest = lake.manifest(table)
        own = lake.cache.add_bytes(manifest.to_bytes())
        files = {f"{name}.parquet": entry.md5 for name, entry in manifest.partitions.items()} | {MANIFEST: own.md5}
        folder = lake.cache.add_bytes(directory_bytes(files), suffix=".dir")
        stages[table] = {"cmd": "true", "outs": [{"path": f"data/{table}", "md5": folder.md5}]}
    (lake.root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    name = f"{DATASET.name}/{number}"
    _git(lake.root, "init", "--quiet")
    _git(lake.root, "add", "dvc.lock")
    _git(lake.root, "commit", "--quiet", "--allow-empty", "--message", name)
    _git(lake.root, "tag", name)
    return name


def _git(root: Path, *words: str) -> None:
    person = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    subprocess.run(["git", "-C", root, *person, *words], check=True)
