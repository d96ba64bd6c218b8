"""Whatever dies, wherever: readers see the old state or the new one, whole; one more run gives the undisturbed bytes.

Every side effect is a numbered point. `make faults` dies at each of them, `make test` at some: before the effect, with
half of it done, and after the last one, before anybody was told.
"""

from pathlib import Path
from typing import Any

import pytest
from crash_harness import REFUSED
from crash_runs import rehearse
from label_campaign import Campaign
from label_server import Person
from servers import S3

pytestmark = pytest.mark.slow


def remote(s3: S3) -> dict[str, str]:
    """Options of a DVC remote in a bucket of its own."""
    keys = {"endpointurl": s3.endpoint, "access_key_id": s3.access_key, "secret_access_key": s3.secret_key}
    return {"url": f"s3://{s3.new_bucket().name}", "region": "us-east-1", **keys}


def source(s3: S3) -> dict[str, str]:
    """A bucket to read from, and what it is later."""
    keys = {"endpoint": s3.endpoint, "access_key": s3.access_key, "secret_key": s3.secret_key, "region": "us-east-1"}
    return {"name": s3.new_bucket().name, "later": s3.new_bucket().name, **keys}


def some(count: int, full: int = 1) -> list[Any]:
    """Each `count`-th point in `make test`, and in `make faults` all of them, or each `full`-th."""
    return [
        pytest.param(count, id="some"),
        pytest.param(full, id="all", marks=[pytest.mark.faults, pytest.mark.timeout(1800)]),
    ]


@pytest.mark.parametrize("count", some(23))
@pytest.mark.parametrize("commit", ["local", "remote"])
def test_a_release_that_dies_anywhere_is_finished_by_the_next_run(
    tmp_path: Path, s3: S3, commit: str, count: int
) -> None:
    calm, *_ = rehearse(tmp_path, "crash_release", {"remote": remote(s3), "commit": commit}, count=count)

    names = set(calm["points"])
    assert {"rename manifest.json", "git commit-tree", "git mktag", "git push", "git read-tree"} <= names
    assert {"git update-ref", "object onto the remote"} <= names


@pytest.mark.parametrize("count", some(33, 2))
def test_of_two_releases_from_two_clones_one_is_refused_wherever_the_other_was_paused(
    tmp_path: Path, s3: S3, count: int
) -> None:
    _, *cases = rehearse(tmp_path, "crash_release", {"remote": remote(s3), "commit": "local"}, how="pause", count=count)

    assert {case["second"] for case in cases} >= {0}


@pytest.mark.parametrize("count", some(23))
def test_a_validate_or_transform_that_was_paused_anywhere_can_not_take_back_what_another_showed(
    tmp_path: Path, s3: S3, count: int
) -> None:
    settings = {"remote": remote(s3), "commit": "local", "only": "stages"}

    _, *cases = rehearse(tmp_path, "crash_release", settings, how="pause", count=count)

    assert {case["first"] for case in cases} >= {REFUSED}


@pytest.mark.parametrize("count", some(13))
def test_an_ingest_that_was_paused_anywhere_can_not_take_back_what_another_showed(
    tmp_path: Path, s3: S3, count: int
) -> None:
    _, *cases = rehearse(tmp_path, "crash_ingest", {"bucket": source(s3)}, how="pause", count=count)

    assert {case["first"] for case in cases} >= {REFUSED}


@pytest.mark.parametrize("count", some(13))
def test_an_ingest_that_dies_anywhere_leaves_raw_tables_whole_and_is_finished_by_the_next(
    tmp_path: Path, s3: S3, count: int
) -> None:
    calm, *_ = rehearse(tmp_path, "crash_ingest", {"bucket": source(s3)}, count=count)

    assert {"object into the cache", "line of the journal", "file that is gone"} <= set(calm["points"])


@pytest.mark.parametrize("count", some(13))
def test_a_repair_that_dies_anywhere_makes_nothing_worse_and_is_finished_by_the_next(
    tmp_path: Path, s3: S3, count: int
) -> None:
    calm, *_ = rehearse(tmp_path, "crash_maintenance", {"remote": remote(s3), "verb": "doctor"}, count=count)

    wanted = {"quarantine corrupt object", "remove stale DVC lock", "git's lock that is dead", "remove stale file"}
    assert wanted <= set(calm["points"])


@pytest.mark.parametrize("count", some(13))
def test_a_garbage_collection_that_dies_anywhere_leaves_every_release_whole(tmp_path: Path, s3: S3, count: int) -> None:
    calm, *_ = rehearse(tmp_path, "crash_maintenance", {"remote": remote(s3), "verb": "gc"}, count=count)

    assert {"delete object from the remote", "delete object from the cache"} <= set(calm["points"])


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_collect_of_labels_that_dies_anywhere_adds_each_answer_once(
    tmp_path: Path, campaign: Campaign, ann: Person, bob: Person
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    given = {name: ann.answers(tasks[name], "weather") for name in ("ride-0", "ride-1", "ride-4")}
    campaign.collect()
    ann.changes(given["ride-0"], "carrier")
    ann.deletes(given["ride-1"])
    bob.answers(tasks["ride-4"], "security")
    bob.skips(tasks["ride-5"], "weather")
    place = {"root": str(campaign.lake.root), "url": campaign.server.url, "token": campaign.server.token}

    beside = tmp_path.with_name("rehearsal")
    beside.mkdir()

    calm, *_ = rehearse(beside, "crash_labels", {**place, "title": campaign.labeling.title})

    assert {"object into the cache", "rename manifest.json", "end of the journal"} <= set(calm["points"])


@pytest.mark.parametrize("count", some(13))
@pytest.mark.parametrize("decision", ["rejected", "accepted"])
def test_a_word_on_answers_that_dies_anywhere_is_said_again_and_noted_once(
    tmp_path: Path, decision: str, count: int
) -> None:
    calm, *_ = rehearse(tmp_path, "crash_decisions", {"decision": decision}, count=count)

    assert {"object into the cache", "rename manifest.json", "end of the journal"} <= set(calm["points"])
