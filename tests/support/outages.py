"""Servers that go away in the middle of a publish: when they do, and a workspace that publishes to them."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import feature_workspace
import pytest
from _pytest.mark import ParameterSet
from feature_workspace import AIRCRAFT, FLOWN, HOUR, NOON, WEATHER, fill, fill_all, put, served

from headrace import failpoints
from headrace.publish.publish import PublishResult
from headrace.storage.table_store import Lake

MANY = [{"tailnum": f"M{number:05}", "event_time": NOON - 26 * HOUR} for number in range(600)]
"""More aircraft than go into a batch."""

KEYS = ["N2", "M00001", "M00599"]
RELEASES = 3
_point = failpoints.failpoint


@dataclass
class Publishing:
    """A workspace of three releases, any two of which differ in most keys of one view and in one of another.

    Attributes:
        root: The workspace.
        live: Number of the release that is served; 0 if there is none.
    """

    root: Path
    live: int = 0

    @classmethod
    def made(cls, root: Path) -> "Publishing":
        """The workspace at `root`; nothing is published."""
        lake = feature_workspace.workspace(root)
        fill_all(lake)
        for number in range(1, RELEASES + 1):
            fill(lake, WEATHER, [{"origin": "EWR", "event_time": NOON, "temp_c": float(number)}])
            fill(lake, AIRCRAFT, [{**row, "delay_min": float(number)} for row in (*FLOWN, *MANY)])
            feature_workspace.release(lake, number)
        return cls(root)

    @property
    def lake(self) -> Lake:
        """The workspace, opened anew."""
        return Lake.at(self.root)

    @property
    def next(self) -> int:
        """The release that is on neither side."""
        return self.live % RELEASES + 1

    def put(self, number: int) -> PublishResult:
        """Publish the release of that number."""
        return put(self.lake, f"little/{number}")

    def completes(self, number: int) -> PublishResult:
        """What was served is served; then that release is put online, proved, and served by itself."""
        if self.live:
            assert served(self.lake, KEYS) == [self.live] * len(KEYS)
        return self.repairs(number)

    def repairs(self, number: int) -> PublishResult:
        """The release is put online, proved, and served, whatever was served before."""
        done = self.put(number)
        assert (done.release, done.switched) == (f"little/{number}", True)
        assert not [found for proof in done.verifications for found in proof.mismatches]
        assert served(self.lake, KEYS) == [number] * len(KEYS)
        self.live = number
        return done


def at(patch: pytest.MonkeyPatch, name: str, do: Callable[[], object], number: int = 1) -> None:
    """Do it, once, when failpoint `name` is passed for the `number`-th time, before its effect."""
    passed: list[str] = []

    def point(passing: str, half: Callable[[], object] | None = None) -> AbstractContextManager[object]:
        if passing == name:
            passed.append(passing)
            if len(passed) == number:
                do()
        return _point(passing, half)

    patch.setattr(failpoints, "failpoint", point)


def before(patch: pytest.MonkeyPatch, owner: type, name: str, do: Callable[[], object]) -> None:
    """Do it, once, when this method is called, before it is."""
    real, calls = getattr(owner, name), iter([do])

    def called(*arguments: object, **named: object) -> object:
        next(calls, lambda: None)()
        return real(*arguments, **named)

    patch.setattr(owner, name, called)


def moments(every: Iterable[str], *some: str) -> list[ParameterSet]:
    """All of them in `make faults`, and `some` of them in `make test`."""
    return [pytest.param(when, marks=[] if when in some else pytest.mark.faults) for when in every]
