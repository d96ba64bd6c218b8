"""Will a flight leave 15 minutes late or more? Asked one hour before its scheduled time: a baseline, honestly measured.

Plain Feast calls give the training table: for each flight that left, the features as they were known an hour before.
The days are split by time: the last fifth is the test, and nothing that became known later than its start is trained
on. Human labels of what caused a delay are no features (they come days later); they are a slice of the evaluation.

    python examples/train_delay.py

writes metrics/flights.json and metrics/flights-calibration.csv (DVC metrics and a plot: `dvc metrics show`), and
fails if the model is not better than predicting the base rate. Same release, same bytes.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from headrace.errors import HeadraceError
from headrace.feast.local_store import tables_of
from headrace.project.loading import load_dataset
from headrace.release.release import list_releases
from headrace.retrieve.partition_reader import digest, manifest, table_name
from headrace.settings import load_settings
from headrace.storage.table_store import Lake

DATASET = load_dataset("flights")
LATE_MIN = 15
AHEAD = timedelta(hours=1)
TEST_SHARE = 0.2
BINS = 10
SEED = 7
DIGITS = 4
SCORES = {
    "log_loss": "log loss",
    "brier": "Brier score",
    "average_precision": "average precision",
    "roc_auc": "ROC AUC",
}

FLIGHT = ["scheduled_at", "carrier", "flight", "origin"]
AT_BOOKING = ["carrier", "origin", "distance_miles", "hour", "weekday"]
"""What the timetable itself says, beside the features."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """The training table: flights with their features, split by time.

    Attributes:
        train: Flights of the earlier days whose delay was known before the first day of the test.
        test: Flights of the last fifth of the days.
        inputs: Columns that the model sees.
        first_test_day: Where the test begins.
    """

    train: pl.DataFrame
    test: pl.DataFrame
    inputs: list[str]
    first_test_day: date


def main() -> int:
    """Train, measure, write the metrics, say how it went."""
    lake = Lake.at(load_settings().workspace)
    try:
        asked, labels = requests(lake), delay_causes(lake)
        table = split(asked, with_features(lake, asked))
    except HeadraceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    predicted = fit_predict(table)
    metrics = measure(table, predicted, labels, release_of(lake))
    write(lake.root / "metrics", metrics, calibration(table.test["late"].to_numpy(), predicted))
    print(summary(metrics))
    return 0 if metrics["gain"]["log_loss"] > 0 else 1


def requests(lake: Lake) -> pl.DataFrame:
    """One row a flight that left, in order: its keys, the time of the prediction, the timetable, and the answer."""
    local = pl.col("scheduled_at").dt.convert_time_zone("America/New_York")
    return (
        lake.scan("validated/flights/flights")
        .filter(pl.col("departed_at").is_not_null())
        .select(
            *FLIGHT,
            "tailnum",
            "distance_miles",
            "departed_at",
            hour=local.dt.hour(),
            weekday=local.dt.weekday(),
            late=pl.col("dep_delay_min") >= LATE_MIN,
            event_timestamp=pl.col("scheduled_at") - AHEAD,
        )
        .sort(FLIGHT)
        .collect()
    )


def with_features(lake: Lake, asked: pl.DataFrame) -> pl.DataFrame:
    """The requests with every feature as it was known at their time.

    The store shows the workspace's tables, the ones that DVC follows. For the published ones instead, let
    `store = FeatureStore(repo_path="feature_repo")`; the calls are the same.
    """
    with tables_of(DATASET, lake) as store:
        service = store.get_feature_service(DATASET.service)
        job = store.get_historical_features(entity_df=asked, features=service, full_feature_names=True)
        return pl.DataFrame(job.to_arrow())


def release_of(lake: Lake) -> str:
    """The release that the workspace's feature tables are; empty if they are none, or none yet."""
    tables = [table_name(DATASET, table) for table in DATASET.features]
    mine = [*digest([lake.manifest(table) for table in tables])]
    for name in reversed(list_releases(lake, DATASET.name)):
        if [*digest([manifest(lake, table, name) for table in tables])] == mine:
            return name
    return ""


def delay_causes(lake: Lake) -> pl.DataFrame:
    """What people said caused a delay, by flight; empty while nobody was asked."""
    name = "labels/flights/delay_cause"
    if lake.manifest(name).partitions:
        return lake.scan(name).select(*FLIGHT, "label").collect()
    return pl.DataFrame(schema={**dict.fromkeys(FLIGHT, pl.String), "label": pl.String})


def split(asked: pl.DataFrame, rows: pl.DataFrame) -> Table:
    """Cut by day; words become numbers, the same ones in both parts."""
    given = [name for name in asked.columns if name not in AT_BOOKING]
    days = rows["scheduled_at"].dt.date()
    several = days.unique().sort()
    first = several[int(len(several) * (1 - TEST_SHARE))]
    before = days < first
    words = [name for name in rows.columns if name not in given and rows.schema[name] == pl.String]
    known = {name: pl.Enum(rows.filter(before)[name].drop_nulls().unique().sort()) for name in words}
    coded = rows.with_columns(
        pl.col(name).cast(kind, strict=False).to_physical().alias(f"{name}_code") for name, kind in known.items()
    )
    inputs = [name for name in coded.columns if name not in (*given, *words)]
    start = pl.lit(first).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    train = coded.filter(before).filter(pl.col("departed_at") < start)
    return Table(train, coded.filter(~before), inputs, first)


def fit_predict(table: Table) -> Floats:
    """Chance of being late for each flight of the test."""
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=150,
        max_leaf_nodes=15,
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=False,
        categorical_features=[name.endswith("_code") for name in table.inputs],
        random_state=SEED,
    )
    model.fit(_numbers(table.train, table.inputs), table.train["late"].to_numpy())
    chances: Floats = model.predict_proba(_numbers(table.test, table.inputs))[:, 1]
    return chances


def _numbers(rows: pl.DataFrame, inputs: list[str]) -> Floats:
    return rows.select(pl.col(inputs).cast(pl.Float64)).to_numpy()


def measure(table: Table, predicted: Floats, labels: pl.DataFrame, release: str) -> dict[str, Any]:
    """The model beside the base rate of the training days, on the test days."""
    late = table.test["late"].to_numpy()
    rate = float(table.train["late"].to_numpy().mean())
    model, base = _scores(late, predicted), _scores(late, np.full(late.size, rate))
    found = {
        "release": release,
        "rows": {"train": table.train.height, "test": table.test.height, "features": len(table.inputs)},
        "first_test_day": str(table.first_test_day),
        "late_share": {"train": rate, "test": float(late.mean())},
        "model": model,
        "base_rate": base,
        "gain": {name: base[name] - model[name] for name in ("log_loss", "brier")}
        | {name: model[name] - base[name] for name in ("average_precision", "roc_auc")}
        | {"log_loss_share": 1 - model["log_loss"] / base["log_loss"]},
        "labels": _by_label(table, predicted, labels),
    }
    rounded: dict[str, Any] = _rounded(found)
    return rounded


def _scores(late: npt.NDArray[np.bool_], predicted: Floats) -> dict[str, float]:
    return {
        "log_loss": float(log_loss(late, predicted, labels=[False, True])),
        "brier": float(brier_score_loss(late, predicted)),
        "average_precision": float(average_precision_score(late, predicted)),
        "roc_auc": float(roc_auc_score(late, predicted)),
    }


def _by_label(table: Table, predicted: Floats, labels: pl.DataFrame) -> dict[str, Any]:
    """How many flights have a human label, and what the model said of those in the test: all of them were late."""
    if labels.is_empty():
        return {"flights": 0, "share": 0.0, "in_test": 0, "mean_predicted": {}}
    joined = table.test.with_columns(predicted=predicted).join(labels, on=FLIGHT, how="inner")
    trained = table.train.join(labels, on=FLIGHT, how="semi").height
    means = joined.group_by("label").agg(pl.col("predicted").mean()).sort("label")
    return {
        "flights": trained + joined.height,
        "share": (trained + joined.height) / (table.train.height + table.test.height),
        "in_test": joined.height,
        "mean_predicted": dict(means.iter_rows()),
    }


def _rounded(value: Any) -> Any:  # noqa: ANN401  any JSON
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


def calibration(late: npt.NDArray[np.bool_], predicted: Floats) -> pl.DataFrame:
    """Ten groups of flights of equal size, by predicted chance: what was predicted, and what observed."""
    order = np.argsort(predicted, kind="stable")
    groups = np.empty(predicted.size, np.int64)
    groups[order] = np.arange(predicted.size) * BINS // max(1, predicted.size)
    frame = pl.DataFrame({"group": groups + 1, "predicted": predicted, "observed": late.astype(float)})
    means = frame.group_by("group").agg(pl.col("predicted", "observed").mean().round(DIGITS), flights=pl.len())
    return means.sort("group")


def write(folder: Path, metrics: Mapping[str, Any], points: pl.DataFrame) -> None:
    """Metrics and plot for DVC."""
    folder.mkdir(exist_ok=True)
    (folder / "flights.json").write_text(json.dumps(metrics, indent=2) + "\n")
    points.write_csv(folder / "flights-calibration.csv")


def summary(metrics: Mapping[str, Any]) -> str:
    """What a person wants to know."""
    rows, model, base, gain = (metrics[name] for name in ("rows", "model", "base_rate", "gain"))
    verdict = "Better" if gain["log_loss"] > 0 else "NOT better"
    labels = metrics["labels"]
    asked = f"Will it leave {LATE_MIN} minutes late? Asked 1 h ahead; {metrics['release'] or 'the workspace'}"
    trained = f"trained on {rows['train']:,} flights, {rows['features']} inputs"
    tested = f"tested on {rows['test']:,} from {metrics['first_test_day']} on"
    scores = [f"{title:18}{model[name]:.4f}   base rate {base[name]:.4f}" for name, title in SCORES.items()]
    gained = f"log loss {abs(gain['log_loss_share']):.1%} {'lower' if gain['log_loss'] > 0 else 'higher'}"
    told = f"{labels['flights']:,} flights ({labels['share']:.2%}) have a human label"
    lines = [
        f"{trained}; {tested}",
        *scores,
        f"{verdict} than predicting the base rate: {gained}",
        f"{told}, {labels['in_test']:,} of them in the test",
    ]
    return "\n  ".join([asked, *lines])


if __name__ == "__main__":
    sys.exit(main())
