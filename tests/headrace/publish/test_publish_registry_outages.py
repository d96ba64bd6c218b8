"""A registry that goes away mid-publish: a clear error, readers see one whole release, the next publish completes it.

A real PostgreSQL server behind a relay that cuts the line and comes back.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import feature_workspace
import pytest
from feature_workspace import served
from outages import KEYS, Publishing, at, before, moments
from servers import PostgreSQL, Relay

from headrace.errors import TransientError
from headrace.publish.blue_green import Sides

pytestmark = pytest.mark.slow

NAMED = r"(?s)registry.*at postgresql.*:\*\*\*@127\.0\.0\.1:\d+/\w+ does not answer.*run the command again"
"""What every error says: the registry, where it is, and what to do then."""


@dataclass
class Far:
    """A workspace whose registry is at the end of a line."""

    line: Relay
    publishing: Publishing
    address: str


@pytest.fixture(scope="module")
def made(postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """A release is live; each test goes on to the next, for nothing else tells a test from another."""
    line = Relay(postgres.port)
    address = postgres.address(postgres.new_database(), port=line.port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEAST_REGISTRY_URL", address)
        found = Publishing.made(tmp_path_factory.mktemp("far") / "workspace")
        found.repairs(1)
    yield Far(line, found, address)
    line.close()


@pytest.fixture
def far(made: Far, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    monkeypatch.setenv("FEAST_REGISTRY_URL", made.address)
    yield made
    feature_workspace.close_all()


Outage = Callable[[pytest.MonkeyPatch, Callable[[], object]], None]


def passing(name: str) -> Outage:
    """Before a point of `headrace/failpoints.py`."""
    return lambda patch, do: at(patch, name, do)


OUTAGES: dict[str, Outage] = {
    "before it is opened": passing("tables of Feast's registry"),
    "before the lead": passing("lead of the publisher"),
    "before the claim": passing("claim of the standby"),
    "between load and proof": lambda patch, do: before(patch, Sides, "prove", do),
    "before the tags": passing("tags of the proved side"),
    "before the switch": passing("switch of the service"),
}


@pytest.mark.parametrize("when", moments(OUTAGES, "before the claim", "between load and proof", "before the switch"))
def test_a_line_that_is_cut_is_named_and_the_next_publish_completes(
    far: Far, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    wanted = far.publishing.next
    with monkeypatch.context() as patch:
        OUTAGES[when](patch, far.line.fall)
        with pytest.raises(TransientError, match=NAMED):
            far.publishing.put(wanted)

    far.line.rise()
    far.publishing.completes(wanted)


def test_a_switch_that_nobody_could_be_told_of_serves_the_new_release_and_the_next_publish_notes_its_proof(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = far.publishing.next
    with monkeypatch.context() as patch:
        at(patch, "note of the proof", far.line.fall)
        with pytest.raises(TransientError, match=NAMED):
            far.publishing.put(wanted)

    far.line.rise()
    assert served(far.publishing.lake, KEYS) == [wanted] * len(KEYS)
    done = far.publishing.put(wanted)
    assert (done.release, done.switched) == (f"little/{wanted}", False)
    far.publishing.live = wanted
