"""Make `releases.bundle` and `objects.tar.gz`: two releases by the code before 0.2.0, as that code wrote them.

    python make.py CHECKOUT    # of commit 6d524d5, in an environment with Pandera 0.35

The old code was one package `pipelines` with the engine in it, so a real history would carry 45,000 lines. The commits
are therefore written again with what a release consists of (`dvc.lock`, pointers, `dvc.yaml`) and the dataset's own
files; every byte of those is as the old code wrote it.

It runs with the old code, whose test helpers and public names are others, so it imports nothing of today's tests.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

HERE = Path(__file__).resolve().parent
BUCKET = "shop"
KEPT = (".dvc", ".dvcignore", ".gitignore", "data", "dvc.lock", "dvc.yaml", "params.yaml", "pipelines/datasets/sales")
DAYS = {
    "2026-01-01": "1,east,2026-01-01T09:00:00Z,10.5\n2,west,2026-01-01T10:00:00Z,20.25\n",
    "2026-01-02": "3,east,2026-01-02T09:00:00Z,1.0\n4,west,2026-01-02T10:00:00Z,-5.0\n",
    "2026-01-03": "5,east,2026-01-03T09:00:00Z,3.0\n",
}
"""Day → orders; the order with a negative amount is rejected."""

DATASET = '''"""The dataset `sales`, as it was declared before 0.2.0."""

from datetime import timedelta
from pathlib import Path

import pandera.polars as pa
import polars as pl

from pipelines.contracts.reading import Delimited, delimited
from pipelines.dataset import UTC_MICROSECONDS, Dataset, FeatureTable, Objects, Reads, Source


def read(path: Path) -> pl.DataFrame:
    return delimited(path, Delimited())


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("order_id", "shop", "ordered_at", amount_eur="amount")


def turnover(day: str, orders: pl.LazyFrame) -> pl.LazyFrame:
    end = pl.lit(day).str.to_datetime(time_unit="us", time_zone="UTC") + timedelta(hours=23)
    summed = orders.group_by("shop").agg(turnover_eur=pl.col("amount_eur").sum())
    return summed.with_columns(event_time=end, known_time=end)


ORDERS = Source(
    name="orders",
    origin=Objects(prefix="orders/", partition=r"orders/(?P<partition>\\d{4}-\\d\\d-\\d\\d)\\.csv", suffix=".csv"),
    read=read,
    contract=pa.DataFrameSchema(
        {
            "order_id": pa.Column(pl.Int64),
            "shop": pa.Column(pl.String),
            "ordered_at": pa.Column(UTC_MICROSECONDS),
            "amount": pa.Column(pl.Float64, pa.Check.gt(0)),
        },
        strict=True,
    ),
    tidy=tidy,
    key=("ordered_at", "order_id"),
    tolerance=0.6,
)
TURNOVER = FeatureTable(
    name="shop_turnover",
    keys=("shop",),
    reads={"orders": Reads("validated/orders", lookback=1)},
    kernel=turnover,
    features={"turnover_eur": pl.Float64()},
    ttl=timedelta(days=2),
)
DATASET = Dataset(
    name="sales", description="Orders.", owner="shops", sources=(ORDERS,), features=(TURNOVER,), service="turnover"
)
'''


def main(checkout: Path) -> None:
    """Release twice, the second time with a correction and a deletion; write both files beside this one."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://127.0.0.1:{1}".format(*server.get_host_and_port())
    keys = {"AWS_ACCESS_KEY_ID": "moto", "AWS_SECRET_ACCESS_KEY": "moto", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys, AWS_ENDPOINT_URL=endpoint, HEADRACE_BUCKET=BUCKET, DVC_NO_ANALYTICS="1")
    bucket = boto3.resource("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
    with tempfile.TemporaryDirectory() as folder:
        root = project(Path(folder), checkout)
        for day, lines in DAYS.items():
            bucket.put_object(Key=f"orders/{day}.csv", Body=f"order_id,shop,ordered_at,amount\n{lines}".encode())
        release(root)
        bucket.put_object(
            Key="orders/2026-01-02.csv", Body=b"order_id,shop,ordered_at,amount\n3,east,2026-01-02T09:00:00Z,2.0\n"
        )
        bucket.Object("orders/2026-01-03.csv").delete()
        release(root)
        keep_commits(root, Path(folder) / "kept")
    with tarfile.open(HERE / "objects.tar.gz", "w:gz") as archive:
        for item in bucket.objects.filter(Prefix="dvc/"):
            found = tarfile.TarInfo(item.key.removeprefix("dvc/"))
            found.size = item.size
            archive.addfile(found, item.get()["Body"])
    server.stop()


def project(folder: Path, checkout: Path) -> Path:
    """A clone of the old code that declares `sales` alone, with an origin and a DVC remote."""
    root, origin = folder / "workspace", folder / "origin.git"
    git(folder, "clone", "--quiet", str(checkout), str(root))
    for name in ("flights", "digits"):
        shutil.rmtree(root / "pipelines/datasets" / name)
    (root / "pipelines/datasets/sales").mkdir()
    (root / "pipelines/datasets/sales/__init__.py").write_text(DATASET)
    names = root / "pipelines/datasets/__init__.py"
    names.write_text(names.read_text().replace('NAMES = ("flights", "digits")', 'NAMES = ("sales",)'))
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / ".dvc/config.local").write_text(f"['remote \"storage\"']\n    url = s3://{BUCKET}/dvc\n")
    headrace(root, "stages", "--write")
    git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", str(origin))
    git(root, "checkout", "--quiet", "-B", "main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Declare sales")
    git(root, "remote", "set-url", "origin", str(origin))
    git(root, "push", "--quiet", "origin", "main")
    return root


def release(root: Path) -> None:
    """Run every stage, then release, by the old command line."""
    headrace(root, "run", "sales")
    headrace(root, "version", "sales")


def keep_commits(root: Path, kept: Path) -> None:
    """Write the releases' commits again with what a release consists of, and bundle them with their tags."""
    git(kept.parent, "init", "--quiet", "--initial-branch", "main", str(kept))
    for name in ("sales/1", "sales/2"):
        archive = subprocess.run(
            ["git", "archive", name, "--", *KEPT], cwd=root, capture_output=True, check=True
        ).stdout
        git(kept, "rm", "-r", "--quiet", "--ignore-unmatch", ".")
        subprocess.run(["tar", "-x"], cwd=kept, input=archive, check=True)
        git(kept, "add", "--all", "--force")
        git(kept, "commit", "--quiet", "--message", git(root, "log", "-1", "--format=%B", name))
        git(
            kept,
            "tag",
            "--annotate",
            name,
            "--message",
            git(root, "for-each-ref", "--format=%(contents)", f"refs/tags/{name}"),
        )
    git(kept, "bundle", "create", str(HERE / "releases.bundle"), "HEAD", "main", "--tags")


def headrace(root: Path, *arguments: str) -> None:
    """Run a command of the old engine, which is the package `pipelines` of the clone."""
    environment = {**os.environ, "PYTHONPATH": str(root), "HEADRACE_WORKSPACE": str(root)}
    subprocess.run([sys.executable, "-m", "pipelines", *arguments], cwd=root, env=environment, check=True)


def git(folder: Path, *arguments: str) -> str:
    """What git prints."""
    identity = ("-c", "user.name=Headrace", "-c", "user.email=headrace@localhost", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
