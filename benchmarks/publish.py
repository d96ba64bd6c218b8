"""Publish: the cost of a full load, a change of 1 %, a rollback and a switch, against Feast's own `materialize`.

100,000 keys with five features, ten days of rows, in SQLite, PostgreSQL and Redis. Each is measured within a process
that has imported everything (the cost of a key), and SQLite (`--full`: all three) also as a separate process that
imports Feast (the cost of a nightly run; `PYTHONOPTIMIZE=1` for both). Headrace's figures include verification: of a
full load every value, of a difference the values that may have changed, those of 1,000 other keys, and the set of all
keys. `materialize` verifies nothing. For all of them, Python's garbage collector runs as seldom as in the command line.

CPU is that of the client and of the store's server: Headrace moves work into PostgreSQL's COPY and Redis's scripts.

A million keys (`--full`), by Headrace alone, show what grows with the number of keys.

There are two changes of 1 %: a new day that has rows of 1 % of the keys, and, harder, a correction of 1 % of
the keys in a day in which every key has a row: both versions of that day are read whole and compared.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64
from measure import REPOSITORY, Contender, Cost, Report, create_parser, measure_call, median_cost, run_once
from stores import STORE_TYPES, run_stores

from headrace.__main__ import tune_gc
from headrace.dataset import EVENT_TIME, KNOWN_TIME, UTC_MICROSECONDS, Dataset, FeatureTable, Input
from headrace.publish.publish import publish
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

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
class PublishWorkspace:
    """A workspace with releases, and the online store that it publishes to.

    Attributes:
        folder: Where it is.
        keys: Number of keys.
        kind: Feast's name of the store.
        online_options: Options of the store.
        stock_first: Whether Feast's own store is measured before ours.
        days: Partition → its rows, as last written.
    """

    folder: Path
    keys: int
    kind: str
    online_options: dict[str, Any]
    stock_first: bool = False
    days: dict[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def table_store(self) -> TableStore:
        """The workspace's tables."""
        return TableStore.at(self.folder / "workspace")

    @property
    def settings(self) -> Settings:
        """The files of the registry and of SQLite."""
        return Settings.model_validate(
            {
                "FEAST_REGISTRY_URL": f"sqlite:///{self.folder}/feast/registry.db",
                "FEAST_ONLINE_STORE_PATH": f"{self.folder}/feast/online.db",
            }
        )

    def create_releases(self) -> None:
        """Create four releases.

        Release 1 has all days. 2 changes one value of every key, 3 changes 1 % of the keys of release 1. 4 is release 1
        and a new day with rows of 1 % of the keys.
        """
        repo = self.folder / "workspace" / "feature_repo"
        repo.mkdir(parents=True)
        config = yaml.safe_load((REPOSITORY / "feature_repo" / "feature_store.yaml").read_text())
        config["online_store"] = {
            "path": "${FEAST_ONLINE_STORE_PATH}",
            **self.online_options,
            "type": STORE_TYPES[self.kind],
        }
        if self.kind != "sqlite":
            del config["online_store"]["path"]
        (repo / "feature_store.yaml").write_text(yaml.safe_dump(config))
        random = np.random.default_rng(7)
        for day in range(DAYS):
            time_of = NOON - timedelta(days=DAYS - 1 - day)
            values = {name: random.random(self.keys) for name in FEATURES}
            self.days[str(time_of.date())] = rows_at(np.arange(self.keys), time_of, values)
        last = max(self.days)
        first = self.days[last]
        self.tag_release(1)
        self.days[last] = first.with_columns(f0=pl.col("f0") + 1)
        self.tag_release(2)
        self.days[last] = first.with_columns(
            f0=pl.when(pl.col("customer") % 100 == 0).then(pl.col("f0") + 2).otherwise("f0")
        )
        self.tag_release(3)
        some = first.filter(pl.col("customer") % 100 == 0)
        tomorrow = pl.lit(NOON + timedelta(days=1), dtype=UTC_MICROSECONDS)
        self.days[last] = first
        self.days[str((NOON + timedelta(days=1)).date())] = some.with_columns(
            tomorrow.alias(EVENT_TIME), tomorrow.alias(KNOWN_TIME)
        )
        self.tag_release(4)

    def tag_release(self, number: int) -> None:
        """Write the days as a table, and tag it as a release."""
        table_store = self.table_store
        entries = {}
        for day, rows in self.days.items():
            stored = table_store.cache.add(lambda path, rows=rows: parquet.write(rows, path))  # type: ignore[misc]
            entries[day] = PartitionEntry(stored.md5, stored.md5, stored.size, rows.height)
        made = Manifest("features/bench/history", partitions=entries)
        table_store.checkout(made)
        stage = {"cmd": "true", "outs": [table_store.dvc_out(table_store.manifest(made.table), {})]}
        (table_store.root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {made.table: stage}}))
        run_git(table_store.root, "init", "--quiet")
        run_git(table_store.root, "add", "dvc.lock")
        run_git(table_store.root, "commit", "--quiet", "--allow-empty", "--message", f"bench/{number}")
        run_git(table_store.root, "tag", f"bench/{number}")

    def publish_release(self, number: int) -> None:
        """Publish a release."""
        done = publish(DATASET, self.table_store, self.settings, f"bench/{number}")
        if not done.switched:
            sys.exit(f"release {number} was live already")


def rows_at(keys: Any, at: datetime, values: dict[str, Any]) -> pl.DataFrame:  # noqa: ANN401  arrays
    """Rows with one event time."""
    moment = pl.lit(at, dtype=UTC_MICROSECONDS)
    rows = pl.DataFrame({"customer": keys.astype(np.int64), **values})
    return rows.select("customer", moment.alias(EVENT_TIME), moment.alias(KNOWN_TIME), *FEATURES)


def run_git(root: Path, *words: str) -> None:
    """Run git."""
    person = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(["git", "-C", root, *person, *words], check=True)


def create_stock_store(workspace: PublishWorkspace) -> FeatureStore:
    """A stock Feast store: a file source, Feast's own offline store and its own online store of that kind."""
    folder = workspace.folder
    path = folder / "rows.parquet"
    config = RepoConfig(
        project="stock",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/stock.db"},
        online_store={"type": workspace.kind, **(workspace.online_options or {"path": f"{folder}/stock_online.db"})},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    if not path.exists():
        pl.concat(workspace.days.values()).write_parquet(path)
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
    """Run Feast's `materialize` on all rows of release 1, without its output."""
    with redirect_stdout(StringIO()):
        store.materialize(NOON - timedelta(days=20), NOON + timedelta(hours=1))


NEW_DAY = "a new day, of 1 % of the keys"
STEPS = {
    "full load, verified": 1,
    "": 2,
    "1 % of the keys changed": 3,
    "rollback: the switch alone": 2,
    "rollback of 1 %": 1,
    " ": 3,
    NEW_DAY: 4,
}
"""Measured step → the release that is published, in this order; steps without a name are not reported."""

STOCK = "Feast's materialize, unverified"

IN_PROCESS, AS_PROCESSES = "within a process", "as processes"
LARGE_KEY_COUNT = 1_000_000
"""Number of keys for which Headrace is measured alone."""


def run_steps(workspace: PublishWorkspace) -> dict[str, Cost]:
    """Run every step of Headrace once, in this process."""
    return {name: measure_call(partial(workspace.publish_release, number)) for name, number in STEPS.items()}


def run_in_process(workspace: PublishWorkspace) -> dict[str, Cost]:
    """Run every step and `materialize` once, in this process; Feast's is first in every other repeat."""
    store = create_stock_store(workspace)
    if workspace.stock_first:
        stock = measure_call(lambda: materialize(store))
        return {**run_steps(workspace), STOCK: stock}
    found = run_steps(workspace)
    return {**found, STOCK: measure_call(lambda: materialize(store))}


def run_in_child_processes(workspace: PublishWorkspace) -> dict[str, Cost]:
    """Run every step and `materialize` once, each in its own process."""
    create_stock_store(workspace)
    ours, stock = {name: str(number) for name, number in STEPS.items()}, {STOCK: "stock"}
    steps = {**stock, **ours} if workspace.stock_first else {**ours, **stock}
    return {name: run_once(child_contender(workspace, step)) for name, step in steps.items()}


def child_contender(workspace: PublishWorkspace, what: str) -> Contender:
    """A process that publishes a release, or materializes."""
    arguments = json.dumps([str(workspace.folder), workspace.keys, workspace.kind, workspace.online_options, what])
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "benchmarks")))
    env = {"PYTHONOPTIMIZE": "1", "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": path}
    return Contender(what, [sys.executable, __file__, "--child", arguments], env=env)


def run_child(arguments: str) -> None:
    """Do what `child_contender` requests."""
    tune_gc()
    folder, keys, kind, options, what = json.loads(arguments)
    workspace = PublishWorkspace(Path(folder), keys, kind, options)
    if what == "stock":
        materialize(create_stock_store(workspace))
    else:
        workspace.publish_release(int(what))


def median_costs(
    run: Callable[[PublishWorkspace], dict[str, Cost]],
    place: Path,
    keys: int,
    store: tuple[str, dict[str, Any]],
    repeats: int = 1,
) -> dict[str, Cost]:
    """Median cost of each step; every repeat creates a new workspace in `place`."""
    repeated_costs: list[dict[str, Cost]] = []
    for turn in range(repeats):
        shutil.rmtree(place, ignore_errors=True)
        workspace = PublishWorkspace(place, keys, *store, stock_first=turn % 2 == 1)
        workspace.create_releases()
        if workspace.kind != "sqlite":
            clear_store(*store)
        repeated_costs.append(run(workspace))
    names = [name for name in (*STEPS, STOCK) if name.strip() and name in repeated_costs[0]]
    return {name: median_cost(found[name] for found in repeated_costs) for name in names}


def clear_store(kind: str, options: dict[str, Any]) -> None:
    """Delete what an earlier repeat left on the server."""
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
    parser = create_parser(__doc__ or "", large="a million keys too, by Headrace alone")
    parser.add_argument("--stores", default="sqlite,postgres,redis", help="of sqlite,postgres,redis (default: all)")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child)
        return
    tune_gc()
    report = Report("publish", as_json=arguments.json)
    with run_stores(arguments.stores.split(",")) as (folder, found):
        for kind, where in found.items():
            place, store = folder / f"workspace-{kind}", (kind, where)
            # Imports and compiles what would otherwise count for the first run.
            median_costs(run_in_process, place, 1000, store)
            ways = {IN_PROCESS: run_in_process}
            if arguments.full or kind == "sqlite":
                ways[AS_PROCESSES] = run_in_child_processes
            else:
                report.leave_out(f"publish to {kind} as processes", "only with `--full`")
            for described, run in ways.items():
                costs = median_costs(run, place, arguments.keys, store, arguments.repeats)
                report_costs(report, kind, described, costs, arguments.keys)
            if arguments.full:
                costs = median_costs(run_steps, place, LARGE_KEY_COUNT, store, arguments.repeats)
                report_costs(report, kind, IN_PROCESS, costs, LARGE_KEY_COUNT)
    report.end()


def report_costs(report: Report, kind: str, described: str, costs: dict[str, Cost], keys: int) -> None:
    """Report a table and its ratios."""
    title = f"{keys:,} keys to {kind}, {described}"
    full = costs["full load, verified"]
    report.table(title, costs, "full load, verified")
    if described == IN_PROCESS:
        for name, cost in (("a full load", full), ("a new day", costs[NEW_DAY])):
            report.figure(f"{kind}, {keys:,} keys: CPU of a key in {name}", cost.total_s / keys * 1e6, "µs")
    for name in (NEW_DAY, "1 % of the keys changed", "rollback of 1 %", "rollback: the switch alone"):
        what, ratio = f"{name} / full load", costs[name].total_s / full.total_s
        if described == IN_PROCESS:
            report.target(what, ratio, 0.03)
        else:
            report.figure(what, ratio)  # mostly of imports
    if STOCK in costs:
        stock = costs[STOCK].total_s
        report.target("ours / materialize", full.total_s / stock, 0.2)
        report.figure(f"{NEW_DAY} / materialize, which has no other way", costs[NEW_DAY].total_s / stock)


if __name__ == "__main__":
    main()
