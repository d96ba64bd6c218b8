"""Outages in the middle of a publish: helpers that trigger them, and a workspace that publishes."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import feature_workspace
import pytest
from _pytest.mark import ParameterSet
from feature_workspace import (
    AIRCRAFT,
    AIRCRAFT_ROWS,
    HOUR,
    NOON,
    WEATHER,
    online_delays,
    publish_release,
    write_all_tables,
    write_table,
)

from headrace import failpoints
from headrace.publish.publish import PublishResult
from headrace.storage.table_store import TableStore

MANY_AIRCRAFT = [{"tailnum": f"M{number:05}", "event_time": NOON - 26 * HOUR} for number in range(600)]
"""More aircraft than fit into one batch."""

KEYS = ["N2", "M00001", "M00599"]
RELEASES = 3
_real_failpoint = failpoints.failpoint


@dataclass
class PublishWorkspace:
    """A workspace of three releases, any two of which differ in most keys of one view and in one of another.

    Attributes:
        root: The workspace.
        live: Number of the release that is served; 0 if there is none.
    """

    root: Path
    live: int = 0

    @classmethod
    def create(cls, root: Path) -> "PublishWorkspace":
        """Create the workspace at `root`; nothing is published."""
        table_store = feature_workspace.create_workspace(root)
        write_all_tables(table_store)
        for number in range(1, RELEASES + 1):
            write_table(table_store, WEATHER, [{"origin": "EWR", "event_time": NOON, "temp_c": float(number)}])
            write_table(
                table_store, AIRCRAFT, [{**row, "delay_min": float(number)} for row in (*AIRCRAFT_ROWS, *MANY_AIRCRAFT)]
            )
            feature_workspace.tag_release(table_store, number)
        return cls(root)

    @property
    def table_store(self) -> TableStore:
        """The workspace's tables, opened again on each access."""
        return TableStore.at(self.root)

    @property
    def next_release(self) -> int:
        """The release that is in neither slot."""
        return self.live % RELEASES + 1

    def publish(self, number: int) -> PublishResult:
        """Publish the release of that number."""
        return publish_release(self.table_store, f"little/{number}")

    def publish_after_outage(self, number: int) -> PublishResult:
        """Check that the live release is still served; then publish and verify that release."""
        if self.live:
            assert online_delays(self.table_store, KEYS) == [self.live] * len(KEYS)
        return self.publish_and_verify(number)

    def publish_and_verify(self, number: int) -> PublishResult:
        """Publish the release; check that it was verified and is served."""
        done = self.publish(number)
        assert (done.release, done.switched) == (f"little/{number}", True)
        assert not [found for proof in done.verifications for found in proof.mismatches]
        assert online_delays(self.table_store, KEYS) == [number] * len(KEYS)
        self.live = number
        return done


def run_at_failpoint(patch: pytest.MonkeyPatch, name: str, do: Callable[[], object], number: int = 1) -> None:
    """Call `do` once, before the effect of failpoint `name`, when it is passed for the `number`-th time."""
    passed: list[str] = []

    def point(passing: str, half: Callable[[], object] | None = None) -> AbstractContextManager[object]:
        if passing == name:
            passed.append(passing)
            if len(passed) == number:
                do()
        return _real_failpoint(passing, half)

    patch.setattr(failpoints, "failpoint", point)


def run_before_call(patch: pytest.MonkeyPatch, owner: type, name: str, do: Callable[[], object]) -> None:
    """Call `do` once, before the first call of this method."""
    real, calls = getattr(owner, name), iter([do])

    def called(*arguments: object, **named: object) -> object:
        next(calls, lambda: None)()
        return real(*arguments, **named)

    patch.setattr(owner, name, called)


def mark_rare_params(every: Iterable[str], *some: str) -> list[ParameterSet]:
    """Parameters of which only `some` run in `make test`, and all in `make faults`."""
    return [pytest.param(when, marks=[] if when in some else pytest.mark.faults) for when in every]
