"""Make `releases.bundle` and `objects.tar.gz`: two releases by Headrace 0.2.0, as it wrote them.

    python make.py CHECKOUT    # of the tag 0.2.0, in its locked environment

Their manifests are of format 1, their Parquet files have no field ids. A commit has what a release consists of and the
declaration of the dataset.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

HERE = Path(__file__).resolve().parent
BUCKET = "shop"
HEADER = "order_id,shop,ordered_at,amount\n"
DAYS = {
    "2026-01-01": "1,east,2026-01-01T09:00:00Z,10.5\n2,west,2026-01-01T10:00:00Z,20.25\n",
    "2026-01-02": "3,east,2026-01-02T09:00:00Z,1.0\n4,west,2026-01-02T10:00:00Z,-5.0\n",
    "2026-01-03": "5,east,2026-01-03T09:00:00Z,3.0\n",
}
"""Day → orders; the order with a negative amount is rejected."""

DATASET = '''"""The dataset `sales`, as it is declared for 0.2.0."""

from datetime import timedelta
from pathlib import Path

import dataframely as dy
import polars as pl

from headrace.dataset import Dataset, FeatureTable, Input, ObjectSource, Source
from headrace.validate.columns import utc_time
from headrace.validate.readers import CsvDialect, read_csv


class Orders(dy.Schema):
    order_id = dy.Int64()
    shop = dy.String()
    ordered_at = utc_time()
    amount = dy.Float64(min_exclusive=0)


def read(path: Path) -> pl.DataFrame:
    return read_csv(path, CsvDialect())


def transform(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("order_id", "shop", "ordered_at", amount_eur="amount")


def turnover(day: str, orders: pl.LazyFrame) -> pl.LazyFrame:
    end = pl.lit(day).str.to_datetime(time_unit="us", time_zone="UTC") + timedelta(hours=23)
    summed = orders.group_by("shop").agg(turnover_eur=pl.col("amount_eur").sum())
    return summed.with_columns(event_time=end, known_time=end)


ORDERS = Source(
    name="orders",
    location=ObjectSource(
        prefix="orders/", partition=r"orders/(?P<partition>\\d{4}-\\d\\d-\\d\\d)\\.csv", suffix=".csv"
    ),
    read=read,
    contract=Orders,
    transform=transform,
    key=("ordered_at", "order_id"),
    max_rejected_share=0.6,
)
TURNOVER = FeatureTable(
    name="shop_turnover",
    keys=("shop",),
    inputs={"orders": Input("validated/orders", lookback=1)},
    transform=turnover,
    features={"turnover_eur": pl.Float64()},
    ttl=timedelta(days=2),
)
DATASET = Dataset(description="Orders.", owner="shops", sources=(ORDERS,), features=(TURNOVER,), service="turnover")
'''


def main(checkout: Path) -> None:
    """Release twice, the second time with a correction and a deletion; write both files beside this one."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://127.0.0.1:{1}".format(*server.get_host_and_port())
    keys = {"AWS_ACCESS_KEY_ID": "moto", "AWS_SECRET_ACCESS_KEY": "moto", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys, AWS_ENDPOINT_URL=endpoint, HEADRACE_BUCKET=BUCKET, DVC_NO_ANALYTICS="1")
    os.environ["PYTHONPATH"] = str(checkout)
    for role in ("AUTHOR", "COMMITTER"):
        os.environ |= {f"GIT_{role}_NAME": "Headrace", f"GIT_{role}_EMAIL": "headrace@localhost"}
    bucket = boto3.resource("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
    with tempfile.TemporaryDirectory() as folder:
        root = create_project(Path(folder))
        for day, lines in DAYS.items():
            bucket.put_object(Key=f"orders/{day}.csv", Body=f"{HEADER}{lines}".encode())
        run(root, sys.executable, "-m", "headrace", "run", "sales", "--release")
        bucket.put_object(Key="orders/2026-01-02.csv", Body=f"{HEADER}3,east,2026-01-02T09:00:00Z,2.0\n".encode())
        bucket.Object("orders/2026-01-03.csv").delete()
        run(root, sys.executable, "-m", "headrace", "run", "sales", "--release")
        git(root, "bundle", "create", str(HERE / "releases.bundle"), "HEAD", "main", "--tags")
    with tarfile.open(HERE / "objects.tar.gz", "w:gz") as archive:
        for item in bucket.objects.filter(Prefix="dvc/"):
            member = tarfile.TarInfo(item.key.removeprefix("dvc/"))
            member.size = item.size
            archive.addfile(member, item.get()["Body"])
    server.stop()


def create_project(folder: Path) -> Path:
    """A project that declares `sales` alone, with an origin and a DVC remote."""
    root, origin = folder / "workspace", folder / "origin.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", str(origin))
    git(folder, "init", "--quiet", "--initial-branch", "main", str(root))
    run(root, "dvc", "init", "--quiet")
    run(root, "dvc", "remote", "add", "--quiet", "--default", "storage", f"s3://{BUCKET}/dvc")
    run(root, "dvc", "remote", "modify", "storage", "verify", "true")
    (root / "pipelines/sales").mkdir(parents=True)
    (root / "pipelines/__init__.py").touch()
    (root / "pipelines/sales/__init__.py").write_text(DATASET)
    (root / "params.yaml").write_text("{}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / ".gitignore").write_text("/.headrace/\n__pycache__/\n")
    os.environ["HEADRACE_WORKSPACE"] = str(root)
    run(root, sys.executable, "-m", "headrace", "dvc-sync")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Declare sales")
    git(root, "remote", "add", "origin", str(origin))
    git(root, "push", "--quiet", "--set-upstream", "origin", "main")
    return root


def git(folder: Path, *arguments: str) -> None:
    """Run git."""
    run(folder, "git", *arguments)


def run(folder: Path, *command: str) -> None:
    """Run a command in `folder`."""
    subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
