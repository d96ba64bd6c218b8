"""Annotations that were collected in two places: the merged history has every event once, whichever comes first."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from minimal_dataset import create_table_store
from release_clones import annotation

from headrace.label.annotation_log import AnnotationLogWriter, merge_events, merge_logs
from headrace.label.annotations import annotation_schema
from headrace.storage.manifest import Manifest


def history(*events: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(events, schema=annotation_schema({"shop": pl.String()}))


def events(merged: pl.DataFrame) -> list[tuple[str, str]]:
    """Annotation and event, in order."""
    return sorted(zip(merged["annotation_id"], merged["event"], strict=True))


CREATED = annotation("a")
CHANGED = annotation("a", minute=5, event="changed", choice="other")


@pytest.mark.parametrize(
    ("released", "own", "merged"),
    [
        pytest.param([CREATED], [CREATED], [("a", "created")], id="both saw it"),
        pytest.param([CREATED], [annotation("b")], [("a", "created"), ("b", "created")], id="each saw another"),
        pytest.param([CREATED], [CREATED, CHANGED], [("a", "changed"), ("a", "created")], id="one saw a change"),
        pytest.param([CREATED, CHANGED], [CREATED], [("a", "changed"), ("a", "created")], id="the other did"),
        pytest.param(
            [{**CHANGED, "event": "created"}], [CREATED, CHANGED], [("a", "created")] * 2, id="one saw only the change"
        ),
        pytest.param(
            [CREATED, annotation("a", minute=9, event="deleted")],
            [CREATED, annotation("a", minute=7, event="deleted")],
            [("a", "created"), ("a", "deleted")],
            id="both noticed that it was deleted",
        ),
        pytest.param(
            [CREATED, {**CREATED, "event": "rejected", "annotator": "grace"}],
            [CREATED, {**CHANGED, "event": "accepted", "annotator": "grace"}],
            [("a", "accepted"), ("a", "created"), ("a", "rejected")],
            id="two reviews",
        ),
        pytest.param([CREATED], [], [("a", "created")], id="one saw nothing"),
    ],
)
def test_the_merged_history_has_every_event_of_both_once(
    released: list[dict[str, object]], own: list[dict[str, object]], merged: list[tuple[str, str]]
) -> None:
    assert events(merge_events(history(*released), history(*own))) == merged


def test_of_two_records_of_one_event_the_released_one_is_kept() -> None:
    later = annotation("a", task_changed_at=CHANGED["updated_at"])

    merged = merge_events(history(CREATED), history(later))

    assert merged.equals(history(CREATED))


def test_merging_again_changes_nothing() -> None:
    once = merge_events(history(CREATED), history(annotation("b")))

    assert merge_events(once, history(annotation("b"))).equals(once)
    assert merge_events(history(CREATED), once).sort("annotation_id").equals(once.sort("annotation_id"))


def test_logs_of_two_places_are_merged_by_day_and_equal_days_are_kept(tmp_path: Path) -> None:
    table_store = create_table_store(tmp_path)

    def log_of(*rows: dict[str, object]) -> Manifest:
        writer = AnnotationLogWriter(Manifest("annotations/shops/state"), table_store, {"shop": pl.String()})
        writer.append(rows)
        writer.flush()
        return writer.manifest

    same = annotation("same", event_time=datetime(2026, 1, 2, 12, tzinfo=UTC))
    released, own = log_of(CREATED, same), log_of(annotation("b"), same)

    merged = merge_logs(table_store, released, own)

    def ids(day: str) -> list[str]:
        entry = merged.partitions[day]
        return pl.read_parquet(table_store.cache.fetch(entry.md5, entry.sha256))["annotation_id"].to_list()

    assert {day: ids(day) for day in merged.partitions} == {"2026-01-01": ["a", "b"], "2026-01-02": ["same"]}
    assert merged.partitions["2026-01-02"].md5 == own.partitions["2026-01-02"].md5
