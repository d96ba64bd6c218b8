"""Online reads: p50, p99 and CPU for 1, 10 and 100 keys, from SQLite, PostgreSQL and Redis, in process and over HTTP.

Ways to the same answer: `get_online_features` on our store, and on Feast's own of that kind with a service of the same
view, each with the service from the registry's cache, and asked anew each time, as Feast does by default; and by hand:
ask the store for the keys' bytes and parse each value's message. They take turns of 30 calls, after one that is not
counted: Feast keeps what it made of a service for one store a process, and where two alternate call by call, each makes
it anew every time. CPU is the median of the calls; over HTTP it is the server's, on average. Over HTTP it is
`feast serve`, one worker, configured as `docs/serving.md` says; then 1,500 requests one after the other, of which the
slowest is told: as Feast comes, it replaces its worker at about 1,000. Everything runs with `PYTHONOPTIMIZE=1`: without
it, Feast checks the type of every argument of every call.
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
import psutil
from feast import FeatureService, FeatureStore
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from measure import REPOSITORY, Cost, Report, options
from publish import DATASET, FEATURES, Ground, materialize, stock
from stores import HOST, free_port, online, wait_for

from headrace.feast.definitions import Standing
from headrace.feast.online_stores.redis import RedisWriter
from headrace.feast.online_stores.sql_store import TableOnlineStore
from headrace.feast.online_stores.writer import online_of
from headrace.feast.open import close_store, open_store

SIZES = (1, 10, 100)
CALLS = 300
TURN = 30
OURS, THEIRS = "ours", "Feast's own store"
CACHED, ANEW = "cached", "asked anew"
MANY = 1500
SERVE = ("--max-requests", "0", "--registry_ttl_sec", "10", "--no-access-log")

Read = Callable[[Sequence[int]], dict[str, list[Any]]]


def main() -> None:
    """Measure and report."""
    parser = options(__doc__ or "")
    parser.add_argument("--stores", default="sqlite,postgres,redis", help="of sqlite,postgres,redis (default: all)")
    parser.add_argument("--keys", type=int, default=20_000)
    asked = parser.parse_args()
    if __debug__:
        sys.exit(subprocess.call([sys.executable, "-O", *sys.argv]))
    report = Report("online", as_json=asked.json)
    with online(asked.stores.split(",")) as (folder, found):
        for kind, where in found.items():
            ground = Ground(folder / f"ground-{kind}", asked.keys, kind, where)
            ground.make()
            ground.put(1)  # what Feast's store is given, too: it gets no row of the day after
            theirs = stock(ground)
            materialize(theirs)
            in_process(report, ground, theirs)
            over_http(report, ground)
    report.end()


def in_process(report: Report, ground: Ground, theirs: FeatureStore) -> None:
    """Every way in this process."""
    store = open_store(ground.lake.root / "feature_repo", ground.settings)
    theirs.apply([FeatureService(name=DATASET.service, features=[theirs.get_feature_view("history")])])
    ways: dict[str, Read] = {
        f"{whose}, the service {how}": partial(through_feast, one, cached=how == CACHED)
        for whose, one in ((OURS, store), (THEIRS, theirs))
        for how in (CACHED, ANEW)
    }
    ways["by hand"] = reader(store)
    for size in SIZES:
        compare(report, f"{ground.kind}: {CALLS} calls for {size} keys", ways, chosen(ground, size))
    close_store(store)


def compare(report: Report, title: str, ways: dict[str, Read], customers: Sequence[int]) -> None:
    """The ways in turns; all must give one answer."""
    answers = [way(customers) for way in ways.values()]
    if any(answer != answers[0] for answer in answers):
        sys.exit(f"{title}: the ways give different answers")
    times: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(CALLS // TURN):
        for name, way in ways.items():
            way(customers)
            for _ in range(TURN):
                wall, used = time.perf_counter(), time.process_time()
                way(customers)
                cpu[name].append((time.process_time() - used) * 1000)
                times[name].append((time.perf_counter() - wall) * 1000)
    costs = {name: Cost(sum(cpu[name]) / 1000, sum(found) / 1000, 0) for name, found in times.items()}
    report.table(title, costs, "by hand")
    for name, found in times.items():
        report.note(f"{name}: {spread(found)}, {median(cpu[name]):.3f} ms of CPU")
    for how in (CACHED, ANEW):
        ours, theirs = (median(cpu[f"{whose}, the service {how}"]) for whose in (OURS, THEIRS))
        report.target(f"ours / Feast's, the service {how}", ours / theirs, 1.0)


def over_http(report: Report, ground: Ground) -> None:
    """`feast serve`, as we say and, once, as it comes."""
    with served(ground, *SERVE) as (client, used):
        for size in SIZES:
            before = used()
            times = [timed(client, chosen(ground, size)) for _ in range(CALLS)]
            cpu = (used() - before) / CALLS * 1000
            report.note(f"{ground.kind} over HTTP, {size} keys: {spread(times)}, {cpu:.2f} ms of the server's CPU")
        times = [timed(client, [1]) for _ in range(MANY)]
        report.note(f"{ground.kind} over HTTP: the slowest of {MANY:,} requests took {max(times) / 1000:.2f} s")
    if ground.kind == "sqlite":
        with served(ground) as (client, _):
            times = [timed(client, [1]) for _ in range(MANY)]
            report.note(f"as `feast serve` comes: the slowest of {MANY:,} requests took {max(times) / 1000:.2f} s")


@contextmanager
def served(ground: Ground, *arguments: str) -> Iterator[tuple[httpx.Client, Callable[[], float]]]:
    """A client of the server of that workspace, and the CPU seconds that the server has used."""
    port, settings = free_port(), ground.settings
    feast = str(Path(sys.executable).with_name("feast"))
    command = [feast, "-c", str(ground.lake.root / "feature_repo"), "serve", "-p", str(port), *arguments]
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
        wait_for(port)
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60) as client:
            timed(client, [1])
            yield client, lambda: cpu_of(server.pid)
    finally:
        server.terminate()
        server.wait(20)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of its children."""
    head = psutil.Process(pid)
    times = [one.cpu_times() for one in (head, *head.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def timed(client: httpx.Client, customers: Sequence[int]) -> float:
    """Milliseconds of a request; one whose connection the server drops is asked once more, as a client would."""
    body = {"feature_service": DATASET.service, "entities": {"customer": list(customers)}}
    began = time.perf_counter()
    try:
        answer = client.post("/get-online-features", json=body)
    except httpx.TransportError:
        answer = client.post("/get-online-features", json=body)
    answer.raise_for_status()
    return (time.perf_counter() - began) * 1000


def chosen(ground: Ground, size: int) -> list[int]:
    """Keys all over the table."""
    return [number * 7 % ground.keys for number in range(size)]


def spread(times: Sequence[float]) -> str:
    """The two figures that matter."""
    return f"p50 {median(times):.2f} ms, p99 {quantiles(times, n=100)[98]:.2f} ms"


def through_feast(store: FeatureStore, customers: Sequence[int], *, cached: bool) -> dict[str, list[Any]]:
    """As serving code asks."""
    service = store.get_feature_service(DATASET.service, allow_cache=cached)
    answer = store.get_online_features(service, [{"customer": one} for one in customers]).to_dict()
    return {name: answer[name] for name in FEATURES}


def reader(store: FeatureStore) -> Read:
    """Reads the live side's bytes and parses them."""
    view = f"history__{Standing.of(store, DATASET).live.side}"
    online_store = store.provider.online_store
    fetch = _table(store, view) if isinstance(online_store, TableOnlineStore) else _redis(store, view)

    def read(customers: Sequence[int]) -> dict[str, list[Any]]:
        keys = [
            serialize_entity_key(EntityKey(join_keys=["customer"], entity_values=[Value(int64_val=one)]), 3)
            for one in customers
        ]
        rows = fetch(keys)
        return {name: [Value.FromString(row[place]).double_val for row in rows] for place, name in enumerate(FEATURES)}

    return read


def _table(store: FeatureStore, view: str) -> Callable[[list[bytes]], list[Sequence[bytes]]]:
    """A query on a connection of its own."""
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


def _redis(store: FeatureStore, view: str) -> Callable[[list[bytes]], list[Sequence[bytes]]]:
    """A pipeline of HMGETs."""
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
