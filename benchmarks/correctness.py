"""Right or wrong: small cases of a point-in-time join, run on our store and on Feast's own, compared with nested loops.

The nested loops are in `tests/support/pit_oracle.py`. A store is right if it returns every row, in order, with the
expected value and type.
"""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Int64, String
from measure import REPOSITORY, Report, create_parser

sys.path.insert(0, str(REPOSITORY / "tests/support"))

from pit_oracle import expected_row

from headrace.dataset import UTC_MICROSECONDS, Dataset, FeatureTable
from headrace.feast.local_store import local_feature_store
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

NOON = datetime(2013, 1, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TTL = 6 * HOUR
RIGHT = "right"
LARGE = 2**53 + 1

Rows = Sequence[tuple[str | None, timedelta, timedelta, int]]


@dataclass(frozen=True)
class Case:
    """Rows (key, event time, delay until known, value) of one or two tables, and requests (key, other key, time)."""

    name: str
    rows: Rows
    requests: Sequence[tuple[str | None, str, timedelta]]
    other: Rows = field(default=())
    as_known: bool = False
    unit: Any = "us"


ROW = ("a", -HOUR, timedelta(0), 1)
CASES = [
    Case("one value, as it should be", [ROW], [("a", "x", timedelta(0))]),
    Case("the same key and time twice", [ROW], [("a", "x", timedelta(0))] * 2),
    Case("a value older than its TTL", [ROW], [("a", "x", timedelta(0)), ("a", "x", 9 * HOUR)]),
    Case("before the first value", [ROW], [("a", "x", timedelta(0)), ("a", "x", -9 * HOUR)]),
    Case("an unknown key", [ROW], [("a", "x", timedelta(0)), ("z", "x", timedelta(0))]),
    Case("a null key, and a row of a null key", [ROW, (None, -HOUR, timedelta(0), 6)], [(None, "x", timedelta(0))] * 2),
    Case(
        "two tables by other keys, requests that share one",
        [ROW],
        [("a", "x", timedelta(0)), ("a", "y", timedelta(0))],
        other=[("x", -HOUR, timedelta(0), 7), ("y", -HOUR, timedelta(0), 8)],
    ),
    Case("a correction of the same event time", [("a", -HOUR, HOUR, 2), ROW], [("a", "x", 2 * HOUR)]),
    Case("a correction not known yet", [ROW, ("a", -HOUR, 3 * HOUR, 2)], [("a", "x", HOUR)], as_known=True),
    Case(
        "a late row older than the newest", [ROW, ("a", -2 * HOUR, 3 * HOUR, 2)], [("a", "x", 2 * HOUR)], as_known=True
    ),
    Case(
        "a whole number past 2^53 beside a null",
        [("a", -HOUR, timedelta(0), LARGE)],
        [("a", "x", timedelta(0)), ("z", "x", timedelta(0))],
    ),
    Case(
        "the order of many requests",
        [("abcdef"[n % 6], -HOUR * (n % 5), timedelta(0), n) for n in range(30)],
        [("abcdef"[n * 7 % 6], "x", HOUR * (n * 31 % 7) + timedelta(seconds=n * 7919 % 5000)) for n in range(5000)],
    ),
    Case("requests a nanosecond after a microsecond", [ROW], [("a", "x", timedelta(0))], unit="ns"),
    Case(
        "exactly as old as its TTL", [ROW], [("a", "x", TTL - HOUR), ("a", "x", TTL - HOUR + timedelta(microseconds=1))]
    ),
]


def main() -> None:
    """Run every case on every store."""
    arguments = create_parser(__doc__ or "").parse_args()
    report = Report("correctness", as_json=arguments.json)
    stores: dict[str, Callable[[Case, Path], Any]] = {
        "ours": query_headrace,
        "dask": query_feast("dask"),
        "duckdb": query_feast("duckdb"),
    }
    wrong = dict.fromkeys(stores, 0)
    report.section("the answer to each case")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in CASES:
            outcomes = {name: check_store(case, store) for name, store in stores.items()}
            report.note(f"{case.name}: " + ", ".join(f"{name} {outcome}" for name, outcome in outcomes.items()))
            for name, outcome in outcomes.items():
                wrong[name] += outcome != RIGHT
    report.section(f"wrong answers in {len(CASES)} cases")
    report.target("wrong answers of ours", wrong.pop("ours"), 0)
    for name, count in wrong.items():
        report.figure(f"wrong answers of Feast on {name}", count)
    report.end()
    if not all(target.is_met for section in report.sections for target in section.targets):
        sys.exit(1)


def check_store(case: Case, store: Callable[[Case, Path], Any]) -> str:
    """Whether a store answers a case correctly, else how its answer differs."""
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        try:
            table = store(case, Path(folder))
        except Exception as error:  # noqa: BLE001  any error of a store is a result
            return f"raises {type(error).__name__}"
    expected, rows = expected_values(case), table.num_rows
    if rows != len(expected):
        return f"{rows} rows for {len(expected)}"
    returned = list(zip(*(table[name].to_pylist() for name in feature_columns(case)), strict=True))
    if returned == expected and all(str(table[name].type) == "int64" for name in feature_columns(case)):
        return RIGHT
    if sorted(map(repr, returned)) == sorted(map(repr, expected)):
        return "order lost"
    some = [(mine, right) for mine, right in zip(returned, expected, strict=True) if repr(mine) != repr(right)]
    return f"{some[0][0]} for {some[0][1]}" if some else "another type"


def feature_columns(case: Case) -> list[str]:
    """The requested features."""
    return ["one__v", "two__v"] if case.other else ["one__v"]


def expected_values(case: Case) -> list[tuple[int | None, ...]]:
    """The values by nested loops."""
    found = []
    for key, other, at in case.requests:
        values = []
        for mine, rows in ((key, case.rows), (other, case.other)):
            table = [
                {"k": k, "event_time": event, "known_time": event + late, "v": value} for k, event, late, value in rows
            ]
            best = expected_row({"k": mine, "at": at}, table, ["k"], TTL, as_known=case.as_known)  # type: ignore[arg-type]
            values.append(None if best is None else best["v"])
        found.append(tuple(values[: len(feature_columns(case))]))
    return found


def request_rows(case: Case) -> pl.DataFrame:
    """The request rows."""
    rows = [(key, other, NOON + at) for key, other, at in case.requests]
    schema = {"one_id": pl.String(), "two_id": pl.String(), "event_timestamp": UTC_MICROSECONDS}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    if case.unit == "us":
        return frame
    return frame.with_columns(
        pl.col("event_timestamp").dt.cast_time_unit("ns") + pl.duration(nanoseconds=1, time_unit="ns")
    )


def feature_tables(case: Case) -> Mapping[str, pl.DataFrame]:
    """Name → rows of each feature table."""
    made = {}
    for name, rows in (("one", case.rows), ("two", case.other or [("x", -HOUR, timedelta(0), 1)])):
        stamped = [(key, NOON + event, NOON + event + late, value) for key, event, late, value in rows]
        schema = {
            f"{name}_id": pl.String(),
            "event_time": UTC_MICROSECONDS,
            "known_time": UTC_MICROSECONDS,
            "v": pl.Int64(),
        }
        made[name] = pl.DataFrame(stamped, schema=schema, orient="row")
    return made


def query_headrace(case: Case, folder: Path) -> Any:  # noqa: ANN401  an Arrow table
    """Query our store."""
    (folder / "feature_repo").mkdir()
    written = (REPOSITORY / "feature_repo/feature_store.yaml").read_text()
    switched = written.replace("as_known: true", f"as_known: {str(case.as_known).lower()}")
    (folder / "feature_repo/feature_store.yaml").write_text(switched)
    table_store, declared = TableStore.at(folder), []
    for name, rows in feature_tables(case).items():
        stored = table_store.cache.add(lambda path, rows=rows: parquet.write(rows, path))  # type: ignore[misc]
        table_store.checkout(
            Manifest(
                f"features/cases/{name}", partitions={"all": PartitionEntry("", stored.md5, stored.size, rows.height)}
            )
        )
        declared.append(FeatureTable(name, (f"{name}_id",), {}, query_headrace, {"v": pl.Int64()}, TTL))
    dataset = Dataset(name="cases", description="", owner="", sources=(), features=tuple(declared), service="cases")
    with local_feature_store(dataset, table_store) as store:
        references = [f"{name.split('__')[0]}__a:v" for name in feature_columns(case)]
        found = store.get_historical_features(request_rows(case), references, full_feature_names=True).to_arrow()
        return found.rename_columns([name.replace("__a__", "__") for name in found.column_names])


def query_feast(kind: str) -> Callable[[Case, Path], Any]:
    """A function that queries one of Feast's own stores."""

    def ask(case: Case, folder: Path) -> Any:  # noqa: ANN401
        registry = {"registry_type": "file", "path": f"{folder}/registry"}
        online = {"type": "sqlite", "path": f"{folder}/online"}
        store = FeatureStore(
            config=RepoConfig(
                project="cases", provider="local", registry=registry, online_store=online, offline_store={"type": kind}
            )
        )
        objects: list[Any] = []
        for name, rows in feature_tables(case).items():
            rows.write_parquet(folder / f"{name}.parquet")
            entity = Entity(name=f"{name}_id", join_keys=[f"{name}_id"])
            source = FileSource(
                name=name,
                path=str(folder / f"{name}.parquet"),
                timestamp_field="event_time",
                created_timestamp_column="known_time",
            )
            schema = [Field(name="v", dtype=Int64), Field(name=f"{name}_id", dtype=String)]
            objects += [entity, FeatureView(name=name, entities=[entity], ttl=TTL, schema=schema, source=source)]
        store.apply(objects)
        references = [name.replace("__", ":") for name in feature_columns(case)]
        how: dict[str, Any] = {"full_feature_names": True}
        if case.as_known:
            how["filter_by_created_timestamp"] = True
        return store.get_historical_features(request_rows(case).to_pandas(), references, **how).to_arrow()

    return ask


if __name__ == "__main__":
    main()
