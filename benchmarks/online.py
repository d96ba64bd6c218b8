"""Online reads: p50, p99 and CPU for 1, 10 and 100 keys, from SQLite, PostgreSQL and Redis, in process and over HTTP.

The same features are read by `get_online_features` on Headrace's store and on Feast's own store of that kind, each with
the service from the registry's cache and read from the registry each time (Feast's default); and by hand: query the
store for the bytes of the keys, and parse each value's message. The readers take turns of 30 calls, after one that is
not counted: Feast caches a resolved service for one store per process, so two stores that alternate call by call would
evict each other. CPU is that of this process and of the store's server; over HTTP, also that of `feast serve`, with one
worker, configured as in `docs/serving.md`. Then 1,500 sequential requests, of which the slowest is reported: by
default, `feast serve` replaces its worker at about 1,000. Everything runs with `PYTHONOPTIMIZE=1`: without it, Feast
checks the type of every argument of every call.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
from feast import FeatureService, FeatureStore
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from measure import REPOSITORY, Cost, Report, create_parser, median_cost, server_cpu_s, tree_cpu_s
from publish import DATASET, FEATURES, PublishWorkspace, create_stock_store, materialize
from stores import HOST, free_port, run_stores, wait_for_port

from headrace.feast.definitions import DeploymentState
from headrace.feast.online_stores.redis import RedisWriter
from headrace.feast.online_stores.sql_store import TableOnlineStore
from headrace.feast.online_stores.writer import online_of
from headrace.feast.open import close_store, open_store

SIZES = (1, 10, 100)
TURNS, CALLS_PER_TURN = 4, 30
CALLS = TURNS * CALLS_PER_TURN
"""Calls of each reader in one repeat."""

HEADRACE, FEAST = "ours", "Feast's own store"
CACHED, UNCACHED = "cached", "uncached"
HTTP_REQUESTS = 1500
SERVE_OPTIONS = ("--max-requests", "0", "--registry_ttl_sec", "10", "--no-access-log")

FeatureReader = Callable[[Sequence[int]], dict[str, list[Any]]]


def main() -> None:
    """Measure and report."""
    parser = create_parser(__doc__ or "")
    parser.add_argument("--stores", default="sqlite,postgres,redis", help="of sqlite,postgres,redis (default: all)")
    parser.add_argument("--keys", type=int, default=20_000)
    arguments = parser.parse_args()
    if __debug__:
        sys.exit(subprocess.call([sys.executable, "-O", *sys.argv]))
    report = Report("online", as_json=arguments.json)
    with run_stores(arguments.stores.split(",")) as (folder, found):
        for kind, where in found.items():
            workspace = PublishWorkspace(folder / f"workspace-{kind}", arguments.keys, kind, where)
            workspace.create_releases()
            workspace.publish_release(1)  # the rows that Feast's store gets, too: none of the next day
            theirs = create_stock_store(workspace)
            materialize(theirs)
            measure_in_process(report, workspace, theirs, arguments.repeats)
            measure_over_http(report, workspace)
    report.end()


def measure_in_process(report: Report, workspace: PublishWorkspace, theirs: FeatureStore, repeats: int) -> None:
    """Measure every reader in this process."""
    store = open_store(workspace.table_store.root / "feature_repo", workspace.settings)
    theirs.apply([FeatureService(name=DATASET.service, features=[theirs.get_feature_view("history")])])
    readers: dict[str, FeatureReader] = {
        f"{whose}, the service {how}": partial(read_through_feast, one, cached=how == CACHED)
        for whose, one in ((HEADRACE, store), (FEAST, theirs))
        for how in (CACHED, UNCACHED)
    }
    readers["by hand"] = direct_reader(store)
    for size in SIZES:
        title = f"{workspace.kind}, {CALLS} calls for {size} {'key' if size == 1 else 'keys'}"
        measure_readers(report, title, readers, choose_keys(workspace, size), repeats)
    close_store(store)


def measure_readers(
    report: Report, title: str, readers: dict[str, FeatureReader], customers: Sequence[int], repeats: int
) -> None:
    """Measure the readers in turns; all must return the same features."""
    answers = [read(customers) for read in readers.values()]
    if any(answer != answers[0] for answer in answers):
        sys.exit(f"{title}: the readers return different features")
    runs: dict[str, list[Cost]] = {name: [] for name in readers}
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(repeats):
        costs = {name: Cost(0, 0, 0) for name in readers}
        for turn in range(TURNS):
            for name in list(readers)[:: -1 if turn % 2 else 1]:
                readers[name](customers)
                cost, latencies = measure_turn(partial(readers[name], customers))
                costs[name] = add_costs(costs[name], cost)
                times[name] += latencies
        for name, cost in costs.items():
            runs[name].append(cost)
    medians = {name: median_cost(found) for name, found in runs.items()}
    report.table(title, medians, "by hand")
    for name, found in times.items():
        report.figure(f"{name}: CPU of a call, client and server", medians[name].total_s / CALLS * 1000, "ms")
        report.note(f"{name}: {format_latency(found)}")
    for how in (CACHED, UNCACHED):
        ours, theirs = (medians[f"{whose}, the service {how}"] for whose in (HEADRACE, FEAST))
        report.target(f"ours / Feast's, the service {how}", ours.total_s / theirs.total_s, 1.0)


def measure_turn(read: Callable[[], object]) -> tuple[Cost, list[float]]:
    """Cost of one turn of calls, and milliseconds of each call."""
    server_s, cpu, latencies = server_cpu_s(), time.process_time(), []
    for _ in range(CALLS_PER_TURN):
        began = time.perf_counter()
        read()
        latencies.append((time.perf_counter() - began) * 1000)
    cpu_s = time.process_time() - cpu
    return Cost(cpu_s, sum(latencies) / 1000, 0, server_cpu_s() - server_s), latencies


def add_costs(one: Cost, other: Cost) -> Cost:
    """The sum of two costs."""
    return Cost(one.cpu_s + other.cpu_s, one.wall_s + other.wall_s, 0, one.server_s + other.server_s)


def measure_over_http(report: Report, workspace: PublishWorkspace) -> None:
    """Measure `feast serve` with our options and, on SQLite, with its defaults."""
    report.section(f"{workspace.kind} over HTTP, {CALLS} requests")
    with run_feast_server(workspace, *SERVE_OPTIONS) as (client, server_pid):
        for size in SIZES:
            before = tree_cpu_s(server_pid) + server_cpu_s()
            times = [request_ms(client, choose_keys(workspace, size)) for _ in range(CALLS)]
            cpu_s = tree_cpu_s(server_pid) + server_cpu_s() - before
            report.figure(f"{size} keys: CPU of a request, `feast serve` and the store", cpu_s / CALLS * 1000, "ms")
            report.note(f"{size} keys: {format_latency(times)}")
        times = [request_ms(client, [1]) for _ in range(HTTP_REQUESTS)]
        report.figure(f"the slowest of {HTTP_REQUESTS:,} requests", max(times) / 1000, "s")
    if workspace.kind == "sqlite":
        with run_feast_server(workspace) as (client, _):
            times = [request_ms(client, [1]) for _ in range(HTTP_REQUESTS)]
            what = f"the slowest of {HTTP_REQUESTS:,} requests, with the default options of `feast serve`"
            report.figure(what, max(times) / 1000, "s")


@contextmanager
def run_feast_server(workspace: PublishWorkspace, *arguments: str) -> Iterator[tuple[httpx.Client, int]]:
    """Run `feast serve` for the workspace; a client, and the server's process id."""
    port, settings = free_port(), workspace.settings
    feast = str(Path(sys.executable).with_name("feast"))
    command = [feast, "-c", str(workspace.table_store.root / "feature_repo"), "serve", "-p", str(port), *arguments]
    env = {
        **os.environ,
        "FEAST_REGISTRY_URL": str(settings.feast_registry_url),
        "FEAST_ONLINE_STORE_PATH": str(settings.feast_online_store_path),
        "FEAST_USAGE": "False",
        "PYTHONOPTIMIZE": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        wait_for_port(port)
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60) as client:
            request_ms(client, [1])
            yield client, server.pid
    finally:
        server.terminate()
        server.wait(20)


def request_ms(client: httpx.Client, customers: Sequence[int]) -> float:
    """Duration of a request in milliseconds, repeated once if the server drops the connection, as a client would."""
    body = {"feature_service": DATASET.service, "entities": {"customer": list(customers)}}
    began = time.perf_counter()
    try:
        answer = client.post("/get-online-features", json=body)
    except httpx.TransportError:
        answer = client.post("/get-online-features", json=body)
    answer.raise_for_status()
    return (time.perf_counter() - began) * 1000


def choose_keys(workspace: PublishWorkspace, size: int) -> list[int]:
    """Keys from the whole table."""
    return [number * 7 % workspace.keys for number in range(size)]


def format_latency(times: Sequence[float]) -> str:
    """The 50th and the 99th percentile."""
    return f"p50 {median(times):.2f} ms, p99 {quantiles(times, n=100)[98]:.2f} ms"


def read_through_feast(store: FeatureStore, customers: Sequence[int], *, cached: bool) -> dict[str, list[Any]]:
    """Read features as serving code does."""
    service = store.get_feature_service(DATASET.service, allow_cache=cached)
    answer = store.get_online_features(service, [{"customer": one} for one in customers]).to_dict()
    return {name: answer[name] for name in FEATURES}


def direct_reader(store: FeatureStore) -> FeatureReader:
    """A reader that queries the live slot's bytes and parses them."""
    view = f"history__{DeploymentState.read(store, DATASET).live.side}"
    online_store = store.provider.online_store
    fetch = _sql_fetcher(store, view) if isinstance(online_store, TableOnlineStore) else _redis_fetcher(store, view)

    def read(customers: Sequence[int]) -> dict[str, list[Any]]:
        keys = [
            serialize_entity_key(EntityKey(join_keys=["customer"], entity_values=[Value(int64_val=one)]), 3)
            for one in customers
        ]
        rows = fetch(keys)
        return {name: [Value.FromString(row[place]).double_val for row in rows] for place, name in enumerate(FEATURES)}

    return read


def _sql_fetcher(store: FeatureStore, view: str) -> Callable[[list[bytes]], list[Sequence[bytes]]]:
    """A function that fetches rows by SQL."""
    columns, table = ", ".join(["entity_key", *FEATURES]), f"{store.project}_{view}"
    found = store.config.online_store
    if hasattr(found, "path"):
        import sqlite3  # noqa: PLC0415

        database: Any = sqlite3.connect(Path(store.config.repo_path or ".") / found.path)
        query = f'SELECT {columns} FROM "{table}" WHERE entity_key IN '  # noqa: S608

        def fetch(keys: list[bytes]) -> list[Sequence[bytes]]:
            rows = {key: row for key, *row in database.execute(f"{query}({','.join('?' * len(keys))})", keys)}
            return [rows[key] for key in keys]

        return fetch
    import psycopg  # noqa: PLC0415

    named = {"host": found.host, "port": found.port, "dbname": found.database, "user": found.user}
    database = psycopg.connect(**named, password=found.password, autocommit=True)
    question = f'SELECT {columns} FROM "{table}" WHERE entity_key = ANY(%b)'  # noqa: S608

    def ask(keys: list[bytes]) -> list[Sequence[bytes]]:
        with database.cursor(binary=True) as cursor:
            rows = {key: row for key, *row in cursor.execute(question.encode(), (keys,)).fetchall()}
        return [rows[key] for key in keys]

    return ask


def _redis_fetcher(store: FeatureStore, view: str) -> Callable[[list[bytes]], list[Sequence[bytes]]]:
    """A function that fetches rows by a pipeline of HMGET commands."""
    from feast.infra.online_stores.helpers import _mmh3  # noqa: PLC0415

    ours = online_of(store, DATASET)
    assert isinstance(ours, RedisWriter)  # noqa: S101
    fields, project = [_mmh3(f"{view}:{name}") for name in FEATURES], store.project.encode()

    def fetch(keys: list[bytes]) -> list[Sequence[bytes]]:
        pipeline = ours.client.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(key + project, fields)
        return list(pipeline.execute())

    return fetch


if __name__ == "__main__":
    main()
