"""Which releases a retention policy keeps, and by which rule: the rules of restic and borg."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from headrace.dataset import Dataset, Retention
from headrace.errors import HeadraceError

Period = Callable[[datetime], object]
"""The day, week, month or year of a time; each release has a period of its own for `keep_last`."""

PERIODS: Mapping[str, Period] = {
    "keep_last": lambda time: object(),  # noqa: ARG005
    "keep_daily": lambda time: time.date(),
    "keep_weekly": lambda time: time.isocalendar()[:2],
    "keep_monthly": lambda time: (time.year, time.month),
    "keep_yearly": lambda time: time.year,
}
"""Rule → the period of which it keeps the last release."""


class RetentionError(HeadraceError):
    """A dataset declares no retention policy, or one that cannot be meant."""


@dataclass(frozen=True)
class ReleasePoint:
    """A release and its time.

    Attributes:
        name: Its name.
        commit: The commit of its tag.
        time: When it was released (UTC).
    """

    name: str
    commit: str
    time: datetime


def declared_policy(dataset: Dataset) -> Retention:
    """The retention policy of a dataset, checked.

    Raises:
        RetentionError: There is none, or it cannot be meant.
    """
    policy, where = dataset.retention, f"pipelines/{dataset.name}/__init__.py"
    if policy is None:
        raise RetentionError(
            f"{dataset.name} declares no retention policy, so every release is kept. Add one to its Dataset in {where},"
            " commit and push it: `retention=Retention(keep_last=7, keep_daily=30, keep_weekly=12, keep_monthly=24)`."
        )
    counts = _counts(policy)
    if negative := [name for name, count in counts.items() if count < 0]:
        raise RetentionError(f"{where}: expected {negative[0]} of 0 or more, found {counts[negative[0]]}.")
    if not any(counts.values()):
        raise RetentionError(
            f"{where}: expected a retention policy that keeps something, found one without a rule. Set at least one of"
            f" {', '.join(PERIODS)}."
        )
    if unexplained := [name for name, reason in policy.pinned.items() if not reason.strip()]:
        raise RetentionError(f"{where}: {unexplained[0]} is pinned without a reason. Say why it is kept.")
    return policy


def apply_policy(policy: Retention, releases: Sequence[ReleasePoint]) -> dict[str, list[str]]:
    """Release → what keeps it, for example the rule `keep_daily`; nothing for those that may be pruned.

    The latest release is kept in any case.

    Args:
        policy: The policy.
        releases: Every release, oldest first.

    Raises:
        RetentionError: The policy pins what is not a release.
    """
    kept: dict[str, list[str]] = {release.name: [] for release in releases}
    if unknown := sorted(policy.pinned.keys() - kept.keys()):
        raise RetentionError(
            f"The retention policy pins {', '.join(unknown)}, which is not a release. Correct the name, or remove it."
        )
    if releases:
        kept[releases[-1].name].append("latest")
    for name, reason in policy.pinned.items():
        kept[name].append(f"pinned: {reason}")
    for rule, count in _counts(policy).items():
        for release in _kept_by_rule(releases, PERIODS[rule], count):
            kept[release.name].append(rule)
    return kept


def _kept_by_rule(releases: Sequence[ReleasePoint], period: Period, count: int) -> list[ReleasePoint]:
    """The last release of each of the last `count` periods that have one; with too few of them, also the oldest."""
    kept: list[ReleasePoint] = []
    before: object = None
    for release in reversed(releases):
        now = period(release.time)
        if len(kept) < count and (now != before or release is releases[0]):
            kept.append(release)
        before = now
    return kept


def describe_policy(policy: Retention) -> str:
    """The rules of a policy: `keep_last=7, keep_daily=30`."""
    return ", ".join(f"{rule}={count}" for rule, count in _counts(policy).items() if count)


def _counts(policy: Retention) -> dict[str, int]:
    return {rule: getattr(policy, rule) for rule in PERIODS}
