"""Publish: what a full load, a change of 1 %, a rollback and a switch cost, beside Feast's own `materialize`.

100,000 keys with five features, ten days of rows, in SQLite, PostgreSQL and Redis. Each is measured twice: within a
process that has imported everything (what a key costs), and as a process of its own, import of Feast and all (what a
night costs; `PYTHONOPTIMIZE=1` for both). Ours include the proof: of a full load every value, of a difference the
values of what may have changed and of 1,000 other keys, and the whole set of keys. `materialize` proves nothing. Python
looks for garbage as seldom as in the command line, for all of them.

A million keys, by ours alone and once (SQLite; `--full`: all three), show what grows with the keys and what does not.

There are two changes of 1 %: a new day that has rows of 1 % of the keys, and, harder, a correction of 1 % of
the keys in a day in which every key has a row: both versions of that day are read whole and compared.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64
from measure import REPOSITORY, Contender, Cost, Report, middle, once, options
from stores import TYPES, online

from headrace.__main__ import tune_gc
from headrace.dataset import EVENT_TIME, KNOWN_TIME, UTC_MICROSECONDS, Dataset, FeatureTable, Input
from headrace.publish.publish import publish
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.manifest import Manifest, PartitionEntry
from headrace.storage.table_store import Lake

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
DAYS = 10
FEATURES = [f"f{number}" for number in range(5)]


def _no_kernel(**_tables: pl.LazyFrame) -> pl.LazyFrame:
    raise AssertionError("the rows are written by the benchmark")


TABLE = FeatureTable(
    name="history",
    keys=("customer",),
    inputs={"rows": Input("validated/rows")},
    transform=_no_kernel,
    features=dict.fromkeys(FEATURES, pl.Float64()),
    ttl=timedelta(days=30),
    key_types={"customer": pl.Int64()},
)
DATASET = Dataset(
    name="bench", description="Bench", owner="bench", sources=(), features=(TABLE,), service="bench_service"
)


Store = tuple[str, dict[str, Any]]
"""Feast's name of an online store, and its options."""


@dataclass
class Ground:
    """A workspace with releases, and where it is published."""

    folder: Path
    keys: int
    kind: str
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
        """Release 1 and 2: all days; 2 has one value of every key changed; 3 is 1 with 1 % of the keys changed.

        Release 4 is 1 and a new day with rows of 1 % of the keys.
        """
        repo = self.folder / "workspace" / "feature_repo"
        repo.mkdir(parents=True)
        config = yaml.safe_load((REPOSITORY / "feature_repo" / "feature_store.yaml").read_text())
        config["online_store"] = {"path": "${FEAST_ONLINE_STORE_PATH}", **self.online, "type": TYPES[self.kind]}
        if self.kind != "sqlite":
            del config["online_store"]["path"]
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
        some = first.filter(pl.col("customer") % 100 == 0)
        tomorrow = pl.lit(NOON + timedelta(days=1), dtype=UTC_MICROSECONDS)
        self.days[last] = first
        self.days[str((NOON + timedelta(days=1)).date())] = some.with_columns(
            tomorrow.alias(EVENT_TIME), tomorrow.alias(KNOWN_TIME)
        )
        self.release(4)

    def release(self, number: int) -> None:
        """Tag the days as a release."""
        lake = self.lake
        entries = {}
        for day, rows in self.days.items():
            stored = lake.cache.add(lambda path, rows=rows: parquet.write(rows, path))  # type: ignore[misc]
            entries[day] = PartitionEntry(stored.md5, stored.md5, stored.size, rows.height)
        made = Manifest("features/bench/history", partitions=entries)
        lake.commit(made)
        stage = {"cmd": "true", "outs": [lake.out(lake.manifest(made.table), {})]}
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


def stock(ground: Ground) -> FeatureStore:
    """Feast as it comes: a file source, its own offline store, its own online store of that kind."""
    folder = ground.folder
    path = folder / "rows.parquet"
    config = RepoConfig(
        project="stock",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/stock.db"},
        online_store={"type": ground.kind, **(ground.online or {"path": f"{folder}/stock_online.db"})},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    if not path.exists():
        pl.concat(ground.days.values()).write_parquet(path)
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
    return store


def materialize(store: FeatureStore) -> None:
    """Its load, from the first row to the last of release 1; what it says of it is left out."""
    with redirect_stdout(StringIO()):
        store.materialize(NOON - timedelta(days=20), NOON + timedelta(hours=1))


def cost(work: Callable[[], object]) -> Cost:
    """What it takes, in this process."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    used = time.process_time() - cpu, time.monotonic() - wall
    return Cost(*used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


DAY = "a new day, of 1 % of the keys"
STEPS = {
    "full load, proved": 1,
    "": 2,
    "1 % of the keys changed": 3,
    "back: the switch alone": 2,
    "rollback of 1 %": 1,
    " ": 3,
    DAY: 4,
}
"""What is measured → the release that is put online, in this order; what has no name is not."""

STOCK = "Feast's materialize, unproved"

MANY = 1_000_000
"""Keys at which ours is measured alone."""


def alone(ground: Ground) -> dict[str, Cost]:
    """Every step of ours once, in this process."""
    return {name: cost(lambda number=number: ground.put(number)) for name, number in STEPS.items()}  # type: ignore[misc]


def within(ground: Ground) -> dict[str, Cost]:
    """Every contender once, in this process."""
    found = alone(ground)
    store = stock(ground)
    return {**found, STOCK: cost(lambda: materialize(store))}


def apart(ground: Ground) -> dict[str, Cost]:
    """Every contender once, in a process of its own."""
    stock(ground)
    return {name: once(child(ground, str(number))) for name, number in {**STEPS, STOCK: "stock"}.items()}


def child(ground: Ground, what: str) -> Contender:
    """A process that puts a release online, or materializes."""
    asked = json.dumps([str(ground.folder), ground.keys, ground.kind, ground.online, what])
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "benchmarks")))
    env = {"PYTHONOPTIMIZE": "1", "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": path}
    return Contender(what, [sys.executable, __file__, "--child", asked], env=env)


def as_child(asked: str) -> None:
    """What `child` says."""
    tune_gc()
    folder, keys, kind, options, what = json.loads(asked)
    ground = Ground(Path(folder), keys, kind, options)
    if what == "stock":
        materialize(stock(ground))
    else:
        ground.put(int(what))


def measured(
    way: Callable[[Ground], dict[str, Cost]],
    place: Path,
    keys: int,
    store: tuple[str, dict[str, Any]],
    repeats: int = 1,
) -> dict[str, Cost]:
    """The medians of what each contender takes, on grounds made in `place` one after the other."""
    turns: list[dict[str, Cost]] = []
    for _ in range(repeats):
        shutil.rmtree(place, ignore_errors=True)
        ground = Ground(place, keys, *store)
        ground.make()
        if ground.kind != "sqlite":
            emptied(*store)
        turns.append(way(ground))
    return {name: middle(found[name] for found in turns) for name in turns[0] if name.strip()}


def emptied(kind: str, options: dict[str, Any]) -> None:
    """Forget what an earlier turn left on the server."""
    if kind == "redis":
        from redis import Redis  # noqa: PLC0415

        host, _, port = options["connection_string"].partition(":")
        with Redis(host, int(port)) as client:
            client.flushall()
        return
    import psycopg  # noqa: PLC0415

    named = {"dbname": options["database"], **{name: options[name] for name in ("host", "port", "user", "password")}}
    with psycopg.connect(**named, autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            connection.execute(f'DROP TABLE "{table}"'.encode())


def main() -> None:
    """Measure and report."""
    parser = options(__doc__ or "")
    parser.add_argument("--stores", default="sqlite,postgres,redis", help="of sqlite,postgres,redis (default: all)")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        as_child(asked.child)
        return
    tune_gc()
    report = Report("publish", as_json=asked.json)
    with online(asked.stores.split(",")) as (folder, found):
        for kind, where in found.items():
            place, store = folder / f"ground-{kind}", (kind, where)
            measured(within, place, 1000, store)  # imports and compiles what the first run would be charged with
            for way, shown in ((within, "within a process"), (apart, "as processes")):
                costs = measured(way, place, asked.keys, store, asked.repeats)
                say(report, f"{asked.keys:,} keys to {kind}, {shown}", costs, asked.keys)
            if asked.full or kind == "sqlite":
                costs = measured(alone, place, MANY, store)
                say(report, f"{MANY:,} keys to {kind}, within a process", costs, MANY)
    report.end()


def say(report: Report, title: str, costs: dict[str, Cost], keys: int) -> None:
    """A table and its ratios."""
    full = costs["full load, proved"]
    report.table(title, costs, "full load, proved")
    report.note(f"entities a CPU second: {keys / full.cpu_s:,.0f}")
    for name in (DAY, "1 % of the keys changed", "rollback of 1 %", "back: the switch alone"):
        report.target(f"{name} / full load", costs[name].cpu_s / full.cpu_s, 0.03)
    if STOCK in costs:
        feast = costs[STOCK].cpu_s
        report.note(f"entities a CPU second, Feast's materialize: {keys / feast:,.0f}")
        report.target("ours / materialize", full.cpu_s / feast, 0.2)
        report.note(f"{DAY} / materialize, which has no other way: {costs[DAY].cpu_s / feast:.3f}")


if __name__ == "__main__":
    main()
