"""An online store that goes away mid-publish: a clear error, nothing half-changed, and the next publish completes it.

Real servers behind a relay that cuts the line, or falls silent, and comes back. `make faults` does it at every moment.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import feature_workspace
import pytest
from feast import FeatureStore
from feature_workspace import opened
from online_stores import OnlineStore, postgresql_store, redis_server
from outages import Publishing, at, before, moments
from servers import HOST, PostgreSQL, Relay, free_port

from headrace.feast.online_stores import postgresql
from headrace.feast.online_stores import redis as redis_store
from headrace.feast.online_stores.redis import RedisWriter
from headrace.feast.online_stores.writer import online_of
from headrace.publish.blue_green import Attempt, Sides
from headrace.retrieve.errors import FeatureStoreUnavailableError

pytestmark = pytest.mark.slow

NAMED = r"(?s)^The online store.*127\.0\.0\.1:\d+.*publish again"
"""What every error says: which store does not answer, where, and what to do then."""


@dataclass
class Far:
    """A workspace that publishes to a store at the end of a line."""

    store: OnlineStore
    line: Relay
    publishing: Publishing

    @property
    def kind(self) -> str:
        """`postgres` or `redis`."""
        return self.store.kind


@pytest.fixture(scope="module", params=["postgres", "redis"])
def far(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """A release is live; each test goes on to the next, for nothing else tells a test from another."""
    folder = tmp_path_factory.mktemp("far")
    with ExitStack() as stack:
        if request.param == "redis":
            port = free_port()
            stack.enter_context(redis_server(port, folder))
            line = Relay(port)
            store = OnlineStore("redis", {"connection_string": f"{HOST}:{line.port}"})
        else:
            server: PostgreSQL = request.getfixturevalue("postgres")
            line = Relay(server.port)
            store = postgresql_store(server, line.port)
        stack.callback(line.close)
        found = Publishing.made(folder / "workspace")
        store.serve(found.root)
        found.repairs(1)
        yield Far(store, line, found)


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Redis's client tries again for some seconds."""
    monkeypatch.setattr("redis.retry.sleep", lambda _seconds: None)
    yield
    feature_workspace.close_all()


Outage = Callable[[pytest.MonkeyPatch, Far, Callable[[], object]], None]
"""When something is done."""


def passing(name: str, number: int = 1) -> Outage:
    """Before a point of `headrace/failpoints.py`."""
    return lambda patch, _far, do: at(patch, name, do, number)


def within_the_load(patch: pytest.MonkeyPatch, far: Far, do: Callable[[], object]) -> None:
    """Between two batches, or before a transaction is committed."""
    name, number = ("batch of the online values", 3) if far.kind == "redis" else ("commit of the online values", 2)
    at(patch, name, do, number)


OUTAGES: dict[str, Outage] = {
    "before the lead": passing("lead of the publisher"),
    "before the claim": passing("claim of the standby"),
    "before the values of a view": passing("online values"),
    "between two views": passing("online values", 2),
    "within the load": within_the_load,
    "before the proof": lambda patch, _far, do: before(patch, Sides, "prove", do),
    "within the proof": lambda patch, _far, do: before(patch, FeatureStore, "get_online_features", do),
    "before the switch": lambda patch, _far, do: before(patch, Attempt, "switch", do),
}


@pytest.mark.parametrize(
    "when", moments(OUTAGES, "between two views", "within the load", "within the proof", "before the switch")
)
def test_a_line_that_is_cut_is_named_and_the_next_publish_completes(
    far: Far, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    wanted = far.publishing.next
    with monkeypatch.context() as patch:
        OUTAGES[when](patch, far, far.line.fall)
        with pytest.raises(FeatureStoreUnavailableError, match=NAMED):
            far.publishing.put(wanted)

    far.line.rise()
    far.publishing.completes(wanted)


def test_values_that_were_written_while_nobody_could_be_told_are_no_half_release(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, words = far.publishing.next, b"HSET" if far.kind == "redis" else b"COMMIT"
    with monkeypatch.context() as patch:
        within_the_load(patch, far, lambda: far.line.fall_after(words))
        with pytest.raises(FeatureStoreUnavailableError, match=rf"{NAMED}: it writes what is missing"):
            far.publishing.put(wanted)

    far.line.rise()
    far.publishing.completes(wanted)


def test_another_release_than_the_one_that_failed_can_be_published_next(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        within_the_load(patch, far, far.line.fall)
        with pytest.raises(FeatureStoreUnavailableError, match=NAMED):
            far.publishing.put(far.publishing.next)

    far.line.rise()
    far.publishing.completes((far.publishing.next) % 3 + 1)


def test_a_store_that_is_away_while_the_service_is_switched_serves_the_new_release_when_it_is_back(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = far.publishing.next
    with monkeypatch.context() as patch:
        at(patch, "switch of the service", far.line.fall)
        done = far.publishing.put(wanted)

    far.line.rise()
    assert done.switched
    assert feature_workspace.served(far.publishing.lake, ["N2", "M00001"]) == [wanted, wanted]
    assert not far.publishing.put(wanted).switched
    far.publishing.live = wanted


@pytest.mark.parametrize("when", moments(OUTAGES, "within the load"))
@pytest.mark.parametrize("far", ["redis"], indirect=True)
def test_redis_that_falls_silent_is_given_up_and_the_next_publish_completes(
    far: Far, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    wanted = far.publishing.next
    monkeypatch.setitem(redis_store.LIMITS, "socket_timeout", 0.2)
    with monkeypatch.context() as patch:
        OUTAGES[when](patch, far, far.line.hush)
        with pytest.raises(FeatureStoreUnavailableError, match=NAMED):
            far.publishing.put(wanted)

    far.line.rise()
    far.publishing.completes(wanted)


@pytest.mark.parametrize("far", ["redis"], indirect=True)
def test_a_connection_to_redis_has_limits_of_time_and_the_connection_string_may_set_others(far: Far) -> None:
    other = {"connection_string": far.store.options["connection_string"] + ",socket_timeout=7"}

    assert limits(far) == (5, 5)
    OnlineStore("redis", other).serve(far.publishing.root)
    assert limits(far) == (7, 5)
    far.store.serve(far.publishing.root)


def limits(far: Far) -> tuple[float, float]:
    """Seconds that an answer and a connection are waited for."""
    redis = online_of(opened(far.publishing.lake), feature_workspace.DATASET)
    assert isinstance(redis, RedisWriter)
    options = redis.client.connection_pool.connection_kwargs
    return options["socket_timeout"], options["socket_connect_timeout"]


def locked(far: Far, seconds: float, released: threading.Event | None = None) -> threading.Thread:
    """Another transaction holds both sides of a view from now on, for so long or until it is told to release them."""
    options = opened(far.publishing.lake).config.online_store
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


@pytest.mark.parametrize("far", ["postgres"], indirect=True)
def test_a_store_that_takes_its_time_is_waited_for(far: Far) -> None:
    thread = locked(far, 2.0)

    far.publishing.completes(far.publishing.next)

    thread.join()


@pytest.mark.parametrize("far", ["postgres"], indirect=True)
def test_a_lock_that_nobody_lets_go_is_named(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, released = far.publishing.next, threading.Event()
    thread = locked(far, 120, released)

    with monkeypatch.context() as patch:
        patch.setattr(postgresql, "LOCK_S", 1)
        with pytest.raises(FeatureStoreUnavailableError, match=rf"{NAMED}"):
            far.publishing.put(wanted)

    released.set()
    thread.join()
    far.publishing.completes(wanted)
