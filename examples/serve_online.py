"""Features of a flight that is about to leave, read online: plain Feast calls, measured.

The process opens the store once and keeps it. Which release it reads is the service's affair: after a publish it shows
the new one, whole, when its copy of the registry is as old as `cache_ttl_seconds` in `feature_store.yaml` allows.

    python examples/serve_online.py

prints the answer for some flights, and how long 1, 10 and 100 of them take. `headrace publish flights` comes before.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median, quantiles

import polars as pl
from feast import FeatureStore

from headrace.errors import HeadraceError
from headrace.feast.open import close_store, open_store
from headrace.project.loading import load_dataset
from headrace.publish.snapshot import Snapshot
from headrace.settings import load_settings
from headrace.storage.table_store import Lake

DATASET = load_dataset("flights")

SIZES = (1, 10, 100)


def main() -> None:
    """Ask, show, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="calls of each size (default: 200)")
    calls = parser.parse_args().calls
    settings = load_settings()
    lake = Lake.at(settings.workspace)
    store = open_store(lake.root / "feature_repo", settings)
    try:
        flights = some_flights(lake, max(SIZES))
        print(pl.DataFrame(ask(store, flights[:5])))
        for size in SIZES:
            times = measured(store, flights[:size], calls)
            print(f"{size:>4} flights: p50 {median(times):.2f} ms, p99 {quantiles(times, n=100)[98]:.2f} ms")
    finally:
        close_store(store)


def ask(store: FeatureStore, flights: Sequence[dict[str, object]]) -> dict[str, list[object]]:
    """The features of the flights, a list a feature. This is all that serving code needs."""
    service = store.get_feature_service(DATASET.service, allow_cache=True)  # else every call asks the registry
    answer = store.get_online_features(service, list(flights), full_feature_names=True)
    found: dict[str, list[object]] = answer.to_dict()
    return found


def some_flights(lake: Lake, count: int) -> list[dict[str, object]]:
    """Keys as requests would bring them: of each feature table some that are there."""
    snapshot = Snapshot.of(DATASET, lake, "")
    keys: dict[str, list[object]] = {}
    for table in DATASET.features:
        found = snapshot.sample(table, count).sort(table.keys)
        for name in table.keys:
            keys.setdefault(name, found[name].to_list())
    return [{name: values[row % len(values)] for name, values in keys.items()} for row in range(count)]


def measured(store: FeatureStore, flights: Sequence[dict[str, object]], calls: int) -> list[float]:
    """Milliseconds of each call."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        ask(store, flights)
        times.append((time.perf_counter() - began) * 1000)
    return times


if __name__ == "__main__":
    try:
        main()
    except HeadraceError as error:
        sys.exit(f"error: {error}")
