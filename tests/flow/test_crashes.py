"""A crash at any side effect: readers see the old state or the new one, and one more run gives the undisturbed bytes.

Every side effect is a failpoint. `make faults` crashes at each of them, `make test` at some: before the effect, with
half of it done, and after the last one, before the run has reported success.
"""

from pathlib import Path
from typing import Any

import pytest
from crash_harness import EXIT_REJECTED
from crash_runs import inject_crashes
from label_campaign import Campaign
from label_server import Annotator
from servers import S3

pytestmark = pytest.mark.slow


def dvc_remote(s3: S3) -> dict[str, str]:
    """Options of a DVC remote in a new bucket."""
    keys = {"endpointurl": s3.endpoint, "access_key_id": s3.access_key, "secret_access_key": s3.secret_key}
    return {"url": f"s3://{s3.new_bucket().name}", "region": "us-east-1", **keys}


def source_buckets(s3: S3) -> dict[str, str]:
    """A bucket to ingest from, and one with its later content."""
    keys = {"endpoint": s3.endpoint, "access_key": s3.access_key, "secret_key": s3.secret_key, "region": "us-east-1"}
    return {"name": s3.new_bucket().name, "later": s3.new_bucket().name, **keys}


def every_nth(count: int, full: int = 1) -> list[Any]:
    """Every `count`-th failpoint in `make test`, and in `make faults` all of them, or every `full`-th."""
    return [
        pytest.param(count, id="some"),
        pytest.param(full, id="all", marks=[pytest.mark.faults, pytest.mark.timeout(1800)]),
    ]


@pytest.mark.parametrize("count", every_nth(23))
@pytest.mark.parametrize("commit", ["local", "remote"])
def test_a_release_that_dies_anywhere_is_finished_by_the_next_run(
    tmp_path: Path, s3: S3, commit: str, count: int
) -> None:
    undisturbed, *_ = inject_crashes(
        tmp_path, "crash_release", {"remote": dvc_remote(s3), "commit": commit}, count=count
    )

    names = set(undisturbed["failpoints"])
    assert {"rename head.json", "git commit-tree", "git mktag", "git push", "git read-tree"} <= names
    assert {"git update-ref", "object onto the remote"} <= names


@pytest.mark.parametrize("count", every_nth(17))
def test_a_run_that_dies_anywhere_is_finished_by_its_tasks_run_again_and_leaves_nothing_behind(
    tmp_path: Path, s3: S3, count: int
) -> None:
    undisturbed, *_ = inject_crashes(
        tmp_path, "crash_run_tasks", {"remote": dvc_remote(s3), "commit": "local"}, count=count
    )

    names = set(undisturbed["failpoints"])
    assert {"git worktree add", "worktree of a run", "git worktree remove", "write run.json"} <= names
    assert {"write config.local", "git push", "git commit-tree"} <= names


@pytest.mark.parametrize("count", every_nth(33, 2))
def test_of_two_releases_from_two_clones_one_is_refused_wherever_the_other_was_paused(
    tmp_path: Path, s3: S3, count: int
) -> None:
    _, *cases = inject_crashes(
        tmp_path, "crash_release", {"remote": dvc_remote(s3), "commit": "local"}, interruption="pause", count=count
    )

    codes = [{case["paused_exit_code"], case["concurrent_exit_code"]} for case in cases]
    assert all(0 in pair and pair <= {0, EXIT_REJECTED} for pair in codes), "one of the two releases, at least"


@pytest.mark.parametrize("count", every_nth(23))
def test_a_validate_or_transform_that_was_paused_anywhere_can_not_take_back_what_another_showed(
    tmp_path: Path, s3: S3, count: int
) -> None:
    settings = {"remote": dvc_remote(s3), "commit": "local", "only": "stages"}

    _, *cases = inject_crashes(tmp_path, "crash_release", settings, interruption="pause", count=count)

    assert {case["paused_exit_code"] for case in cases} >= {EXIT_REJECTED}


@pytest.mark.parametrize("count", every_nth(13))
def test_an_ingest_that_was_paused_anywhere_can_not_take_back_what_another_showed(
    tmp_path: Path, s3: S3, count: int
) -> None:
    _, *cases = inject_crashes(
        tmp_path, "crash_ingest", {"bucket": source_buckets(s3)}, interruption="pause", count=count
    )

    assert {case["paused_exit_code"] for case in cases} >= {EXIT_REJECTED}


@pytest.mark.parametrize("count", every_nth(13))
def test_an_ingest_that_dies_anywhere_leaves_raw_tables_whole_and_is_finished_by_the_next(
    tmp_path: Path, s3: S3, count: int
) -> None:
    undisturbed, *_ = inject_crashes(tmp_path, "crash_ingest", {"bucket": source_buckets(s3)}, count=count)

    assert {"object into the cache", "line of the journal", "file that is gone"} <= set(undisturbed["failpoints"])


@pytest.mark.parametrize("count", every_nth(13))
def test_a_repair_that_dies_anywhere_makes_nothing_worse_and_is_finished_by_the_next(
    tmp_path: Path, s3: S3, count: int
) -> None:
    undisturbed, *_ = inject_crashes(
        tmp_path, "crash_maintenance", {"remote": dvc_remote(s3), "verb": "doctor"}, count=count
    )

    wanted = {"quarantine corrupt object", "remove stale DVC lock", "git's lock that is dead", "remove stale file"}
    assert wanted <= set(undisturbed["failpoints"])


@pytest.mark.parametrize("count", every_nth(13))
def test_a_garbage_collection_that_dies_anywhere_leaves_every_release_whole(tmp_path: Path, s3: S3, count: int) -> None:
    undisturbed, *_ = inject_crashes(
        tmp_path, "crash_maintenance", {"remote": dvc_remote(s3), "verb": "gc"}, count=count
    )

    assert {"delete object from the remote", "delete object from the cache"} <= set(undisturbed["failpoints"])


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_prune_that_dies_anywhere_deletes_tags_with_their_tombstones_and_is_finished_by_the_next(
    tmp_path: Path, s3: S3
) -> None:
    undisturbed, *_ = inject_crashes(tmp_path, "crash_maintenance", {"remote": dvc_remote(s3), "verb": "prune"})

    assert {"git commit-tree", "git push", "git update-ref", "git read-tree"} <= set(undisturbed["failpoints"])


@pytest.mark.parametrize("count", every_nth(23))
def test_a_rename_that_dies_anywhere_loses_no_table_and_is_finished_by_the_next(
    tmp_path: Path, s3: S3, count: int
) -> None:
    undisturbed, *_ = inject_crashes(
        tmp_path, "crash_maintenance", {"remote": dvc_remote(s3), "verb": "rename"}, count=count
    )

    names = set(undisturbed["failpoints"])
    assert {"rename head.json", "rename retired_tables.yaml", "rename dvc.lock", "folder of a dropped table"} <= names


@pytest.mark.parametrize("count", every_nth(7))
def test_a_drop_that_dies_anywhere_leaves_the_other_tables_and_is_finished_by_the_next(
    tmp_path: Path, s3: S3, count: int
) -> None:
    undisturbed, *_ = inject_crashes(
        tmp_path, "crash_maintenance", {"remote": dvc_remote(s3), "verb": "drop"}, count=count
    )

    names = set(undisturbed["failpoints"])
    assert {
        "rename dvc.lock",
        "manifest of a dropped table",
        "folder of a dropped table",
        "end of the journal",
    } <= names


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_collect_of_labels_that_dies_anywhere_adds_each_answer_once(
    tmp_path: Path, campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    given = {name: ann.submit(tasks[name], "weather") for name in ("ride-0", "ride-1", "ride-4")}
    campaign.collect()
    ann.edit(given["ride-0"], "carrier")
    ann.delete(given["ride-1"])
    bob.submit(tasks["ride-4"], "security")
    bob.skip(tasks["ride-5"], "weather")
    settings = {"root": str(campaign.table_store.root), "url": campaign.server.url, "token": campaign.server.token}

    folder = tmp_path.with_name("crash-cases")
    folder.mkdir()

    undisturbed, *_ = inject_crashes(folder, "crash_labels", {**settings, "title": campaign.labeling.title})

    assert {"object into the cache", "rename head.json", "end of the journal"} <= set(undisturbed["failpoints"])


@pytest.mark.parametrize("count", every_nth(13))
@pytest.mark.parametrize("decision", ["rejected", "accepted"])
def test_a_word_on_answers_that_dies_anywhere_is_said_again_and_noted_once(
    tmp_path: Path, decision: str, count: int
) -> None:
    undisturbed, *_ = inject_crashes(tmp_path, "crash_decisions", {"decision": decision}, count=count)

    assert {"object into the cache", "rename head.json", "end of the journal"} <= set(undisturbed["failpoints"])


FINDING_STEPS = ("refuse", "accept", "forget", "repair")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("step", "place"),
    [
        pytest.param(step, place, marks=[] if (step, place) == ("accept", "git") else [pytest.mark.faults])
        for step in FINDING_STEPS
        for place in ("workspace", "git")
        if (step, place) != ("repair", "git")  # its message has the command
    ],
)
def test_a_record_of_findings_that_a_death_interrupts_is_the_old_or_the_new_one(
    tmp_path: Path, step: str, place: str
) -> None:
    undisturbed, *_ = inject_crashes(tmp_path, "crash_findings", {"step": step, "place": place})

    assert undisturbed["failpoints"]
