"""A registry that goes away mid-publish: a clear error, readers see one whole release, the next publish completes it.

A real PostgreSQL server behind a relay that cuts the line and comes back.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import feature_workspace
import pytest
from feature_workspace import online_delays
from outages import KEYS, PublishWorkspace, mark_rare_params, run_at_failpoint, run_before_call
from servers import PostgreSQL, Relay

from headrace.errors import TransientError
from headrace.publish.blue_green import Sides

pytestmark = pytest.mark.slow

NAMED = r"(?s)registry.*at postgresql.*:\*\*\*@127\.0\.0\.1:\d+/\w+ does not answer.*run the command again"
"""What every error says: the registry, where it is, and what to do then."""


@dataclass
class RemoteRegistry:
    """A workspace whose registry is at the end of a line."""

    relay: Relay
    publishing: PublishWorkspace
    address: str


@pytest.fixture(scope="module")
def made(postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteRegistry]:
    """A release is live; each test goes on to the next, for nothing else tells a test from another."""
    relay = Relay(postgres.port)
    address = postgres.address(postgres.new_database(), port=relay.port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEAST_REGISTRY_URL", address)
        found = PublishWorkspace.create(tmp_path_factory.mktemp("remote") / "workspace")
        found.publish_and_verify(1)
    yield RemoteRegistry(relay, found, address)
    relay.close()


@pytest.fixture
def remote(made: RemoteRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteRegistry]:
    monkeypatch.setenv("FEAST_REGISTRY_URL", made.address)
    yield made
    feature_workspace.close_all()


Outage = Callable[[pytest.MonkeyPatch, Callable[[], object]], None]


def at_failpoint(name: str) -> Outage:
    """Before a point of `headrace/failpoints.py`."""
    return lambda patch, do: run_at_failpoint(patch, name, do)


OUTAGES: dict[str, Outage] = {
    "before it is opened": at_failpoint("tables of Feast's registry"),
    "before the lead": at_failpoint("lead of the publisher"),
    "before the claim": at_failpoint("claim of the standby"),
    "between load and proof": lambda patch, do: run_before_call(patch, Sides, "prove", do),
    "before the tags": at_failpoint("tags of the proved side"),
    "before the switch": at_failpoint("switch of the service"),
}


@pytest.mark.parametrize(
    "when", mark_rare_params(OUTAGES, "before the claim", "between load and proof", "before the switch")
)
def test_a_line_that_is_cut_is_named_and_the_next_publish_completes(
    remote: RemoteRegistry, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    wanted = remote.publishing.next_release
    with monkeypatch.context() as patch:
        OUTAGES[when](patch, remote.relay.go_down)
        with pytest.raises(TransientError, match=NAMED):
            remote.publishing.publish(wanted)

    remote.relay.come_up()
    remote.publishing.publish_after_outage(wanted)


def test_a_switch_that_nobody_could_be_told_of_serves_the_new_release_and_the_next_publish_notes_its_proof(
    remote: RemoteRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = remote.publishing.next_release
    with monkeypatch.context() as patch:
        run_at_failpoint(patch, "note of the proof", remote.relay.go_down)
        with pytest.raises(TransientError, match=NAMED):
            remote.publishing.publish(wanted)

    remote.relay.come_up()
    assert online_delays(remote.publishing.table_store, KEYS) == [wanted] * len(KEYS)
    done = remote.publishing.publish(wanted)
    assert (done.release, done.switched) == (f"little/{wanted}", False)
    remote.publishing.live = wanted
