"""Review decisions: a rejected answer is in no label and no release, until it is changed or accepted."""

from datetime import UTC, datetime

import polars as pl
import pytest
from label_campaign import ANNOTATIONS, LABELS, PARAMS, REJECTED, Campaign, simulate_kill
from label_server import Annotator
from two_releases import ANSWERS, write_annotations
from workspaces import Workspace

from headrace.errors import HeadraceError
from headrace.label import annotations
from headrace.label.report import create_label_report
from headrace.label.request_more import request_more_annotations
from headrace.label.review import DecisionValue, ReviewDecision, ReviewResult, review_annotations

pytestmark = pytest.mark.slow

FLIGHT_LABELS, FLIGHT_ANNOTATIONS = "labels/flights/delay_cause", "annotations/flights/delay_cause"


def decide(campaign: Campaign, value: DecisionValue, **more: str | bool | datetime) -> ReviewResult:
    """Apply a decision of a reviewer called Grace to the answers."""
    decision = ReviewDecision(value, "Grace", "a wrong manual", **more)  # type: ignore[arg-type]
    return review_annotations(campaign.dataset, campaign.labeling, campaign.table_store, campaign.settings, decision)


def collect_answer(campaign: Campaign, annotator: Annotator, choice: str, *rides: str) -> list[int]:
    """Send the sample, have the annotator answer about these rides, and collect; the numbers of the answers."""
    campaign.send()
    tasks = campaign.tasks()
    submitted = [annotator.submit(tasks[ride], choice) for ride in rides]
    campaign.collect()
    return submitted


def test_rejected_answers_make_no_label_and_are_kept_with_who_when_and_why(campaign: Campaign, ann: Annotator) -> None:
    collect_answer(campaign, ann, "weather", "ride-0")

    done = decide(campaign, "rejected")

    [rejected] = campaign.rows(REJECTED)
    assert (done.answers, done.annotation_partitions, done.labels, campaign.labels()) == (1, ("2013-01-01",), 0, {})
    assert (
        rejected["reason"] == f"rejected by {done.reviewer} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: a wrong manual"
    )
    assert rejected["choice"] == "weather"


def test_no_collect_restores_a_rejected_answer_only_a_change_of_it_does(campaign: Campaign, ann: Annotator) -> None:
    _, second = collect_answer(campaign, ann, "weather", "ride-0", "ride-1")
    decide(campaign, "rejected")

    ann.submit(campaign.tasks()["ride-5"], "carrier")
    ann.edit(second, "security")
    collected = campaign.collect()

    assert collected.events == {"changed": 1, "created": 1}
    assert campaign.labels() == {"ride-1": "security", "ride-5": "carrier"}


def test_an_accepted_batch_stays_when_the_next_one_is_rejected(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    collect_answer(campaign, ann, "weather", "ride-0")
    labels = campaign.md5s(LABELS)

    accepted = decide(campaign, "accepted")
    unchanged = campaign.md5s(LABELS)
    collect_answer(campaign, bob, "carrier", "ride-0", "ride-1")
    rejected = decide(campaign, "rejected")

    assert (accepted.answers, rejected.answers) == (1, 2)
    assert unchanged == labels
    assert campaign.labels() == {"ride-0": "weather"}


def test_the_answers_of_one_person_can_be_rejected_and_all_be_accepted_again(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    collect_answer(campaign, ann, "weather", "ride-0")
    collect_answer(campaign, bob, "carrier", "ride-1")
    decide(campaign, "accepted")
    who = next(row["annotator"] for row in campaign.rows(ANNOTATIONS) if row["choice"] == "carrier")

    decide(campaign, "rejected", annotator=who, include_reviewed=True)
    without = campaign.labels()
    again = decide(campaign, "accepted", include_reviewed=True)

    assert without == {"ride-0": "weather"}
    assert (again.answers, again.annotation_partitions) == (1, ("2013-01-01",))
    assert campaign.labels() == {"ride-0": "weather", "ride-1": "carrier"}


def test_a_label_that_a_rejection_changed_is_known_since_the_rejection(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    collect_answer(campaign, ann, "weather", "ride-0")
    decide(campaign, "accepted")
    collect_answer(campaign, bob, "carrier", "ride-0")

    decide(campaign, "rejected")

    [row] = campaign.rows(LABELS)
    [decided] = [row["created_at"] for row in campaign.rows(ANNOTATIONS) if row["event"] == "rejected"]
    assert (row["label"], row["known_time"]) == ("weather", decided)


def test_the_same_decision_again_changes_no_byte(campaign: Campaign, ann: Annotator) -> None:
    collect_answer(campaign, ann, "weather", "ride-0")
    decide(campaign, "rejected")
    before = (
        campaign.table_store.manifest(ANNOTATIONS).to_files().head,
        campaign.table_store.manifest(LABELS).to_files().head,
    )

    for include_reviewed in (False, True):
        again = decide(campaign, "rejected", include_reviewed=include_reviewed)
        assert (again.answers, again.annotation_partitions, again.label_partitions) == (0, (), ())

    assert before == (
        campaign.table_store.manifest(ANNOTATIONS).to_files().head,
        campaign.table_store.manifest(LABELS).to_files().head,
    )


def test_one_more_answer_is_requested_for_a_rejected_one(campaign: Campaign, ann: Annotator, bob: Annotator) -> None:
    collect_answer(campaign, ann, "weather", "ride-0")
    decide(campaign, "rejected")

    again = request_more_annotations(campaign.dataset, campaign.labeling, campaign.table_store, campaign.settings)

    bob.submit(campaign.tasks()["ride-0"], "carrier")
    campaign.collect()
    assert again == ("ride-0",)
    assert campaign.labels() == {"ride-0": "carrier"}


def test_a_decision_on_a_report_is_about_the_answers_in_it_and_no_later_one(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    collect_answer(campaign, ann, "weather", "ride-0")
    shown = create_label_report(campaign.dataset, campaign.labeling, campaign.table_store, PARAMS)
    collect_answer(campaign, bob, "carrier", "ride-1")

    decide(campaign, "rejected", before=annotations.parse_timestamp(shown.before))
    last = create_label_report(campaign.dataset, campaign.labeling, campaign.table_store, PARAMS)

    assert campaign.labels() == {"ride-1": "carrier"}
    assert (shown.unreviewed, shown.rejected, last.unreviewed, last.rejected) == (1, 0, 1, 1)
    assert "  1 answer to accept or reject, 1 rejected" in last.summary_lines()


def test_a_rejection_that_died_before_the_labels_is_finished_by_repeating_it(
    campaign: Campaign, ann: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect_answer(campaign, ann, "weather", "ride-0")
    with monkeypatch.context() as patch:
        patch.setattr("headrace.label.review.run_label_stage", simulate_kill)
        with pytest.raises(HeadraceError, match="died"):
            decide(campaign, "rejected")

    again = decide(campaign, "rejected")

    assert (again.answers, again.label_partitions, campaign.labels()) == (0, ("2013-01-01",), {})


@pytest.mark.slow_lane
def test_every_release_leaves_out_the_rejected_answers_and_shows_why_without_a_name(
    built: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_PSEUDONYM_KEY", "a long random text")
    write_annotations(built.table_store, ANSWERS)
    built.refresh()
    built.command("headrace", "release", "flights")

    said = built.command("headrace", "label", "reject", "flights", "--by", "Grace Hopper", "--reason", "wrong manual")
    built.command("headrace", "release", "flights")

    assert "delay_cause: 6 answers rejected by " in said
    other = built.clone("other")
    other.dvc("pull")
    rejected = pl.read_parquet(other.root / "data/rejected/flights/delay_cause/*.parquet")
    assert rejected["reason"].str.contains("^rejected by [0-9a-f]{16} on .* UTC: wrong manual$").to_list() == [True] * 6
    assert other.table_store.manifest(FLIGHT_LABELS).rows == 0
    assert built.table_store.recorded_manifest(FLIGHT_LABELS, "flights/1").rows == 2  # type: ignore[union-attr]
    assert not [path for path in (other.root / "data").rglob("*") if path.is_file() and b"Hopper" in path.read_bytes()]
    history = other.table_store.scan(FLIGHT_ANNOTATIONS).collect()
    assert sorted(history["event"]) == ["created"] * 6 + ["rejected"] * 6
