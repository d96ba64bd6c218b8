"""Will a flight leave 15 minutes late or more? Predicted one hour before its scheduled time: a baseline model.

Plain Feast calls give the training table: for each flight that left, the features as they were known an hour before.
The days are split by time: the last fifth is the test set, and nothing that became known after its start is trained
on. Human labels of what caused a delay are not features (they come days later), but a slice of the evaluation.

    python examples/train_delay.py

writes metrics/flights.json and metrics/flights-calibration.csv (DVC metrics and a plot: `dvc metrics show`), and
fails if the model is not better than predicting the base rate. The same release gives the same bytes.
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

import headrace
from headrace import DatasetTables

DATASET = headrace.load_dataset("flights")
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
"""Columns of the timetable, beside the features."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """The training table: flights with their features, split by time.

    Attributes:
        train: Flights of the earlier days whose delay was known before the first day of the test set.
        test: Flights of the last fifth of the days.
        inputs: Columns that the model sees.
        first_test_day: First day of the test set.
    """

    train: pl.DataFrame
    test: pl.DataFrame
    inputs: list[str]
    first_test_day: date


def main() -> int:
    """Train, evaluate, write the metrics, print a summary."""
    try:
        tables = headrace.open(
            DATASET
        )  # the workspace's tables, which DVC tracks; release="latest" for the released ones
        asked, labels = requests(tables), delay_causes(tables)
        table = split(asked, with_features(tables, asked))
    except headrace.HeadraceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    predicted = fit_predict(table)
    metrics = measure(table, predicted, labels, release_of(tables))
    write(tables.table_store.root / "metrics", metrics, calibration(table.test["late"].to_numpy(), predicted))
    print(summary(metrics))
    return 0 if metrics["gain"]["log_loss"] > 0 else 1


def requests(tables: DatasetTables) -> pl.DataFrame:
    """One row per flight that left, in order: its keys, the time of the prediction, the timetable, and the label."""
    local = pl.col("scheduled_at").dt.convert_time_zone("America/New_York")
    return (
        tables["validated/flights"]
        .polars()
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


def with_features(tables: DatasetTables, asked: pl.DataFrame) -> pl.DataFrame:
    """The requests with every feature as it was known at their time.

    The same calls read what is published, with `headrace.open_feature_store()` in place of `tables.feature_store()`.
    `tables.retrieve(asked).to_polars()` gives the same rows without Feast.
    """
    with tables.feature_store() as store:
        service = store.get_feature_service(DATASET.service)
        job = store.get_historical_features(entity_df=asked, features=service, full_feature_names=True)
        return pl.DataFrame(job.to_arrow())


def release_of(tables: DatasetTables) -> str:
    """The release that has the same feature tables as the workspace; empty if there is none."""
    hashes = feature_hashes(tables)
    releases = reversed(tables.releases)
    return next((name for name in releases if feature_hashes(headrace.open(DATASET, release=name)) == hashes), "")


def feature_hashes(tables: DatasetTables) -> list[str]:
    """A hash over each feature table."""
    return [tables[f"features/{table.name}"].content_hash for table in DATASET.features]


def delay_causes(tables: DatasetTables) -> pl.DataFrame:
    """The labels of what caused a delay, by flight; empty if nobody has labeled yet."""
    name = "labels/delay_cause"
    if name in tables and tables[name].partitions:
        return tables[name].polars().select(*FLIGHT, "label").collect()
    return pl.DataFrame(schema={**dict.fromkeys(FLIGHT, pl.String), "label": pl.String})


def split(asked: pl.DataFrame, rows: pl.DataFrame) -> Table:
    """Split by day; strings become codes, the same ones in both parts."""
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
    """Predicted probability of being late, for each flight of the test set."""
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
    """The scores of the model and of the base rate of the training days, on the test days."""
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
    """How many flights have a human label, and the mean prediction for those in the test set: all of them were late."""
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
    """Ten groups of flights of equal size, by predicted probability: the mean prediction and the observed share."""
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
    """A summary in a few lines."""
    rows, model, base, gain = (metrics[name] for name in ("rows", "model", "base_rate", "gain"))
    comparison = "Better" if gain["log_loss"] > 0 else "NOT better"
    labels = metrics["labels"]
    title = f"Will it leave {LATE_MIN} minutes late? Predicted 1 h ahead; {metrics['release'] or 'the workspace'}"
    trained = f"trained on {rows['train']:,} flights, {rows['features']} inputs"
    tested = f"tested on {rows['test']:,} from {metrics['first_test_day']} on"
    scores = [f"{label:18}{model[name]:.4f}   base rate {base[name]:.4f}" for name, label in SCORES.items()]
    gained = f"log loss {abs(gain['log_loss_share']):.1%} {'lower' if gain['log_loss'] > 0 else 'higher'}"
    labeled = f"{labels['flights']:,} flights ({labels['share']:.2%}) have a human label"
    lines = [
        f"{trained}; {tested}",
        *scores,
        f"{comparison} than predicting the base rate: {gained}",
        f"{labeled}, {labels['in_test']:,} of them in the test set",
    ]
    return "\n  ".join([title, *lines])


if __name__ == "__main__":
    sys.exit(main())
