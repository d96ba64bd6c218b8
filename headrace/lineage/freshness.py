"""online → how fresh: which release is served, and how old the newest value of each feature table is.

It asks the registry's database alone, so it is the same for every clone and costs no import of Feast.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.settings import Settings

TWO_DAYS = timedelta(days=2)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Served:
    """The newest values of one feature table that are online.

    Attributes:
        event: The newest event time.
        known: When the newest of them was known.
        age: Time since that event.
    """

    event: datetime
    known: datetime
    age: timedelta

    def to_dict(self) -> dict[str, Any]:
        """For machines: age and delay in seconds."""
        delay = (self.known - self.event).total_seconds()
        return {**vars(self), "age": self.age.total_seconds(), "delay": delay}


@dataclass(frozen=True)
class Freshness:
    """What is online of a dataset.

    Attributes:
        release: Its release.
        side: The side that serves it.
        switched_at: When the service was switched to it.
        views: Feature table → its newest values.
    """

    release: str
    side: str
    switched_at: datetime
    views: Mapping[str, Served]

    def lines(self, last: str) -> Iterator[str]:
        """For people; `last` is the last release."""
        behind = "" if self.release == last else f"; {last} is released and not online"
        named = self.release or "tables of a workspace"
        yield f"online: {named} from side {self.side} since {self.switched_at.isoformat()}{behind}"
        for table, found in self.views.items():
            yield (
                f"  {table}: newest event {found.event.isoformat()}, {_spoken(found.age)} old,"
                f" known {_spoken(found.known - found.event)} later"
            )

    def to_dict(self) -> dict[str, Any]:
        """For machines: ages in seconds."""
        views = {
            table: {
                **vars(found),
                "age": found.age.total_seconds(),
                "delay": (found.known - found.event).total_seconds(),
            }
            for table, found in self.views.items()
        }
        return {**vars(self), "views": views}


def freshness(settings: Settings, dataset: str, now: datetime | None = None) -> Freshness | None:
    """What is online of `dataset`, by what the last publish wrote down; None if nothing is, or there is no registry.

    Raises:
        RegistryError: The registry's database does not answer.
    """
    if not settings.feast_registry_url:
        return None
    from headrace.feast.publish_log import Publications  # noqa: PLC0415  most commands need no database

    with closing(Publications.at(settings.feast_registry_url, dataset)) as publications:
        online = publications.online()
    if online is None:
        return None
    proof, moment = online.proof, now or datetime.now(UTC)
    views = {table: _served(found, moment) for table, found in proof["newest"].items()}
    return Freshness(proof["release"], proof["side"], online.switched_at, views)


def _served(found: Mapping[str, str], now: datetime) -> Served:
    event, known = (datetime.fromisoformat(found[name]) for name in ("event", "known"))
    return Served(event, known, now - event)


def _spoken(span: timedelta) -> str:
    if span >= TWO_DAYS:
        return f"{span.days:,} days"
    if span >= HOUR:
        return f"{span // HOUR} h"
    return f"{span // timedelta(minutes=1)} min"
