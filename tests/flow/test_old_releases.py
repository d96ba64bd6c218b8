"""Releases of 0.1 and 0.2, whose manifests are of format 1, can be read by today's engine.

`tests/support/releases_of_0_1/` and `releases_of_0_2/` hold two each, as that code wrote them; their `make.py` made
them. In 0.1 the engine was in the package `pipelines`: that project is moved to today's layout, as a team would do it.
`DATASET` is its declaration in today's terms.
"""

import json
import shutil
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from servers import S3
from workspaces import REPOSITORY, Workspace, git

SUPPORT = Path(__file__).resolve().parents[1] / "support"
FAILED_CHECK = {"0.1": "amount: greater_than(0)", "0.2": "amount|min_exclusive"}
DATASET = '''"""The dataset `sales`, as it is declared today."""

from datetime import timedelta
from pathlib import Path

import dataframely as dy
import polars as pl

from headrace.dataset import Dataset, FeatureTable, Input, ObjectSource, Source
from headrace.validate.columns import utc_time
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv


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


@pytest.fixture(scope="module", params=["0.1", "0.2"])
def version(request: pytest.FixtureRequest) -> str:
    """The version that wrote the releases."""
    return str(request.param)


@pytest.fixture(scope="module")
def migrated_project(version: str, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone of the old project whose declarations are in today's layout, with its releases and their bytes."""
    folder, old = tmp_path_factory.mktemp("old"), SUPPORT / f"releases_of_{version.replace('.', '_')}"
    root, origin, bucket = folder / "workspace", folder / "origin.git", s3.new_bucket()
    git(folder, "clone", "--quiet", "--bare", str(old / "releases.bundle"), str(origin))
    git(folder, "clone", "--quiet", str(origin), str(root))
    with tarfile.open(old / "objects.tar.gz") as objects:
        for item in objects:
            content = objects.extractfile(item)
            assert content is not None
            bucket.write(f"dvc/{item.name}", content.read())
    workspace = Workspace(root, s3, bucket.name)
    workspace.configure()
    shutil.rmtree(root / "pipelines")
    shutil.copytree(REPOSITORY / "feature_repo", root / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pipelines/sales").mkdir(parents=True)
    (root / "pipelines/__init__.py").touch()
    (root / "pipelines/sales/__init__.py").write_text(DATASET)
    headrace(workspace, "dvc-sync")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Move to the installed Headrace")
    git(root, "push", "--quiet", "origin", "HEAD:main")
    return workspace


@pytest.mark.parametrize(
    ("release", "rows"),
    [
        ("sales/1", [("east", 2, 11.5), ("west", 2, 20.25), ("east", 3, 4.0)]),
        ("sales/2", [("east", 2, 12.5), ("west", 2, 20.25), ("east", 3, 12.5)]),
    ],
)
def test_an_old_release_is_retrieved(
    migrated_project: Workspace, tmp_path: Path, release: str, rows: list[tuple[str, int, float]]
) -> None:
    asked = pl.DataFrame(
        {
            "shop": [shop for shop, _, _ in rows],
            "event_timestamp": [datetime(2026, 1, day, 23, 30, tzinfo=UTC) for _, day, _ in rows],
        }
    )
    asked.write_parquet(tmp_path / "requests.parquet")

    headrace(
        migrated_project, "retrieve", "sales", "--release", release,
        "--requests", str(tmp_path / "requests.parquet"), "--out", str(tmp_path / "rows.parquet"),
    )  # fmt: skip

    found = pl.read_parquet(tmp_path / "rows.parquet")
    value = next(name for name in found.columns if name.endswith("turnover_eur"))
    assert found[value].to_list() == [amount for _, _, amount in rows]


@pytest.mark.slow_lane
def test_the_online_store_is_rolled_back_to_an_old_release(
    migrated_project: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{tmp_path}/registry.db")
    monkeypatch.setenv("FEAST_ONLINE_STORE_PATH", str(tmp_path / "online.db"))
    monkeypatch.setenv("FEAST_USAGE", "False")

    second = headrace(migrated_project, "publish", "sales", "--release", "sales/2")
    first = headrace(migrated_project, "publish", "sales", "--release", "sales/1")

    assert "serves sales/2" in second
    assert "serves sales/1" in first, "its values in the store equal those of the release before the switch"


def test_lineage_leads_from_an_old_feature_to_the_object_it_came_from(migrated_project: Workspace) -> None:
    output = headrace(
        migrated_project,
        "lineage",
        "sales",
        "--table",
        "features/shop_turnover",
        "--partition",
        "2026-01-02",
        "--revision",
        "sales/2",
    )

    assert "s3://shop/orders/2026-01-02.csv" in output
    assert "s3://shop/orders/2026-01-01.csv" in output


def test_lineage_finds_an_old_rejected_row_with_the_check_that_it_failed(
    migrated_project: Workspace, version: str
) -> None:
    output = headrace(
        migrated_project, "lineage", "sales", "--table", "rejected/orders", "--partition", "2026-01-02",
        "--revision", "sales/1", "--row", "order_id=4",
    )  # fmt: skip

    assert "-5.0" in output
    assert FAILED_CHECK[version] in output


def test_old_releases_are_compared(migrated_project: Workspace) -> None:
    found = as_json(migrated_project, "diff", "sales/1", "sales/2")

    raw = found["tables"]["raw/sales/orders"]
    assert (raw["changed"], raw["removed"]) == (["2026-01-02"], ["2026-01-03"])


def test_the_doctor_finds_every_old_byte(migrated_project: Workspace) -> None:
    whole = headrace(migrated_project, "doctor", "--deep")
    objects = migrated_project.remote.folder / migrated_project.bucket / "dvc/files/md5"
    lost = next(path for path in sorted(objects.rglob("*")) if path.is_file() and path.suffix != ".dir")
    content = lost.read_bytes()
    lost.write_bytes(b"damaged")

    damaged = migrated_project.command("headrace", "doctor", "--deep", fails=True)
    lost.write_bytes(content)

    assert "sales/1" not in whole
    assert "sales/1" in damaged or "sales/2" in damaged


def test_old_tables_are_computed_again_once_with_the_same_rows(migrated_project: Workspace) -> None:
    migrated_project.dvc("pull", "--quiet")

    planned = as_json(migrated_project, "plan", "sales")
    before = migrated_project.table_store.scan("features/sales/shop_turnover").collect()
    headrace(migrated_project, "validate", "sales")
    headrace(migrated_project, "transform", "sales")
    released = headrace(migrated_project, "release", "sales")

    assert [len(stage["stale"]) for stage in planned["stages"]] == [2, 2]
    assert "sales/3" in released
    assert migrated_project.table_store.scan("features/sales/shop_turnover").collect().equals(before)
    assert [len(stage["stale"]) for stage in as_json(migrated_project, "plan", "sales")["stages"]] == [0, 0]
    folders = (migrated_project.root / "data").glob("*/sales/*/")
    assert {tuple(sorted(path.name for path in folder.glob("*manifest*"))) for folder in folders} == {("_manifest",)}


def headrace(workspace: Workspace, *arguments: str) -> str:
    return workspace.command("headrace", *arguments)


def as_json(workspace: Workspace, *arguments: str) -> Any:  # noqa: ANN401  whatever the command answers
    return json.loads(headrace(workspace, *arguments, "--json"))
