"""Publish: what a full load, a change of 1 %, a rollback and a switch cost, beside Feast's own `materialize`.

100,000 keys with five features, ten days of rows, in SQLite (and in PostgreSQL or Redis where `--store` names one that
runs). CPU seconds of this process, without the import of Feast, which both pay; ours include the proof of every value.
"""

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64
from measure import REPOSITORY, Cost, Report, middle, options

from pipelines.contracts.features import EVENT_TIME, KNOWN_TIME
from pipelines.dataset import UTC_MICROSECONDS, Dataset, FeatureTable, Reads
from pipelines.engine import parquet
from pipelines.engine.lake import Lake
from pipelines.engine.manifest import MANIFEST, Entry, Manifest
from pipelines.publish import publish
from pipelines.settings import Settings
from pipelines.systems.dvc.objects import directory_bytes

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
DAYS = 10
FEATURES = [f"f{number}" for number in range(5)]


def _no_kernel(**_tables: pl.LazyFrame) -> pl.LazyFrame:
    raise AssertionError("the rows are written by the benchmark")


TABLE = FeatureTable(
    name="history",
    keys=("customer",),
    reads={"rows": Reads("validated/rows")},
    kernel=_no_kernel,
    features=dict.fromkeys(FEATURES, pl.Float64()),
    ttl=timedelta(days=30),
    key_types={"customer": pl.Int64()},
)
DATASET = Dataset(
    name="bench", description="Bench", owner="bench", sources=(), features=(TABLE,), service="bench_service"
)


@dataclass
class Ground:
    """A workspace with releases, and where it is published."""

    folder: Path
    keys: int
    online: dict[str, Any]
    days: dict[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        """Its tables."""
        return Lake.at(self.folder / "workspace")

    @property
    def settings(self) -> Settings:
        """Where registry and SQLite lie."""
        return Settings.model_validate(
            {
                "FEAST_REGISTRY_URL": f"sqlite:///{self.folder}/feast/registry.db",
                "FEAST_ONLINE_STORE_PATH": f"{self.folder}/feast/online.db",
            }
        )

    def make(self) -> None:
        """Release 1 and 2: all days; 2 has one value of every key changed; 3 is 1 with 1 % of the keys changed."""
        repo = self.folder / "workspace" / "feature_repo"
        repo.mkdir(parents=True)
        config = yaml.safe_load((REPOSITORY / "feature_repo" / "feature_store.yaml").read_text())
        if self.online:
            config["online_store"] = self.online
        (repo / "feature_store.yaml").write_text(yaml.safe_dump(config))
        chance = np.random.default_rng(7)
        for day in range(DAYS):
            time_of = NOON - timedelta(days=DAYS - 1 - day)
            values = {name: chance.random(self.keys) for name in FEATURES}
            self.days[str(time_of.date())] = frame(np.arange(self.keys), time_of, values)
        last = max(self.days)
        first = self.days[last]
        self.release(1)
        self.days[last] = first.with_columns(f0=pl.col("f0") + 1)
        self.release(2)
        self.days[last] = first.with_columns(
            f0=pl.when(pl.col("customer") % 100 == 0).then(pl.col("f0") + 2).otherwise("f0")
        )
        self.release(3)

    def release(self, number: int) -> None:
        """Tag the days as a release."""
        lake = self.lake
        entries = {}
        for day, rows in self.days.items():
            stored = lake.cache.add(lambda path, rows=rows: parquet.write(rows, path))  # type: ignore[misc]
            entries[day] = Entry(stored.md5, stored.md5, stored.size, rows.height)
        made = Manifest("features/bench/history", partitions=entries)
        lake.commit(made)
        own = lake.cache.add_bytes(made.to_bytes())
        files = {f"{name}.parquet": entry.md5 for name, entry in entries.items()} | {MANIFEST: own.md5}
        outs = lake.cache.add_bytes(directory_bytes(files), suffix=".dir")
        stage = {"cmd": "true", "outs": [{"path": f"data/{made.table}", "md5": outs.md5}]}
        (lake.root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {made.table: stage}}))
        git(lake.root, "init", "--quiet")
        git(lake.root, "add", "dvc.lock")
        git(lake.root, "commit", "--quiet", "--allow-empty", "--message", f"bench/{number}")
        git(lake.root, "tag", f"bench/{number}")

    def put(self, number: int) -> None:
        """Publish a release."""
        done = publish(DATASET, self.lake, self.settings, f"bench/{number}")
        if not done.switched:
            sys.exit(f"release {number} was live already")


def frame(keys: Any, at: datetime, values: dict[str, Any]) -> pl.DataFrame:  # noqa: ANN401  arrays
    """Rows of one moment."""
    moment = pl.lit(at, dtype=UTC_MICROSECONDS)
    rows = pl.DataFrame({"customer": keys.astype(np.int64), **values})
    return rows.select("customer", moment.alias(EVENT_TIME), moment.alias(KNOWN_TIME), *FEATURES)


def git(root: Path, *words: str) -> None:
    """A git command."""
    person = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(["git", "-C", root, *person, *words], check=True)


@contextmanager
def stock(folder: Path, rows: pl.DataFrame) -> Any:  # noqa: ANN401
    """Feast as it comes: a file source, its own offline store, SQLite."""
    path = folder / "rows.parquet"
    rows.write_parquet(path)
    config = RepoConfig(
        project="stock",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/stock.db"},
        online_store={"type": "sqlite", "path": f"{folder}/stock_online.db"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.INT64)
    source = FileSource(path=str(path), timestamp_field=EVENT_TIME, created_timestamp_column=KNOWN_TIME)
    view = FeatureView(
        name="history",
        entities=[customer],
        ttl=timedelta(days=30),
        schema=[Field(name=name, dtype=Float64) for name in FEATURES],
        source=source,
    )
    store.apply([customer, view])
    yield store


def cost(work: Callable[[], object]) -> Cost:
    """What it takes, in this process."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    used = time.process_time() - cpu, time.monotonic() - wall
    return Cost(*used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def turn(folder: Path, keys: int, online: dict[str, Any]) -> dict[str, Cost]:
    """Every contender once."""
    shutil.rmtree(folder, ignore_errors=True)
    ground = Ground(folder, keys, online)
    ground.make()
    found = {"full load, proved": cost(lambda: ground.put(1))}
    ground.put(2)
    found["1 % of the keys changed"] = cost(lambda: ground.put(3))
    found["back: the switch alone"] = cost(lambda: ground.put(2))
    found["rollback of the 1 %"] = cost(lambda: ground.put(1))
    with stock(folder, pl.concat(ground.days.values())) as store:
        end = NOON + timedelta(hours=1)
        found["Feast's materialize, unproved"] = cost(lambda: store.materialize(NOON - timedelta(days=20), end))
    return found


def main() -> None:
    """Measure and report."""
    parser = options(__doc__ or "")
    parser.add_argument("--store", type=json.loads, default={}, help="another online_store of feature_store.yaml, JSON")
    parser.add_argument("--keys", type=int, default=100_000)
    asked = parser.parse_args()
    report = Report("publish", as_json=asked.json)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        turn(Path(folder) / "ground", 1000, asked.store)  # what is imported and compiled once
        turns = [turn(Path(folder) / "ground", asked.keys, asked.store) for _ in range(asked.repeats)]
    costs = {name: middle(found[name] for found in turns) for name in turns[0]}
    full, feast = costs["full load, proved"], costs["Feast's materialize, unproved"]
    report.table(f"publish of {asked.keys:,} keys to {asked.store.get('type', 'sqlite')}", costs, "full load, proved")
    for name, one in (("ours, proof included", full), ("Feast's materialize", feast)):
        report.note(f"{name}: {asked.keys / one.cpu_s:,.0f} entities a CPU second")
    report.target("ours / materialize", full.cpu_s / feast.cpu_s, 0.2)
    for name in ("1 % of the keys changed", "rollback of the 1 %", "back: the switch alone"):
        report.target(f"{name} / full load", costs[name].cpu_s / full.cpu_s, 0.03)
    report.end()


if __name__ == "__main__":
    main()
