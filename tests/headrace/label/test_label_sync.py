"""What a collect reads: changed tasks, and ranges where a task was deleted; with the outcome of a full read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
from label_campaign import ANNOTATIONS, DAYS, Campaign
from label_server import Annotator

from headrace.dataset import ItemFeatures
from headrace.label import annotation_log, consensus, sync
from headrace.label.consensus import ConsensusError
from headrace.label.label_studio.tasks import Json, ProjectTasks, TaskSummary
from headrace.storage import parquet
from headrace.storage.partition_entry import PartitionEntry

pytestmark = pytest.mark.slow


@dataclass
class Reads:
    """What was read from the server."""

    tasks: list[int]
    ranges: list[tuple[int, int]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Records which tasks are read with their annotations, and which ranges are listed."""
    recorded, read, list_range = Reads([], []), ProjectTasks.read_by_id, ProjectTasks.list_range

    def recording_read(tasks: ProjectTasks, ids: Iterable[int]) -> Iterator[Json]:
        wanted = list(ids)
        recorded.tasks.extend(wanted)
        return read(tasks, wanted)

    def recording_list_range(tasks: ProjectTasks, ids: tuple[int, int]) -> Iterator[TaskSummary]:
        recorded.ranges.append(ids)
        return list_range(tasks, ids)

    monkeypatch.setattr(ProjectTasks, "read_by_id", recording_read)
    monkeypatch.setattr(ProjectTasks, "list_range", recording_list_range)
    return recorded


def test_few_changes_are_read_at_once_and_of_many_only_those_that_came_since(
    campaign: Campaign, ann: Annotator, bob: Annotator, reads: Reads, changes: str
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    for task in tasks.values():
        ann.submit(task, "carrier")
    campaign.collect()
    bob.submit(tasks["ride-3"], "weather")

    first, second = campaign.collect(), campaign.collect()

    assert (first.events, second.events) == ({"created": 1}, {})
    assert reads.tasks == ([tasks["ride-3"]] if changes == "many" else [])
    assert reads.ranges == []


def test_a_history_that_0_1_collected_is_continued(
    campaign: Campaign, ann: Annotator, bob: Annotator, reads: Reads
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    for ride in ("ride-0", "ride-3"):
        ann.submit(tasks[ride], "carrier")
    ann.skip(tasks["ride-1"], "carrier")
    campaign.collect()
    old_names = {new: old for old, new in annotation_log.WRITTEN_BY_0_1.items()}
    manifest = campaign.table_store.manifest(ANNOTATIONS)
    entries = {}
    for day, entry in manifest.partitions.items():
        rows = campaign.table_store.scan(ANNOTATIONS, [day]).collect()
        stored = campaign.table_store.cache.add_bytes(memoryview(parquet.to_parquet_bytes(rows)))  # without field ids
        metadata = {old_names.get(name, name): value for name, value in entry.metadata.items()}
        entries[day] = PartitionEntry(stored.md5, stored.md5, stored.size, rows.height, metadata=metadata)
    campaign.table_store.checkout(manifest.with_partitions(entries))
    before = campaign.rows(ANNOTATIONS)
    bob.submit(tasks["ride-3"], "carrier")

    first, second = campaign.collect(), campaign.collect()

    assert (first.events, second.events) == ({"created": 1}, {})
    assert (first.annotation_partitions, second.annotation_partitions) == (("2013-01-02",), ())
    assert reads == Reads([], [])
    added = campaign.rows(ANNOTATIONS)
    assert [row for row in added if row in before] == before
    assert len(added) == len(before) + 1
    schemas = [parquet.read_schema(path) for path in campaign.table_store.paths(ANNOTATIONS).values()]
    assert all(field.id for schema in schemas for field in schema)


def test_of_many_tasks_only_the_range_that_lost_one_is_compared(
    campaign: Campaign, ann: Annotator, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "RANGE_SIZE", 2)
    campaign.send()
    tasks = campaign.tasks()
    for ride, task in tasks.items():
        (ann.skip if ride == "ride-2" else ann.submit)(task, "weather")
    campaign.collect()

    for ride in ("ride-2", "ride-5"):
        campaign.server.http.delete(f"/api/tasks/{tasks[ride]}/").raise_for_status()
    collected, again = campaign.collect(), campaign.collect()

    assert (collected.events, again.events) == ({"deleted": 2}, {})
    assert [low <= tasks[ride] <= high for ride, (low, high) in zip(("ride-2", "ride-5"), reads.ranges, strict=True)]
    assert reads.tasks == []
    assert sorted(campaign.labels()) == ["ride-0", "ride-1", "ride-3", "ride-4"]


def test_answers_to_tasks_of_somebody_else_and_several_skips_never_make_a_collect_compare(
    campaign: Campaign, ann: Annotator, bob: Annotator, reads: Reads
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.submit(campaign.server.import_task(campaign.project, {"text": "x"}), "weather")
    for person in (ann, bob):
        person.skip(tasks["ride-0"], "weather")
    ann.submit(tasks["ride-1"], "weather")

    events = [campaign.collect().events for _ in range(2)]

    assert events == [{"skipped": 2, "created": 1}, {}]
    assert reads.ranges == []


def test_a_task_number_that_is_used_again_is_another_task(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    tasks = campaign.tasks()
    for ride in ("ride-0", "ride-5"):
        ann.submit(tasks[ride], "weather")
    campaign.collect()
    campaign.server.http.delete(f"/api/tasks/{tasks['ride-5']}/").raise_for_status()
    campaign.send()  # SQLite gives the highest number again
    ann.submit(campaign.tasks()["ride-5"], "carrier")

    collected = campaign.collect()

    assert collected.events["created"] == 1
    assert campaign.labels() == {"ride-0": "weather", "ride-5": "carrier"}


def test_many_events_are_written_a_bounded_number_at_a_time_with_the_same_outcome(
    campaign: Campaign, ann: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.send()
    for task in campaign.tasks().values():
        ann.submit(task, "weather")
    other = Campaign(campaign.server, campaign.table_store.root / "elsewhere", campaign.labeling.title)
    other.write_rides(DAYS)
    campaign.collect()

    monkeypatch.setattr(annotation_log, "BUFFERED_EVENTS", 1)
    other.collect()

    assert other.md5s(ANNOTATIONS) == campaign.md5s(ANNOTATIONS)


def test_labels_that_a_model_weighs_depend_on_its_features_too(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    features = ItemFeatures("validated/rides", lambda row: [float(row["car"])])
    campaign.labeling = campaign.with_declaration(consensus="crowdlab", item_features=features)
    campaign.send()
    for ride, task in campaign.tasks().items():
        ann.submit(task, "carrier" if ride < "ride-3" else "weather")
        bob.submit(task, "carrier" if ride < "ride-2" else "weather")
    campaign.collect()

    unchanged = campaign.collect().label_partitions
    campaign.write_rides({**DAYS, "2013-01-03": 1})
    recomputed = campaign.collect().label_partitions

    assert len(campaign.labels()) == 6
    assert (unchanged, recomputed) == ((), ("all",))


def test_a_model_without_features_is_rejected_with_what_to_declare(campaign: Campaign) -> None:
    with pytest.raises(ConsensusError, match="needs `item_features`"):
        consensus.create_consensus(campaign.dataset, campaign.with_declaration(consensus="crowdlab"))
