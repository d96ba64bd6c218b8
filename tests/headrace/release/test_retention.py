"""Which releases a retention policy keeps: held against a second implementation, by groups instead of by one pass."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter

import minimal_dataset
import pytest

from headrace.dataset import Retention
from headrace.release.retention import ReleasePoint, RetentionError, apply_policy, declared_policy, describe_policy

START = datetime(2026, 1, 1, 6, tzinfo=UTC)
FORMATS = {
    "keep_last": "%Y-%m-%d %H:%M:%S.%f",
    "keep_daily": "%Y-%m-%d",
    "keep_weekly": "%G-%V",
    "keep_monthly": "%Y-%m",
    "keep_yearly": "%Y",
}


def points(*times: datetime) -> list[ReleasePoint]:
    return [ReleasePoint(f"flights/{number}", f"{number:040x}", time) for number, time in enumerate(times, start=1)]


def every(days: float, count: int) -> list[ReleasePoint]:
    return points(*(START + timedelta(days=days * number) for number in range(count)))


def names_kept(policy: Retention, releases: Sequence[ReleasePoint]) -> list[int]:
    kept = apply_policy(policy, releases)
    return [int(name.partition("/")[2]) for name, reasons in kept.items() if reasons]


def names_kept_by_groups(policy: Retention, releases: Sequence[ReleasePoint]) -> list[int]:
    """The same, from groups of releases of one period."""
    kept = {releases[-1].name, *policy.pinned}
    for rule, form in FORMATS.items():
        count = getattr(policy, rule)
        periods = [each.time.strftime(form) for each in releases]
        pairs = groupby(zip(periods, releases, strict=True), key=itemgetter(0))
        groups = [[each for _, each in group] for _, group in pairs]
        kept |= {group[-1].name for group in groups[max(0, len(groups) - count) :]} if count else set()
        kept |= {releases[0].name} if len(groups) < count else set()
    return [int(each.name.partition("/")[2]) for each in releases if each.name in kept]


def test_of_a_year_of_daily_releases_it_keeps_days_weeks_and_months() -> None:
    releases = every(1, 365)

    kept = apply_policy(Retention(keep_last=3, keep_daily=5, keep_weekly=3, keep_monthly=12), releases)

    by_rule = {rule: [name for name, rules in kept.items() if rule in rules] for rule in FORMATS}
    assert by_rule["keep_last"] == ["flights/363", "flights/364", "flights/365"]
    assert by_rule["keep_daily"] == [f"flights/{number}" for number in range(361, 366)]
    assert [releases[int(name[8:]) - 1].time.strftime("%a %d %b") for name in by_rule["keep_weekly"]] == [
        "Sun 20 Dec",
        "Sun 27 Dec",
        "Thu 31 Dec",
    ]
    ends = [releases[int(name[8:]) - 1].time for name in by_rule["keep_monthly"]]
    assert [(end + timedelta(days=1)).day for end in ends] == [1] * 12
    assert kept["flights/365"] == ["latest", "keep_last", "keep_daily", "keep_weekly", "keep_monthly"]


def test_several_releases_of_a_day_count_as_one_and_the_last_of_them_is_kept() -> None:
    assert names_kept(Retention(keep_daily=2), every(1 / 4, 11)) == [7, 11]


def test_a_rule_that_is_not_yet_full_also_keeps_the_oldest() -> None:
    assert names_kept(Retention(keep_monthly=12), every(1, 40)) == [1, 31, 40]
    assert names_kept(Retention(keep_monthly=2), every(1, 40)) == [31, 40]


def test_the_latest_and_pinned_ones_are_kept_whatever_the_rules_say() -> None:
    policy = Retention(keep_yearly=1, pinned={"flights/2": "figure 2"})

    kept = apply_policy(policy, every(1, 5))

    assert kept == {
        "flights/1": [],
        "flights/2": ["pinned: figure 2"],
        "flights/3": [],
        "flights/4": [],
        "flights/5": ["latest", "keep_yearly"],
    }


@pytest.mark.parametrize("seed", range(40))
def test_it_keeps_what_groups_by_period_keep_and_the_same_when_it_is_applied_again(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  no secret
    hours = sorted(chance.sample(range(chance.choice([100, 2_000, 30_000])), chance.randint(1, 80)))
    releases = points(*(START + timedelta(hours=hour) for hour in hours))
    counts = {rule: chance.choice([0, 0, 1, 2, 5, 30]) for rule in FORMATS}
    policy = Retention(**counts, pinned={chance.choice(releases).name: "chance"})

    kept = names_kept(policy, releases)

    assert kept == names_kept_by_groups(policy, releases)
    assert names_kept(policy, [each for each in releases if int(each.name[8:]) in kept]) == kept


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (None, r"declares no retention policy.*retention=Retention\(keep_last=7"),
        (Retention(), "one without a rule"),
        (Retention(keep_daily=-1), "keep_daily of 0 or more, found -1"),
        (Retention(keep_last=1, pinned={"tiny/1": " "}), "tiny/1 is pinned without a reason"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_with_what_to_write(policy: Retention | None, message: str) -> None:
    with pytest.raises(RetentionError, match=message):
        declared_policy(replace(minimal_dataset.DATASET, retention=policy))


def test_a_pin_of_what_is_no_release_is_refused() -> None:
    with pytest.raises(RetentionError, match="flights/33, which is not a release"):
        apply_policy(Retention(keep_last=1, pinned={"flights/33": "a typing error"}), every(1, 3))


def test_a_policy_is_described_by_its_rules() -> None:
    assert describe_policy(Retention(keep_last=7, keep_monthly=12)) == "keep_last=7, keep_monthly=12"
