"""annotations → what they are worth, and which items to ask one person more about."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from pipelines.dataset import Dataset, Labeling
from pipelines.engine.lake import Lake
from pipelines.labeling import quality, tasks, votes, weak
from pipelines.labeling.annotations import ItemError
from pipelines.labeling.server import connect, project_of
from pipelines.settings import Settings


@dataclass(frozen=True)
class Report:
    """Quality of the answers, the labeling functions measured, and how often people follow a suggestion."""

    quality: quality.Quality
    functions: list[weak.Function]
    anchoring: Mapping[str, float | None]

    def lines(self) -> list[str]:
        """For people."""
        functions = [
            f"  {function.name}: votes on {function.coverage:.1%}, in conflict on {function.conflict:.1%}, right on"
            f" {quality.share(function.accuracy)} of those answered blind"
            for function in self.functions
        ]
        shown, blind = (quality.share(self.anchoring[name]) for name in ("shown", "blind"))
        follow = [f"  people agree with the suggestion on {shown} where they saw it, on {blind} where not"]
        return [f"  {self.quality.lines()[0]}", *self.quality.lines()[1:], *functions, *(follow if functions else [])]

    def content(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def report(
    dataset: Dataset, labeling: Labeling, lake: Lake, params: Mapping[str, Any], *, gate: bool = False
) -> Report:
    """Measure what was collected; changes nothing.

    Raises:
        QualityError: With `gate`, the labels do not reach the declared thresholds.
    """
    rows = tasks.sampled(dataset, labeling, lake, params)
    found = quality.measure(_history(dataset, labeling, lake), labeling, _gold(dataset, labeling, lake, rows))
    if gate:
        quality.gate(found, labeling)
    cast, labels = weak.vote(rows, labeling), answered(dataset, labeling, lake)
    return Report(found, weak.report(cast, labeling, labels), weak.anchoring(cast, labeling, labels))


def ask_again(dataset: Dataset, labeling: Labeling, lake: Lake, settings: Settings) -> tuple[str, ...]:
    """Have one person more answer each item whose answers leave it undecided; the items.

    Raises:
        LabelStudioError: The server refuses, or stays away.
    """
    given = votes.answers(_history(dataset, labeling, lake), labeling.choices)
    decided = set(answered(dataset, labeling, lake))
    opinions = dict(given.group_by("sample_id").len().iter_rows())
    open_items = {item: count for item, count in opinions.items() if item not in decided}
    wanted = {item: count + 1 for item, count in sorted(open_items.items()) if count < labeling.most_opinions}
    if wanted:
        with connect(settings) as server:
            server.ask_again(project_of(server, labeling), wanted)
    return tuple(wanted)


def _history(dataset: Dataset, labeling: Labeling, lake: Lake) -> pl.DataFrame:
    table = tasks.annotations_table(dataset, labeling)
    if not lake.manifest(table).partitions:
        raise ItemError(
            f"labels {dataset.name} {labeling.name}: nothing was collected yet, run `headrace label collect`."
        )
    return lake.scan(table).collect()


def _gold(dataset: Dataset, labeling: Labeling, lake: Lake, rows: pl.DataFrame) -> dict[str, str]:
    """Sample id → true answer, for the sampled items that have one."""
    if not labeling.gold:
        return {}
    known = lake.scan(tasks.table(dataset, labeling.gold.table)).select(*labeling.keys, "answer").collect()
    return dict(rows.join(known, on=labeling.keys).select("sample_id", "answer").iter_rows())


def answered(dataset: Dataset, labeling: Labeling, lake: Lake) -> dict[str, str]:
    """Sample id → label that people gave so far."""
    table = tasks.labels_table(dataset, labeling)
    if not lake.manifest(table).partitions:
        return {}
    return dict(lake.scan(table).select("sample_id", "label").collect().iter_rows())
