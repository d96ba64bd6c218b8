"""A labeling task about rides, its project on the server and its workspace: what the tests of `label` act on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.dataset import Dataset, Input, LabelingTask
from headrace.errors import HeadraceError
from headrace.guards.finding_log import open_finding_log
from headrace.guards.gate import FindingsError, accept_finding
from headrace.settings import Settings
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

if TYPE_CHECKING:
    from label_server import LabelServer

    from headrace.label.collect import CollectResult
    from headrace.label.send import SendResult

CONFIG = """
<View>
  <Text name="text" value="$text"/>
  <Choices name="cause" toName="text" choice="single-radio" required="true">
    <Choice value="carrier"/>
    <Choice value="weather"/>
    <Choice value="security"/>
  </Choices>
</View>
"""
DAYS = {"2013-01-01": 3, "2013-01-02": 3}
PARAMS: Mapping[str, Any] = {"sample": 6}
LABELS, ANNOTATIONS, REJECTED = "labels/rides/cause", "annotations/rides/cause", "rejected/rides/cause"


def sample_rides(params: Mapping[str, Any], rides: pl.LazyFrame) -> pl.DataFrame:
    return (
        rides.sort("started_at", "car")
        .head(params["sample"])
        .with_columns(
            pl.format("ride-{}", "car").alias("sample_id"),
            pl.col("started_at").alias("event_time"),
            pl.lit("delayed").alias("selection_reason"),
        )
        .collect()
    )


def task_data(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": f"car {row['car']} was {row['late_min']} minutes late"}


@dataclass
class LabelingCampaign:
    """A labeling task in a workspace, with a project of its own on the server."""

    server: "LabelServer"
    table_store: TableStore
    settings: Settings
    dataset: Dataset
    labeling: LabelingTask
    params: Mapping[str, Any]
    """Parameters of the sample."""

    def send(self, settings: Settings | None = None, **params: int) -> "SendResult":
        """Send the sample, with `params` in place of some of its parameters."""
        from headrace.label.send import send_tasks  # noqa: PLC0415  only tests that send import the SDK

        merged = {**self.params, **params}
        return send_tasks(self.dataset, self.labeling, self.table_store, settings or self.settings, merged)

    def collect(self) -> "CollectResult":
        """Collect into the workspace."""
        from headrace.label.collect import collect_annotations  # noqa: PLC0415

        return collect_annotations(self.dataset, self.labeling, self.table_store, self.settings)

    def accept(self, refused: FindingsError) -> None:
        """Accept what a collect was refused for."""
        log = open_finding_log(self.table_store, self.dataset.name)
        for finding in refused.findings:
            accept_finding(log, finding.id, by="ann", reason="intended")

    @property
    def project(self) -> int:
        """The project's number."""
        found = self.server.http.get("/api/projects", params={"title": self.labeling.title}).json()["results"]
        return next(int(item["id"]) for item in found if item["title"] == self.labeling.title)


class Campaign(LabelingCampaign):
    """A labeling task of the dataset `rides`."""

    def __init__(self, server: "LabelServer", root: Path, title: str, **declared: Any) -> None:  # noqa: ANN401
        labeling = LabelingTask(
            name="cause", title=title[-50:], config=CONFIG, control="cause", choices=("carrier", "weather", "security"),
            inputs={"rides": Input("validated/rides")}, sample=sample_rides, keys=("started_at", "car"),
            task=task_data, **{"unreviewed": "accept", **declared},
        )  # fmt: skip
        dataset = Dataset(name="rides", description="Rides.", owner="someone", sources=(), labels=(labeling,))
        super().__init__(server, TableStore.at(root), server.settings(), dataset, labeling, PARAMS)

    def with_declaration(self, **declared: Any) -> LabelingTask:  # noqa: ANN401
        """The labeling task with some fields declared otherwise."""
        return replace(self.labeling, **declared)

    def write_rides(self, days: Mapping[str, int]) -> None:
        """Write `validated/rides`; `days` maps a day to its number of rides."""
        entries, car = {}, 0
        for day, cars in days.items():
            start = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
            numbers = list(range(car, car + cars))
            frame = pl.DataFrame(
                {"started_at": [start] * cars, "car": numbers, "late_min": [90] * cars},
                schema={"started_at": pl.Datetime("us", "UTC"), "car": pl.Int32, "late_min": pl.Int64},
            )
            stored = self.table_store.cache.add(partial(parquet.write, frame))
            entries[day] = PartitionEntry(stored.md5, stored.md5, stored.size, cars)
            car += cars
        self.table_store.checkout(Manifest("validated/rides/rides", partitions=entries))

    def progress(self) -> tuple[int, int]:
        """Finished tasks, of all."""
        from headrace.label.progress import read_progress  # noqa: PLC0415

        return read_progress(self.labeling, self.settings)

    def tasks(self) -> dict[str, int]:
        """Sample id → task number, each task existing exactly once."""
        found = self.server.tasks(self.project)
        assert all(len(copies) == 1 for copies in found.values())
        return {name: copies[0] for name, copies in found.items()}

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table."""
        return self.table_store.scan(table).collect().to_dicts()

    def labels(self) -> dict[str, str]:
        """Sample id → label."""
        return {row["sample_id"]: row["label"] for row in self.rows(LABELS)}

    def md5s(self, table: str) -> dict[str, str]:
        """Partition → md5."""
        return {day: entry.md5 for day, entry in self.table_store.manifest(table).partitions.items()}


def simulate_kill(*_: object) -> None:
    """Stand in for a process that is killed."""
    raise HeadraceError("died")
