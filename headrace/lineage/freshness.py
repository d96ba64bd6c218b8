"""Reports what is online: the published release, and the age of the newest value of each feature table.

Reads only the publish log in the registry's database, so the answer is the same in every clone and Feast is not
imported.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.settings import Settings

TWO_DAYS = timedelta(days=2)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class FeatureFreshness:
    """The newest values of one feature table that are online.

    Attributes:
        event_time: The newest event time.
        known_time: When the newest value became known.
        age: Time since the newest event.
    """

    event_time: datetime
    known_time: datetime
    age: timedelta

    @property
    def delay(self) -> timedelta:
        """Time from the newest event until its value was known."""
        return self.known_time - self.event_time

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "event_time": self.event_time,
            "known_time": self.known_time,
            "age_s": self.age.total_seconds(),
            "delay_s": self.delay.total_seconds(),
        }


@dataclass(frozen=True)
class OnlineFreshness:
    """What is online of a dataset.

    Attributes:
        release: The published release; empty if tables of a workspace were published.
        slot: The slot that serves it, `a` or `b`.
        switched_at: When the service was switched to it.
        views: Feature table → its newest values.
        accepted: What guards found in the publish, and who let it pass, as JSON.
    """

    release: str
    slot: str
    switched_at: datetime
    views: Mapping[str, FeatureFreshness]
    accepted: Sequence[Mapping[str, str]] = ()

    def format_lines(self, last_release: str) -> Iterator[str]:
        """Human-readable lines, with a note if `last_release` is not the one online."""
        behind = "" if self.release == last_release else f"; {last_release} is released but not online"
        release = self.release or "tables of a workspace"
        yield f"online: {release} in slot {self.slot} since {self.switched_at.isoformat()}{behind}"
        for table, view in self.views.items():
            yield (
                f"  {table}: newest event {view.event_time.isoformat()}, {_format_span(view.age)} old,"
                f" known after {_format_span(view.delay)}"
            )
        for each in self.accepted:
            yield f"  {each['finding']} accepted by {each['by']} on {each['at'][:10]}: {each['reason']}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "views": {table: view.to_dict() for table, view in self.views.items()}}


def read_freshness(settings: Settings, dataset: str, now: datetime | None = None) -> OnlineFreshness | None:
    """What the last publish of `dataset` recorded; None if there was none, or no registry is configured.

    Raises:
        RegistryUnavailableError: The registry's database does not answer.
    """
    if not settings.feast_registry_url:
        return None
    from headrace.feast.publish_log import PublishLog  # noqa: PLC0415  most commands need no database

    with closing(PublishLog.at(settings.feast_registry_url, dataset)) as publish_log:
        online = publish_log.online()
    if online is None:
        return None
    report, now = online.report, now or datetime.now(UTC)
    views = {table: _view_freshness(times, now) for table, times in report["newest_times"].items()}
    return OnlineFreshness(report["release"], report["slot"], online.switched_at, views, report.get("accepted", ()))


def _view_freshness(times: Mapping[str, str], now: datetime) -> FeatureFreshness:
    event_time, known_time = (datetime.fromisoformat(times[name]) for name in ("event_time", "known_time"))
    return FeatureFreshness(event_time, known_time, now - event_time)


def _format_span(span: timedelta) -> str:
    if span >= TWO_DAYS:
        return f"{span.days:,} days"
    if span >= HOUR:
        return f"{span // HOUR} h"
    return f"{span // timedelta(minutes=1)} min"
