"""A person's word on answers: what is refused is in no label and no release, until it is changed or accepted."""

from datetime import UTC, datetime

import polars as pl
import pytest
from label_campaign import ANNOTATIONS, LABELS, PARAMS, REJECTED, Campaign
from label_server import Person
from two_releases import ANSWERS, annotate
from workspaces import Workspace

from headrace.errors import HeadraceError
from headrace.label import annotations, commands, report
from headrace.label.commands import Decided
from headrace.label.review import Decision, Word

pytestmark = pytest.mark.slow

FLIGHT_LABELS, FLIGHT_ANNOTATIONS = "labels/flights/delay_cause", "annotations/flights/delay_cause"


def decide(campaign: Campaign, word: Word, **more: str | bool | datetime) -> Decided:
    """As somebody called Grace says it."""
    said = Decision(word, "Grace", "a wrong manual", **more)  # type: ignore[arg-type]
    return commands.decide(campaign.dataset, campaign.labeling, campaign.lake, campaign.settings, said)


def test_refused_answers_make_no_label_and_are_set_aside_with_who_when_and_why(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    ann.answers(campaign.tasks()["ride-0"], "weather")
    campaign.collect()

    done = decide(campaign, "refused")

    [aside] = campaign.rows(REJECTED)
    assert (done.answers, done.days, done.labels, campaign.labels()) == (1, ("2013-01-01",), 0, {})
    assert aside["reason"] == f"refused by {done.by} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: a wrong manual"
    assert aside["choice"] == "weather"


def test_no_collect_brings_a_refused_answer_back_only_a_change_of_it_does(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    tasks = campaign.tasks()
    given = {ride: ann.answers(tasks[ride], "weather") for ride in ("ride-0", "ride-1")}
    campaign.collect()
    decide(campaign, "refused")

    ann.answers(tasks["ride-5"], "carrier")
    ann.changes(given["ride-1"], "security")
    collected = campaign.collect()

    assert collected.events == {"changed": 1, "created": 1}
    assert campaign.labels() == {"ride-1": "security", "ride-5": "carrier"}


def test_an_accepted_batch_stays_when_the_next_one_is_refused(campaign: Campaign, ann: Person, bob: Person) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.answers(tasks["ride-0"], "weather")
    campaign.collect()
    labels = campaign.md5s(LABELS)

    accepted = decide(campaign, "accepted")
    unchanged = campaign.md5s(LABELS)
    for ride in ("ride-0", "ride-1"):
        bob.answers(tasks[ride], "carrier")
    campaign.collect()
    refused = decide(campaign, "refused")

    assert (accepted.answers, refused.answers) == (1, 2)
    assert unchanged == labels
    assert campaign.labels() == {"ride-0": "weather"}


def test_the_answers_of_one_person_can_be_refused_and_all_be_accepted_again(
    campaign: Campaign, ann: Person, bob: Person
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.answers(tasks["ride-0"], "weather")
    bob.answers(tasks["ride-1"], "carrier")
    campaign.collect()
    decide(campaign, "accepted")
    who = next(row["annotator"] for row in campaign.rows(ANNOTATIONS) if row["choice"] == "carrier")

    decide(campaign, "refused", annotator=who, every=True)
    without = campaign.labels()
    again = decide(campaign, "accepted", every=True)

    assert without == {"ride-0": "weather"}
    assert (again.answers, again.days) == (1, ("2013-01-01",))
    assert campaign.labels() == {"ride-0": "weather", "ride-1": "carrier"}


def test_a_label_that_a_refusal_changed_is_known_since_the_refusal(
    campaign: Campaign, ann: Person, bob: Person
) -> None:
    campaign.send()
    task = campaign.tasks()["ride-0"]
    ann.answers(task, "weather")
    campaign.collect()
    decide(campaign, "accepted")
    bob.answers(task, "carrier")
    campaign.collect()

    decide(campaign, "refused")

    [row] = campaign.rows(LABELS)
    [decided] = [row["created_at"] for row in campaign.rows(ANNOTATIONS) if row["event"] == "refused"]
    assert (row["label"], row["known_time"]) == ("weather", decided)


def test_saying_it_again_changes_no_byte(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    ann.answers(campaign.tasks()["ride-0"], "weather")
    campaign.collect()
    decide(campaign, "refused")
    before = campaign.lake.manifest(ANNOTATIONS).to_bytes(), campaign.lake.manifest(LABELS).to_bytes()

    for every in (False, True):
        again = decide(campaign, "refused", every=every)
        assert (again.answers, again.days, again.rebuilt) == (0, (), ())

    assert before == (campaign.lake.manifest(ANNOTATIONS).to_bytes(), campaign.lake.manifest(LABELS).to_bytes())


def test_what_was_refused_is_asked_again(campaign: Campaign, ann: Person, bob: Person) -> None:
    campaign.send()
    ann.answers(campaign.tasks()["ride-0"], "weather")
    campaign.collect()
    decide(campaign, "refused")

    again = report.ask_again(campaign.dataset, campaign.labeling, campaign.lake, campaign.settings)

    bob.answers(campaign.tasks()["ride-0"], "carrier")
    campaign.collect()
    assert again == ("ride-0",)
    assert campaign.labels() == {"ride-0": "carrier"}


def test_a_word_on_a_report_is_about_what_the_report_showed_and_no_later_answer(
    campaign: Campaign, ann: Person, bob: Person
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.answers(tasks["ride-0"], "weather")
    campaign.collect()
    shown = report.report(campaign.dataset, campaign.labeling, campaign.lake, PARAMS)
    bob.answers(tasks["ride-1"], "carrier")
    campaign.collect()

    decide(campaign, "refused", until=annotations.moment(shown.until))
    last = report.report(campaign.dataset, campaign.labeling, campaign.lake, PARAMS)

    assert campaign.labels() == {"ride-1": "carrier"}
    assert (shown.unspoken, shown.refused, last.unspoken, last.refused) == (1, 0, 1, 1)
    assert "  1 answer to accept or refuse, 1 refused" in last.lines()


def test_a_refusal_that_died_before_the_labels_is_finished_by_saying_it_again(
    campaign: Campaign, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.send()
    ann.answers(campaign.tasks()["ride-0"], "weather")
    campaign.collect()
    with monkeypatch.context() as patch:
        patch.setattr(commands, "run_stage", dies)
        with pytest.raises(HeadraceError, match="died"):
            decide(campaign, "refused")

    again = decide(campaign, "refused")

    assert (again.answers, again.rebuilt, campaign.labels()) == (0, ("2013-01-01",), {})


def dies(*_: object) -> None:
    """Stand in for a process that is killed."""
    raise HeadraceError("died")


def test_any_release_is_made_without_the_refused_answers_and_tells_every_clone_why_but_no_name(
    built: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_PSEUDONYM_KEY", "a long random text")
    annotate(built.lake, ANSWERS)
    built.refresh()
    built.command("headrace", "release", "flights")

    said = built.command("headrace", "label", "reject", "flights", "--by", "Grace Hopper", "--reason", "wrong manual")
    built.command("headrace", "release", "flights")

    assert "delay_cause: 6 answers refused by " in said
    other = built.clone("other")
    other.dvc("pull")
    aside = pl.read_parquet(other.root / "data/rejected/flights/delay_cause/*.parquet")
    assert aside["reason"].str.contains("^refused by [0-9a-f]{16} on .* UTC: wrong manual$").to_list() == [True] * 6
    assert other.lake.manifest(FLIGHT_LABELS).rows == 0
    assert built.lake.recorded(FLIGHT_LABELS, "flights/1").rows == 2  # type: ignore[union-attr]
    assert not [path for path in (other.root / "data").rglob("*") if path.is_file() and b"Hopper" in path.read_bytes()]
    history = other.lake.scan(FLIGHT_ANNOTATIONS).collect()
    assert sorted(history["event"]) == ["created"] * 6 + ["refused"] * 6
