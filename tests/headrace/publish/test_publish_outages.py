"""A publish whose online store fails names the store, switches nothing, and completes when it is run again.

Real servers run behind a relay that cuts the connection or stops answering. `make faults` does so at every point.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import feature_workspace
import pytest
from feast import FeatureStore
from feature_workspace import open_workspace_store
from online_stores import OnlineStore, postgresql_store, redis_server
from outages import PublishWorkspace, mark_rare_params, run_at_failpoint, run_before_call
from servers import HOST, PostgreSQL, Relay, free_port

from headrace.feast.online_stores import postgresql
from headrace.feast.online_stores import redis as redis_store
from headrace.feast.online_stores.redis import RedisWriter
from headrace.feast.online_stores.writer import online_of
from headrace.publish.blue_green import PublishAttempt, Sides
from headrace.retrieve.errors import FeatureStoreUnavailableError

pytestmark = pytest.mark.slow

NAMED = r"(?s)^The online store.*127\.0\.0\.1:\d+.*publish again"
"""What every error says: which store does not answer, where, and what to do then."""


@dataclass
class RemoteStore:
    """A workspace that publishes to a store behind a relay."""

    store: OnlineStore
    relay: Relay
    publishing: PublishWorkspace

    @property
    def kind(self) -> str:
        """`postgres` or `redis`."""
        return self.store.kind


@pytest.fixture(scope="module", params=["postgres", "redis"])
def remote(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteStore]:
    """A release is live; each test goes on to the next, for nothing else tells a test from another."""
    folder = tmp_path_factory.mktemp("remote")
    with ExitStack() as stack:
        if request.param == "redis":
            port = free_port()
            stack.enter_context(redis_server(port, folder))
            relay = Relay(port)
            store = OnlineStore("redis", {"connection_string": f"{HOST}:{relay.port}"})
        else:
            server: PostgreSQL = request.getfixturevalue("postgres")
            relay = Relay(server.port)
            store = postgresql_store(server, relay.port)
        stack.callback(relay.close)
        found = PublishWorkspace.create(folder / "workspace")
        store.configure(found.root)
        found.publish_and_verify(1)
        yield RemoteStore(store, relay, found)


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Redis's client tries again for some seconds."""
    monkeypatch.setattr("redis.retry.sleep", lambda _seconds: None)
    yield
    feature_workspace.close_all()


Outage = Callable[[pytest.MonkeyPatch, RemoteStore, Callable[[], object]], None]
"""When something is done."""


def at_failpoint(name: str, number: int = 1) -> Outage:
    """Before a point of `headrace/failpoints.py`."""
    return lambda patch, _far, do: run_at_failpoint(patch, name, do, number)


def during_load(patch: pytest.MonkeyPatch, remote: RemoteStore, do: Callable[[], object]) -> None:
    """Between two batches, or before a transaction is committed."""
    name, number = ("batch of the online values", 3) if remote.kind == "redis" else ("commit of the online values", 2)
    run_at_failpoint(patch, name, do, number)


OUTAGES: dict[str, Outage] = {
    "before the lead": at_failpoint("lead of the publisher"),
    "before the claim": at_failpoint("claim of the standby"),
    "before the values of a view": at_failpoint("online values"),
    "between two views": at_failpoint("online values", 2),
    "within the load": during_load,
    "before the proof": lambda patch, _far, do: run_before_call(patch, Sides, "prove", do),
    "within the proof": lambda patch, _far, do: run_before_call(patch, FeatureStore, "get_online_features", do),
    "before the switch": lambda patch, _far, do: run_before_call(patch, PublishAttempt, "switch", do),
}


@pytest.mark.parametrize(
    "when", mark_rare_params(OUTAGES, "between two views", "within the load", "within the proof", "before the switch")
)
def test_a_line_that_is_cut_is_named_and_the_next_publish_completes(
    remote: RemoteStore, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    wanted = remote.publishing.next_release
    with monkeypatch.context() as patch:
        OUTAGES[when](patch, remote, remote.relay.go_down)
        with pytest.raises(FeatureStoreUnavailableError, match=NAMED):
            remote.publishing.publish(wanted)

    remote.relay.come_up()
    remote.publishing.publish_after_outage(wanted)


def test_values_that_were_written_while_nobody_could_be_told_are_no_half_release(
    remote: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, words = remote.publishing.next_release, b"HSET" if remote.kind == "redis" else b"COMMIT"
    with monkeypatch.context() as patch:
        during_load(patch, remote, lambda: remote.relay.go_down_after(words))
        with pytest.raises(FeatureStoreUnavailableError, match=rf"{NAMED}: it writes what is missing"):
            remote.publishing.publish(wanted)

    remote.relay.come_up()
    remote.publishing.publish_after_outage(wanted)


def test_another_release_than_the_one_that_failed_can_be_published_next(
    remote: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        during_load(patch, remote, remote.relay.go_down)
        with pytest.raises(FeatureStoreUnavailableError, match=NAMED):
            remote.publishing.publish(remote.publishing.next_release)

    remote.relay.come_up()
    remote.publishing.publish_after_outage((remote.publishing.next_release) % 3 + 1)


def test_a_store_that_is_away_while_the_service_is_switched_serves_the_new_release_when_it_is_back(
    remote: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = remote.publishing.next_release
    with monkeypatch.context() as patch:
        run_at_failpoint(patch, "switch of the service", remote.relay.go_down)
        done = remote.publishing.publish(wanted)

    remote.relay.come_up()
    assert done.switched
    assert feature_workspace.online_delays(remote.publishing.table_store, ["N2", "M00001"]) == [wanted, wanted]
    assert not remote.publishing.publish(wanted).switched
    remote.publishing.live = wanted


@pytest.mark.parametrize("when", mark_rare_params(OUTAGES, "within the load"))
@pytest.mark.parametrize("remote", ["redis"], indirect=True)
def test_redis_that_falls_silent_is_given_up_and_the_next_publish_completes(
    remote: RemoteStore, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    wanted = remote.publishing.next_release
    monkeypatch.setitem(redis_store.LIMITS, "socket_timeout", 0.2)
    with monkeypatch.context() as patch:
        OUTAGES[when](patch, remote, remote.relay.stop_answering)
        with pytest.raises(FeatureStoreUnavailableError, match=NAMED):
            remote.publishing.publish(wanted)

    remote.relay.come_up()
    remote.publishing.publish_after_outage(wanted)


@pytest.mark.parametrize("remote", ["redis"], indirect=True)
def test_a_connection_to_redis_has_limits_of_time_and_the_connection_string_may_set_others(remote: RemoteStore) -> None:
    other = {"connection_string": remote.store.options["connection_string"] + ",socket_timeout=7"}

    assert read_timeouts(remote) == (5, 5)
    OnlineStore("redis", other).configure(remote.publishing.root)
    assert read_timeouts(remote) == (7, 5)
    remote.store.configure(remote.publishing.root)


def read_timeouts(remote: RemoteStore) -> tuple[float, float]:
    """Seconds that an answer and a connection are waited for."""
    redis = online_of(open_workspace_store(remote.publishing.table_store), feature_workspace.DATASET)
    assert isinstance(redis, RedisWriter)
    options = redis.client.connection_pool.connection_kwargs
    return options["socket_timeout"], options["socket_connect_timeout"]


def lock_tables(remote: RemoteStore, seconds: float, released: threading.Event | None = None) -> threading.Thread:
    """Lock both slots of a view in another transaction, until `released` is set or the seconds have passed."""
    options = open_workspace_store(remote.publishing.table_store).config.online_store
    server, held = PostgreSQL(options.port, options.user, options.password), threading.Event()

    def hold() -> None:
        with server.connect(options.database) as connection, connection.transaction():
            for side in "ab":
                connection.execute(f"LOCK TABLE headrace_aircraft_history__{side} IN SHARE MODE".encode())
            held.set()
            (released or threading.Event()).wait(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    return thread


@pytest.mark.parametrize("remote", ["postgres"], indirect=True)
def test_a_store_that_takes_its_time_is_waited_for(remote: RemoteStore) -> None:
    thread = lock_tables(remote, 2.0)

    remote.publishing.publish_after_outage(remote.publishing.next_release)

    thread.join()


@pytest.mark.parametrize("remote", ["postgres"], indirect=True)
def test_a_lock_that_nobody_lets_go_is_named(remote: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, released = remote.publishing.next_release, threading.Event()
    thread = lock_tables(remote, 120, released)

    with monkeypatch.context() as patch:
        patch.setattr(postgresql, "LOCK_S", 1)
        with pytest.raises(FeatureStoreUnavailableError, match=rf"{NAMED}"):
            remote.publishing.publish(wanted)

    released.set()
    thread.join()
    remote.publishing.publish_after_outage(wanted)
