"""Ingest of many small objects, few large objects and a database table, compared with tools that only copy.

Headrace lists, reads each object as the version that was listed, hashes it twice (the md5 that names it, the sha256 in
the manifest) and publishes the table. One peer, `obstore_md5`, hashes each object once. `make bench` installs s5cmd and
ConnectorX into an environment of their own (`requirements/bench.txt`); without it, the report says that they were not
checked.
"""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from environment import Workspace, create_workspace, run_servers
from measure import PEERS, Contender, Report, create_parser, run_interleaved, run_once
from transform import move_aside

OBJECTS = {"small": (500, 100_000), "large": (3, 100_000_000)}
FULL_OBJECTS = {"small": (2000, 100_000), "large": (10, 100_000_000)}
ROWS, FULL_ROWS, DAYS = 1_000_000, 5_000_000, 30
THREADS = 8
S5CMD, PEERS_PYTHON = PEERS / "bin/s5cmd", PEERS / "bin/python"
CONNECTORX = """
import os
import polars as pl

address = os.environ["HEADRACE_DATABASE_URL"].replace("+psycopg", "")
rows = pl.read_database_uri("SELECT * FROM events", address, engine="connectorx")
rows.write_parquet("out/all.parquet", compression="zstd", compression_level=1)
"""
"""The same as `adbc_polars`, for an environment that has nothing of Headrace."""

NOT_INSTALLED = "not installed; `make bench` installs it"


def main() -> None:
    """Run the benchmark."""
    parser = create_parser(__doc__ or "", large="four times as many objects, five times as many rows")
    parser.add_argument("--do", nargs="+", help="(internal)")
    arguments = parser.parse_args()
    if arguments.do:
        function, *rest = arguments.do
        globals()[function](*rest)
        return
    report = Report("ingest", as_json=arguments.json)
    with run_servers("s3", "postgres") as (folder, env):
        workspaces = {name: create_workspace(folder, env, name) for name in (*OBJECTS, "rows")}
        for name, (number, size) in (FULL_OBJECTS if arguments.full else OBJECTS).items():
            compare_objects(report, workspaces[name], number, size, arguments.repeats)
        compare_tables(report, workspaces["rows"], FULL_ROWS if arguments.full else ROWS, arguments.repeats)
    report.end()


def contender(place: Workspace, function: str, *arguments: object) -> Contender:
    """A function of this script, run in its own process, with the workspace's code and nothing ingested."""
    script = place.script(function, str(place.root / "benchmarks/ingest.py"), "--do", function, *map(str, arguments))
    return Contender(function, script.command, place.root, place.env, partial(clear, place.root))


def clear(root: Path) -> None:
    """Remove ingested data. Files are truncated and moved aside: ext4 creates files slowly after many deletions."""
    for folder in filter(Path.exists, (root / "data/raw", root / ".dvc/cache", root / "out")):
        for path in filter(Path.is_file, folder.rglob("*")):
            path.chmod(0o644)
            os.truncate(path, 0)
        move_aside(folder)
    (root / "out").mkdir()


def compare_objects(report: Report, place: Workspace, number: int, size: int, repeats: int) -> None:
    """Ingest `number` objects of `size` bytes."""
    (place.bucket / "objects").mkdir()
    for index in range(number):
        (place.bucket / f"objects/{index:05}.bin").write_bytes(os.urandom(size))
    contenders = [
        contender(place, function, *rest)
        for function, *rest in (("ours", "objects"), ("boto3_pool",), ("s3fs_get",), ("obstore_get",), ("obstore_md5",))
    ]
    if S5CMD.exists():
        env = {**place.env, "S3_ENDPOINT_URL": place.env["AWS_ENDPOINT_URL"], "AWS_REGION": "us-east-1"}
        command = [str(S5CMD), "--log", "error", "cp", f"s3://{place.bucket.name}/objects/*", "out/"]
        contenders.append(Contender("s5cmd", command, place.root, env, partial(clear, place.root)))
    else:
        report.leave_out("ingest against s5cmd", NOT_INSTALLED)
    costs = run_interleaved(contenders, repeats)
    report.table(f"{number:,} objects of {size / 1e6:g} MB", costs, "ours")
    if "s5cmd" in costs:
        report.target("ours / s5cmd", costs["ours"].total_s / costs["s5cmd"].total_s, 1.5)
    report.target("ours / obstore_get", costs["ours"].total_s / costs["obstore_get"].total_s, 2)
    report.target("ours / obstore_md5", costs["ours"].total_s / costs["obstore_md5"].total_s, 1.3)


def compare_tables(report: Report, place: Workspace, rows: int, repeats: int) -> None:
    """Ingest a table, partitioned by day."""
    run_once(contender(place, "fill_table", rows))
    contenders = [contender(place, "ours", "rows"), contender(place, "pandas_sql"), contender(place, "adbc_polars")]
    if PEERS_PYTHON.exists():
        command = [str(PEERS_PYTHON), "-c", CONNECTORX]
        contenders.append(Contender("connectorx_polars", command, place.root, place.env, partial(clear, place.root)))
    else:
        report.leave_out("ingest against ConnectorX", NOT_INSTALLED)
    costs = run_interleaved(contenders, repeats)
    report.table(f"{rows:,} rows of PostgreSQL", costs, "ours")
    best = min((name for name in costs if name != "ours"), key=lambda name: costs[name].total_s)
    report.target(f"ours / the fastest of them ({best})", costs["ours"].total_s / costs[best].total_s, 1.1)


def ours(kind: str) -> None:
    """Headrace."""
    gc.set_threshold(200_000, 20, 100)  # as every command does
    from headrace.dataset import Dataset, ObjectSource, Source, TableSource  # noqa: PLC0415
    from headrace.ingest.ingest import ingest  # noqa: PLC0415
    from headrace.settings import Settings  # noqa: PLC0415
    from headrace.storage.table_store import TableStore  # noqa: PLC0415

    sources: dict[str, ObjectSource | TableSource] = {
        "objects": ObjectSource("objects/", r"objects/(?P<partition>\d+)\.bin", ".bin"),
        "rows": TableSource("events", ("id",), "updated_at", "happened_at"),
    }
    unused: Any = None  # ingest reads no contract
    source = Source("events", sources[kind], unused, unused, unused, ("id",))
    dataset = Dataset(name="bench", description="", owner="", sources=(source,))
    print(*ingest(dataset, TableStore.at(Path.cwd()), Settings(workspace=Path.cwd())))


def boto3_pool() -> None:
    """boto3: `get_object` in threads."""
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    client, bucket = boto3.client("s3", config=Config(max_pool_connections=THREADS)), os.environ["HEADRACE_BUCKET"]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="objects/")
    keys = [item["Key"] for page in pages for item in page["Contents"]]

    def get(key: str) -> None:
        with Path("out", Path(key).name).open("wb") as file:
            file.writelines(client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(get, keys))


def s3fs_get() -> None:
    """s3fs: a recursive get."""
    import s3fs  # noqa: PLC0415

    files = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    files.get(f"{os.environ['HEADRACE_BUCKET']}/objects/", "out/", recursive=True)


def obstore_get(prefix: str = "objects", hash_name: str = "") -> None:
    """obstore: `get` in threads."""
    import hashlib  # noqa: PLC0415

    import obstore  # noqa: PLC0415
    from obstore.store import S3Store  # noqa: PLC0415

    store = S3Store(
        os.environ["HEADRACE_BUCKET"], endpoint=os.environ["AWS_ENDPOINT_URL"], region="us-east-1",
        client_options={"allow_http": True}, virtual_hosted_style_request=False,
    )  # fmt: skip
    keys = [item["path"] for page in obstore.list(store, prefix) for item in page]

    def get(key: str) -> None:
        hashed = hashlib.new(hash_name) if hash_name else None
        with Path("out", Path(key).name).open("wb") as file:
            for chunk in obstore.get(store, key).stream(min_chunk_size=1 << 20):
                file.write(chunk)
                if hashed:
                    hashed.update(chunk)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(get, keys))


def obstore_md5() -> None:
    """The same, and each object hashed once."""
    obstore_get(hash_name="md5")


def fill_table(rows: str) -> None:
    """Create a table of events over 30 days."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(os.environ["HEADRACE_DATABASE_URL"].replace("+psycopg", "")) as connection:
        connection.execute(
            "CREATE TABLE events AS SELECT id, 'user ' || id % 9973 AS who, random() AS amount, id % 7 AS kind,"  # noqa: S608  a number of our own
            f" timestamptz '2026-01-01Z' + id * interval '{DAYS} days' / {int(rows)} AS happened_at,"
            f" timestamptz '2026-02-01Z' AS updated_at FROM generate_series(0::bigint, {int(rows) - 1}) AS id".encode()
        )


def pandas_sql() -> None:
    """`pandas.read_sql` in chunks, one file per chunk."""
    import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415
    from sqlalchemy import create_engine  # noqa: PLC0415

    engine = create_engine(os.environ["HEADRACE_DATABASE_URL"])
    with engine.connect().execution_options(stream_results=True) as connection:
        for number, chunk in enumerate(pd.read_sql("SELECT * FROM events", connection, chunksize=200_000)):
            chunk.to_parquet(f"out/{number}.parquet", compression="zstd")


def adbc_polars() -> None:
    """`polars.read_database_uri` over ADBC, one file."""
    import polars as pl  # noqa: PLC0415

    address = os.environ["HEADRACE_DATABASE_URL"].replace("+psycopg", "")
    rows = pl.read_database_uri("SELECT * FROM events", address, engine="adbc")
    rows.write_parquet("out/all.parquet", compression="zstd", compression_level=1)


if __name__ == "__main__":
    main()
