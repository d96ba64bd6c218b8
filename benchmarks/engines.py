"""The job of `retrieval.py`, one engine per process: requests → three point-in-time joins → one Parquet file.

    python benchmarks/engines.py prepare <folder> (<requests> <rows per table> <keys> [<features per table>] | flights)
    python benchmarks/engines.py <engine> <folder> <out> [<most requests>]
    python benchmarks/engines.py compare <ours> <others>...

Every engine reads the same files (one folder per table, one file per day) and honours a TTL of 7 days. A key has one
row per time, and every row is known at its time, so the hand-written joins, which use the event time alone, are
right. For every engine, Python's garbage collector runs as seldom as in the command line.
"""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from headrace.__main__ import tune_gc

TTL_DAYS = 7
TABLES = ("one", "two", "three")
FIRST = datetime(2013, 1, 1, tzinfo=UTC)
DAYS = 60
RELEASE = "bench/1"
REPOSITORY = Path(__file__).resolve().parents[1]


def prepare(folder: Path, *sizes: str) -> None:
    """Write requests and tables."""
    made = flights_data() if sizes == ("flights",) else synthetic_data(*map(int, sizes))
    requests, tables = made
    folder.mkdir()
    (folder / "feature_repo").mkdir()
    shutil.copy(REPOSITORY / "feature_repo" / "feature_store.yaml", folder / "feature_repo")
    requests.write_parquet(folder / "requests.parquet")
    keys = {}
    for (name, rows), key in zip(tables.items(), requests.columns, strict=False):
        keys[name] = {"key": key, "type": str(rows.schema[key]), "features": rows.columns[3:]}
        write_table(folder, name, key, rows)
    (folder / "tables.json").write_text(json.dumps(keys))
    tag_release(folder, list(tables))


def synthetic_data(requests: int, rows: int, keys: int, features: int = 5) -> Any:  # noqa: ANN401  Polars is imported where it is used
    """Uniformly distributed keys and times; each table has its own columns."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    draw = np.random.default_rng(7)
    span = DAYS * 86_400_000_000

    def times(count: int) -> pl.Series:
        moments = draw.integers(0, span, count) + int(FIRST.timestamp()) * 1_000_000
        return pl.Series("event_time", moments).cast(pl.Datetime("us", "UTC"))

    asked = pl.DataFrame({name: draw.integers(0, keys, requests) for name in ("a", "b", "c")})
    asked = asked.with_columns(event_timestamp=times(requests))
    tables = {}
    for key, name in zip("abc", TABLES, strict=True):
        drawn = pl.DataFrame({key: draw.integers(0, keys, rows), "event_time": times(rows)})
        values = {f"{name}_{number}": draw.random(rows) for number in range(features)}
        tables[name] = drawn.with_columns(
            known_time=pl.col("event_time"), **{n: pl.Series(v) for n, v in values.items()}
        )
    return asked, {name: table.unique(table.columns[:2]) for name, table in tables.items()}


def flights_data() -> Any:  # noqa: ANN401
    """The flights of 2013, requested an hour ahead; hourly weather, and daily delays of aircraft and carriers."""
    import polars as pl  # noqa: PLC0415

    from infra.demo.data import FlightYear  # noqa: PLC0415

    data = FlightYear.installed()
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    numbers = pl.col("dep_delay", "arr_delay", "distance").cast(pl.Int64, strict=False)
    year = pl.concat(data.flights.values()).with_columns(pl.all().replace("NA", None))
    year = year.with_columns(hour, numbers).with_columns(day=pl.col("time_hour").dt.truncate("1d").dt.offset_by("1d"))
    asked = year.select("origin", "tailnum", "carrier", event_timestamp=pl.col("time_hour") - timedelta(hours=1))
    values = ["temp", "dewp", "humid", "wind_speed", "precip", "visib"]
    tables = {
        "one": data.weather.select(
            "origin", event_time="time_hour", known_time="time_hour", **{v: pl.col(v).cast(float) for v in values}
        )
    }
    for name, key in (("two", "tailnum"), ("three", "carrier")):
        days = (
            year.drop_nulls(key)
            .group_by(key, event_time="day")
            .agg(
                pl.len().cast(float).alias(f"{name}_flights"),
                pl.col("dep_delay").mean().alias(f"{name}_dep_delay"),
                pl.col("arr_delay").mean().alias(f"{name}_arr_delay"),
                pl.col("dep_delay").max().cast(float).alias(f"{name}_max_delay"),
                pl.col("distance").sum().cast(float).alias(f"{name}_distance"),
            )
        )
        tables[name] = days.select(
            key, "event_time", pl.col("event_time").alias("known_time"), pl.exclude(key, "event_time")
        )
    return asked, {name: table.unique(table.columns[:2]) for name, table in tables.items()}


def write_table(folder: Path, name: str, key: str, rows: Any) -> None:  # noqa: ANN401
    """The table, as `headrace transform` writes one: sorted, one file per UTC day, with a manifest."""
    import polars as pl  # noqa: PLC0415

    from headrace.storage import parquet  # noqa: PLC0415
    from headrace.storage.manifest import Manifest  # noqa: PLC0415
    from headrace.storage.partition_entry import PartitionEntry  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    table_store = TableStore.at(folder)
    entries = {}
    for (day,), part in rows.group_by(pl.col("event_time").dt.date().cast(pl.String)):
        ordered = parquet.canonical(part, [key, "event_time"])
        stored = table_store.cache.add(partial(parquet.write, ordered))
        entries[str(day)] = PartitionEntry(stored.md5, stored.md5, stored.size, part.height)
    table_store.checkout(Manifest(f"features/bench/{name}", partitions=entries))


def tag_release(folder: Path, tables: Sequence[str]) -> None:
    """Tag the tables as a release, with a `dvc.lock` as `headrace release` writes it."""
    from environment import run_git  # noqa: PLC0415

    from headrace.storage.files import dump_yaml  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    table_store = TableStore.at(folder)
    outs = {name: table_store.dvc_out(table_store.manifest(f"features/bench/{name}"), {}) for name in tables}
    stages = {f"bench-transform-{name}": {"cmd": "headrace", "outs": [out]} for name, out in outs.items()}
    (folder / "dvc.lock").write_bytes(dump_yaml({"schema": "2.0", "stages": stages}))
    run_git(folder, "init", "--quiet", "--initial-branch", "main")
    run_git(folder, "add", "dvc.lock", "feature_repo")
    run_git(folder, "commit", "--quiet", "--message", RELEASE)
    run_git(folder, "tag", "--annotate", "--message", RELEASE, RELEASE)


def create_dataset(folder: Path) -> Any:  # noqa: ANN401
    """The dataset of these tables."""
    import polars as pl  # noqa: PLC0415

    from headrace.dataset import Dataset, FeatureTable  # noqa: PLC0415

    types = {"Int64": pl.Int64(), "String": pl.String()}
    tables = [
        FeatureTable(
            name,
            (table["key"],),
            {},
            no_kernel,
            dict.fromkeys(table["features"], pl.Float64()),
            timedelta(days=TTL_DAYS),
            {table["key"]: types[table["type"]]},
        )
        for name, table in read_tables(folder).items()
    ]
    return Dataset(name="bench", description="", owner="", sources=(), features=tuple(tables), service="bench")


def no_kernel() -> Any:  # noqa: ANN401
    """Never called: the tables are written by `prepare`."""
    raise NotImplementedError


def read_tables(folder: Path) -> dict[str, Any]:
    """Table → key, its type, and features."""
    found: dict[str, Any] = json.loads((folder / "tables.json").read_text())
    return found


def headrace(folder: Path, out: Path, most: int | None) -> None:
    """Headrace, through Feast's API."""
    from headrace.feast.local_store import local_feature_store  # noqa: PLC0415
    from headrace.feast.retrieval_job import HeadraceRetrievalJob  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    with local_feature_store(create_dataset(folder), TableStore.at(folder)) as store:
        job = store.get_historical_features(
            read_requests(folder, most), store.get_feature_service("bench"), full_feature_names=True
        )
        assert isinstance(job, HeadraceRetrievalJob)  # noqa: S101
        job.to_parquet(out)


def read_requests(folder: Path, most: int | None) -> Any:  # noqa: ANN401
    """The file of the requests, or the first `most` requests."""
    import polars as pl  # noqa: PLC0415

    path = folder / "requests.parquet"
    return path if most is None else pl.read_parquet(path, n_rows=most)


def headrace_release(folder: Path, out: Path, most: int | None) -> None:
    """Headrace at a release, as `headrace retrieve --release` does it: the same join, without Feast."""
    from headrace.retrieve.retrieve import retrieve_at_release  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    dataset, table_store = create_dataset(folder), TableStore.at(folder)
    retrieve_at_release(dataset, table_store, RELEASE, read_requests(folder, most)).to_parquet(out)


def duckdb(folder: Path, out: Path, _most: int | None) -> None:
    """By hand: ASOF joins."""
    import duckdb as engine  # noqa: PLC0415

    joins, columns = [], ["r.*"]
    for name, table in read_tables(folder).items():
        files = f"'{folder}/data/features/bench/{name}/*.parquet'"
        held = ", ".join(f'"{column}"' for column in (table["key"], "event_time", *table["features"]))
        joins.append(
            f"ASOF LEFT JOIN (SELECT {held} FROM read_parquet({files})) AS {name}"  # noqa: S608
            f" ON r.{table['key']} = {name}.{table['key']} AND r.event_timestamp >= {name}.event_time"
        )
        columns += [
            f"CASE WHEN {name}.event_time >= r.event_timestamp - INTERVAL {TTL_DAYS} DAY THEN {name}.{feature} END"
            f" AS {name}__{feature}"
            for feature in table["features"]
        ]
    query = f"SELECT {', '.join(columns)} FROM '{folder}/requests.parquet' AS r {' '.join(joins)}"  # noqa: S608
    engine.sql(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)")


def polars(folder: Path, out: Path, _most: int | None) -> None:
    """By hand: `join_asof`, then the requests are sorted into their original order."""
    import polars as pl  # noqa: PLC0415

    rows = pl.read_parquet(folder / "requests.parquet").with_row_index("row").sort("event_timestamp")
    for name, table in read_tables(folder).items():
        held = [table["key"], "event_time", *table["features"]]
        right = pl.read_parquet(folder / f"data/features/bench/{name}/*.parquet", columns=held).sort("event_time")
        right = right.rename({feature: f"{name}__{feature}" for feature in table["features"]})
        rows = rows.join_asof(
            right.drop_nulls(table["key"]),
            left_on="event_timestamp",
            right_on="event_time",
            by=table["key"],
            tolerance=timedelta(days=TTL_DAYS),
            check_sortedness=False,
        ).drop("event_time", strict=False)
    rows.sort("row").drop("row").write_parquet(out, compression="zstd", compression_level=1)


def feast(kind: str) -> Callable[[Path, Path, int | None], None]:
    """Feast's own store; with no requests, only the cost of creating it."""

    def join(folder: Path, out: Path, most: int | None) -> None:
        import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig  # noqa: PLC0415
        from feast.types import Float64  # noqa: PLC0415
        from feast.value_type import ValueType  # noqa: PLC0415

        # DuckDB wants a pattern, Dask a folder, in which a manifest would be in the way.
        end = "/*.parquet" if kind == "duckdb" else ""
        objects: list[Any] = []
        for name, table in read_tables(folder).items():
            files = out.parent / f"{out.name}-{name}"
            shutil.copytree(folder / f"data/features/bench/{name}", files, ignore=shutil.ignore_patterns("*.json"))
            value = ValueType.INT64 if table["type"] == "Int64" else ValueType.STRING
            entity = Entity(name=table["key"], join_keys=[table["key"]], value_type=value)
            source = FileSource(name=name, path=f"{files}{end}", timestamp_field="event_time")
            schema = [Field(name=feature, dtype=Float64) for feature in table["features"]]
            ttl = timedelta(days=TTL_DAYS)
            objects += [entity, FeatureView(name=name, entities=[entity], ttl=ttl, schema=schema, source=source)]
        registry = {"registry_type": "file", "path": f"{out}.registry"}
        online = {"type": "sqlite", "path": f"{out}.online"}
        config = RepoConfig(
            project="bench", provider="local", registry=registry, online_store=online, offline_store={"type": kind}
        )
        store = FeatureStore(config=config)
        store.apply(objects)
        if most == 0:
            return
        asked = pd.read_parquet(folder / "requests.parquet").head(most)
        references = [
            f"{name}:{feature}" for name, table in read_tables(folder).items() for feature in table["features"]
        ]
        store.get_historical_features(asked, references, full_feature_names=True).to_df().to_parquet(out)

    return join


def compare(ours: Path, *others: str) -> None:
    """Print in how many features the other engines' results differ; the order of rows does not matter."""
    import polars as pl  # noqa: PLC0415

    schema = pl.read_parquet_schema(ours)
    given = [name for name in schema if "__" not in name]
    features = [name for name in schema if name not in given]
    # Hashes of each request with one feature, summed: equal sums mean equal results, except by chance.
    sums = [pl.struct(*given, name).hash().sum().alias(name) for name in features]
    mine = pl.scan_parquet(ours).select(pl.len(), *sums).collect()
    for other in others:
        theirs = pl.scan_parquet(other).select(list(schema)).cast(schema).select(pl.len(), *sums).collect()  # type: ignore[arg-type]
        wrong = sum(mine[name].item() != theirs[name].item() for name in features)
        asked, got = mine["len"].item(), theirs["len"].item()
        print(f"{Path(other).stem}: {got:,} rows for {asked:,}; {wrong} of {len(features)} features differ from ours")


ENGINES: dict[str, Callable[[Path, Path, int | None], None]] = {
    "headrace": headrace,
    "headrace-release": headrace_release,
    "duckdb": duckdb,
    "polars": polars,
    "feast-duckdb": feast("duckdb"),
    "feast-dask": feast("dask"),
}


if __name__ == "__main__":
    tune_gc()
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1] == "compare":
        compare(Path(sys.argv[2]), *sys.argv[3:])
    else:
        ENGINES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]) if sys.argv[4:] else None)
