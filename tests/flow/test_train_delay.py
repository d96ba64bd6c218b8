"""The example promises: a point-in-time table of real flights, split by time; a model that beats the base rate.

Nine real days go through contracts and kernels; no server runs and nothing is published.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import feature_workspace
import polars as pl
import pytest
import real_flights

import headrace
from headrace import DatasetTables
from headrace.dataset import UNPARTITIONED
from headrace.project.loading import load_dataset
from headrace.storage import git, parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore
from headrace.transform import kernel

pytestmark = pytest.mark.slow

DATASET = load_dataset("flights")

DAYS = [f"2013-01-{day:02}" for day in range(1, 10)]


def _example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_delay", feature_workspace.REPO / "examples" / "train_delay.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_delay"] = module
    spec.loader.exec_module(module)
    return module


train_delay = _example()


@pytest.fixture(scope="module")
def table_store(tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    """A workspace with nine days of validated flights, their features, and the causes of three delays."""
    table_store = feature_workspace.create_workspace(tmp_path_factory.mktemp("real"))
    git.git(table_store.root, "init", "--quiet")
    validated = {day: real_flights.validate_partition("flights", day).accepted for day in DAYS}
    write_table(table_store, "validated/flights/flights", validated, train_delay.FLIGHT)
    for declared in DATASET.features:
        table = declared.with_params({"late_min": train_delay.LATE_MIN})
        rows = {
            day: kernel.compute_rows(table, day, write_inputs(table_store, table.inputs, day)).collect() for day in DAYS
        }
        write_table(table_store, f"features/flights/{table.name}", rows, [*table.keys, "event_time"])
    late = pl.concat([validated[DAYS[0]], validated[DAYS[-1]]]).filter(pl.col("dep_delay_min") >= 60)
    labels = (
        late.sort(train_delay.FLIGHT)
        .gather([0, 1, -1])
        .with_columns(label=pl.Series(["weather", "carrier", "weather"]))
    )
    write_table(table_store, "labels/flights/delay_cause", {UNPARTITIONED: labels}, train_delay.FLIGHT)
    return table_store


def tables(table_store: TableStore) -> DatasetTables:
    """The workspace's tables, as the example opens them."""
    return headrace.open(DATASET, workspace=table_store.root)


def write_table(table_store: TableStore, table: str, parts: Mapping[str, pl.DataFrame], keys: list[str]) -> None:
    entries = {}
    for name, rows in parts.items():
        ordered = parquet.canonical(rows, keys)
        stored = table_store.cache.add(lambda path, ordered=ordered: parquet.write(ordered, path))  # type: ignore[misc]
        entries[name] = PartitionEntry(stored.md5, stored.md5, stored.size, rows.height)
    table_store.checkout(Manifest(table, partitions=entries))


def write_inputs(table_store: TableStore, reads: Mapping[str, object], day: str) -> dict[str, dict[str, Path]]:
    """What a kernel reads, written as files."""
    found = {}
    for keyword in reads:
        path = table_store.root / f"{keyword}-{day}.parquet"
        real_flights.validated_rows(
            keyword, day, 9 if keyword in {"flights", "weather"} else 0
        ).collect().write_parquet(path)
        found[keyword] = {day: path}
    return found


@pytest.fixture(scope="module")
def trained(table_store: TableStore) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_WORKSPACE", str(table_store.root))
        assert train_delay.main() == 0
    return table_store.root / "metrics"


def test_the_model_beats_predicting_the_base_rate_and_says_by_how_much(trained: Path) -> None:
    found = json.loads((trained / "flights.json").read_text())

    gain = found["base_rate"]["log_loss"] - found["model"]["log_loss"]
    assert gain > 0
    assert found["gain"]["log_loss"] == pytest.approx(gain, abs=2e-4)
    assert found["gain"]["log_loss_share"] > 0.01
    assert found["base_rate"]["roc_auc"] == 0.5


def test_every_flight_that_left_is_in_the_training_table_once_and_in_order(table_store: TableStore) -> None:
    asked = train_delay.requests(tables(table_store))

    rows = train_delay.with_features(tables(table_store), asked)

    left = table_store.scan("validated/flights/flights").filter(pl.col("departed_at").is_not_null()).collect()
    assert rows.height == left.height
    assert rows.select(asked.columns).equals(asked)


def test_the_test_is_the_last_fifth_of_the_days_and_nothing_known_later_is_trained_on(table_store: TableStore) -> None:
    asked = train_delay.requests(tables(table_store))

    table = train_delay.split(asked, train_delay.with_features(tables(table_store), asked))

    start = pl.Series([table.first_test_day]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").item()
    assert table.train["departed_at"].max() < start <= table.test["scheduled_at"].min()
    assert not {"late", "departed_at", "scheduled_at", "flight", "tailnum"} & set(table.inputs)


def test_human_labels_are_counted_and_are_no_input(table_store: TableStore, trained: Path) -> None:
    found = json.loads((trained / "flights.json").read_text())["labels"]

    assert (found["flights"], found["in_test"]) == (3, 1)
    assert list(found["mean_predicted"]) == ["weather"]
    assert table_store.manifest("labels/flights/delay_cause").rows == 3


def test_the_calibration_plot_has_ten_groups_of_equal_size(trained: Path) -> None:
    points = pl.read_csv(trained / "flights-calibration.csv")

    assert points.columns == ["group", "predicted", "observed", "flights"]
    assert points["group"].to_list() == list(range(1, 11))
    assert points["flights"].max() - points["flights"].min() <= 1  # type: ignore[operator]
    assert points["predicted"].is_sorted()


def test_dvc_draws_the_calibration_of_the_model(trained: Path, tmp_path: Path) -> None:
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet", "--no-scm"], cwd=tmp_path, check=True)
    shutil.copy(feature_workspace.REPO / "dvc.yaml", tmp_path)
    shutil.copytree(trained, tmp_path / "metrics")

    shown = subprocess.run([*dvc, "plots", "show", "--json"], cwd=tmp_path, capture_output=True, check=True)

    (plot,) = json.loads(shown.stdout)["data"].values()
    drawn = [(float(point["predicted"]), float(point["observed"])) for point in plot[0]["content"]["data"]["values"]]
    assert drawn == pl.read_csv(trained / "flights-calibration.csv").select("predicted", "observed").rows()


def test_trained_again_the_metrics_have_the_same_bytes(
    table_store: TableStore, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(table_store.root))

    assert train_delay.main() == 0

    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_without_tables_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feature_workspace.create_workspace(tmp_path / "empty")
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(tmp_path / "empty"))

    assert train_delay.main() == 1

    assert "headrace run flights" in capsys.readouterr().err
