"""Read the features of flights that are about to leave from the online store, with plain Feast calls, and measure it.

The process opens the store once and keeps it. The service decides which release is read: after a publish, reads switch
to the new release when the process's copy of the registry is `cache_ttl_seconds` old (`feature_store.yaml`).

    python examples/serve_online.py

prints the features of some flights, and how long reading 1, 10 and 100 of them takes. Run `headrace publish flights`
first.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median, quantiles

import polars as pl
from feast import FeatureStore

import headrace

DATASET = headrace.load_dataset("flights")

SIZES = (1, 10, 100)


def main() -> None:
    """Read, print, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="calls of each size (default: 200)")
    calls = parser.parse_args().calls
    flights = sample_flights(max(SIZES))
    with headrace.open_feature_store() as store:
        print(pl.DataFrame(read_features(store, flights[:5])))
        for size in SIZES:
            times = measure(store, flights[:size], calls)
            print(f"{size:>4} flights: p50 {median(times):.2f} ms, p99 {quantiles(times, n=100)[98]:.2f} ms")


def read_features(store: FeatureStore, flights: Sequence[dict[str, object]]) -> dict[str, list[object]]:
    """The features of the flights, one list per feature. This is all that serving code needs."""
    service = store.get_feature_service(DATASET.service, allow_cache=True)  # else every call queries the registry
    answer = store.get_online_features(service, list(flights), full_feature_names=True)
    features: dict[str, list[object]] = answer.to_dict()
    return features


def sample_flights(count: int) -> list[dict[str, object]]:
    """Join keys as requests would have them: for each feature table, keys of its newest partition."""
    tables = headrace.open(DATASET)
    keys: dict[str, list[object]] = {}
    for declared in DATASET.features:
        table = tables[f"features/{declared.name}"]
        newest = table.select(partitions=table.partitions[-1:], columns=declared.keys).polars()
        rows = newest.unique().sort(declared.keys).head(count).collect()
        for name in declared.keys:
            keys.setdefault(name, rows[name].to_list())
    return [{name: values[row % len(values)] for name, values in keys.items()} for row in range(count)]


def measure(store: FeatureStore, flights: Sequence[dict[str, object]], calls: int) -> list[float]:
    """The duration of each call in milliseconds."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        read_features(store, flights)
        times.append((time.perf_counter() - began) * 1000)
    return times


if __name__ == "__main__":
    try:
        main()
    except headrace.HeadraceError as error:
        sys.exit(f"error: {error}")
