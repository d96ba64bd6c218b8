"""Online reads: p50, p99 and CPU of `get_online_features` for 1, 10 and 100 keys, beside the same bytes read by hand.

In process, from SQLite (or the `--store` of `feature_store.yaml`), 100,000 keys, five features. The hand-written read
asks the store for the keys' bytes and parses each value's message: what any client has to do at least.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from feast import FeatureStore
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from measure import Cost, Report, options
from publish import FEATURES, TABLE, Ground

from pipelines.systems.feature_store.definitions import Standing
from pipelines.systems.feature_store.encoding import KEY
from pipelines.systems.feature_store.online import Shelf
from pipelines.systems.feature_store.store import close_store, open_store

SIZES = (1, 10, 100)
CALLS = 300


def main() -> None:
    """Measure and report."""
    parser = options(__doc__ or "")
    parser.add_argument("--store", type=json.loads, default={}, help="another online_store of feature_store.yaml, JSON")
    parser.add_argument("--keys", type=int, default=100_000)
    asked = parser.parse_args()
    report = Report("online", as_json=asked.json)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        ground = Ground(Path(folder) / "ground", asked.keys, asked.store)
        ground.make()
        ground.put(1)
        store = open_store(ground.lake.root / "feature_repo", ground.settings)
        for size in SIZES:
            compare(report, store, [number * 7 % asked.keys for number in range(size)])
        close_store(store)
    report.end()


def compare(report: Report, store: FeatureStore, customers: Sequence[int]) -> None:
    """The two ways, in turns; one more answer is compared."""
    by_hand = reader(store)
    ways: dict[str, Callable[[], Any]] = {
        "get_online_features": lambda: through_feast(store, customers),
        "by hand": lambda: by_hand(customers),
    }
    if by_hand(customers) != through_feast(store, customers):
        raise SystemExit("the two ways give different answers")
    times: dict[str, list[float]] = {name: [] for name in ways}
    cpu = dict.fromkeys(ways, 0.0)
    for _ in range(CALLS):
        for name, way in ways.items():
            wall, used = time.perf_counter(), time.process_time()
            way()
            cpu[name] += time.process_time() - used
            times[name].append((time.perf_counter() - wall) * 1000)
    costs = {name: Cost(cpu[name], sum(found) / 1000, 0) for name, found in times.items()}
    report.table(f"{CALLS} calls for {len(customers)} keys", costs, "by hand")
    for name, found in times.items():
        report.note(f"{name}: p50 {median(found):.2f} ms, p99 {quantiles(found, n=100)[98]:.2f} ms")


def through_feast(store: FeatureStore, customers: Sequence[int]) -> dict[str, list[Any]]:
    """As serving code asks."""
    service = store.get_feature_service("bench_service")
    answer = store.get_online_features(service, [{"customer": one} for one in customers]).to_dict()
    return {name: answer[name] for name in FEATURES}


def reader(store: FeatureStore) -> Callable[[Sequence[int]], dict[str, list[Any]]]:
    """Reads the live side's bytes and parses them."""
    from publish import DATASET  # noqa: PLC0415

    shelf = Shelf.of(store, TABLE, Standing.of(store, DATASET).live.side)
    fetch = _sqlite(store, shelf) if store.config.online_store.type == "sqlite" else _any(shelf)

    def read(customers: Sequence[int]) -> dict[str, list[Any]]:
        keys = [
            serialize_entity_key(EntityKey(join_keys=["customer"], entity_values=[Value(int64_val=one)]), 3)
            for one in customers
        ]
        cells = fetch(keys)
        return {name: [Value.FromString(cells[key, name]).double_val for key in keys] for name in FEATURES}

    return read


def _sqlite(store: FeatureStore, shelf: Shelf) -> Callable[[list[bytes]], dict[tuple[bytes, str], bytes]]:
    import sqlite3  # noqa: PLC0415

    path = Path(store.config.repo_path or ".") / store.config.online_store.path
    database = sqlite3.connect(path)
    table = f'"{store.project}_{shelf.view.name}"'

    def fetch(keys: list[bytes]) -> dict[tuple[bytes, str], bytes]:
        marks = ",".join("?" * len(keys))
        query = f"SELECT entity_key, feature_name, value FROM {table} WHERE entity_key IN ({marks})"  # noqa: S608
        return {(key, name): value for key, name, value in database.execute(query, keys)}

    return fetch


def _any(shelf: Shelf) -> Callable[[list[bytes]], dict[tuple[bytes, str], bytes]]:
    def fetch(keys: list[bytes]) -> dict[tuple[bytes, str], bytes]:
        rows = shelf.online.rows(shelf.view, pl.Series(KEY, keys)).to_dicts()
        return {(row[KEY], name): row[name] for row in rows for name in FEATURES}

    return fetch


if __name__ == "__main__":
    main()
