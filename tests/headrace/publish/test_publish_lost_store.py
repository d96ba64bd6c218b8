"""A server of the online store that is killed: what it held in memory is gone, and no publish takes that for proved.

Real servers, killed by SIGKILL and started again, empty or as they were a while ago.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import feature_workspace
import pytest
from feature_workspace import add_second_dataset, online_delays
from online_stores import OnlineStore, postgresql_store, redis_server
from outages import KEYS, PublishWorkspace, mark_rare_params, run_at_failpoint, run_before_call
from redis import Redis
from servers import HOST, create_postgresql_data, free_port, postgresql_server

from headrace.publish.blue_green import PublishAttempt, Sides
from headrace.publish.publish import publish
from headrace.retrieve.errors import FeatureStoreUnavailableError

pytestmark = pytest.mark.slow

LOST = r"lost what was written to it.*headrace publish little` again"


@dataclass
class RestartableRedis:
    """A Redis server that keeps what it holds in memory, but for a snapshot that somebody asks for."""

    folder: Path
    port: int = field(default_factory=free_port)
    life: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """With the last snapshot, if there is one."""
        self.life.enter_context(redis_server(self.port, self.folder, signal.SIGKILL))

    def restart(self) -> None:
        """Killed, and started again."""
        self.life.close()
        self.start()

    def save(self) -> None:
        """Take a snapshot."""
        with Redis(HOST, self.port) as client:
            client.save()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RestartableRedis]:
    found = RestartableRedis(tmp_path)
    with found.life:
        found.start()
        yield found


@pytest.fixture
def publishing(tmp_path: Path, redis: RestartableRedis) -> Iterator[PublishWorkspace]:
    """Releases 1 and 2 were published: 2 is live, 1 is the standby."""
    found = PublishWorkspace.create(tmp_path / "workspace")
    OnlineStore("redis", {"connection_string": f"{HOST}:{redis.port}"}).configure(found.root)
    found.publish_and_verify(1)
    found.publish_and_verify(2)
    yield found
    feature_workspace.close_all()


@pytest.mark.parametrize("number", [1, 2, 3], ids=["the one before", "the live one", "another one"])
def test_whatever_is_published_next_finds_an_empty_store_and_writes_all_of_it(
    publishing: PublishWorkspace, redis: RestartableRedis, number: int
) -> None:
    redis.restart()
    assert online_delays(publishing.table_store, KEYS) == [None] * len(KEYS)

    publishing.publish_and_verify(number)
    publishing.publish_and_verify(number % 3 + 1)

    publishing.publish_and_verify(number)


def test_a_store_that_came_back_as_it_was_a_while_ago_is_not_taken_for_what_was_proved(
    publishing: PublishWorkspace, redis: RestartableRedis
) -> None:
    redis.save()
    publishing.publish_and_verify(3)
    publishing.publish_and_verify(1)
    redis.restart()
    assert online_delays(publishing.table_store, KEYS) == [2.0] * len(KEYS)

    publishing.publish_and_verify(1)

    publishing.publish_and_verify(3)


def test_another_dataset_of_the_same_store_finds_that_it_is_lost_when_it_is_published(
    publishing: PublishWorkspace, redis: RestartableRedis
) -> None:
    table_store, settings = publishing.table_store, feature_workspace.settings(publishing.root)
    other = add_second_dataset(table_store)
    before = publish(other, table_store, settings)
    redis.restart()

    publishing.publish_and_verify(1)

    after = publish(other, table_store, settings)
    assert (after.switched, after.digest) == (True, before.digest)


MOMENTS: dict[str, Callable[[pytest.MonkeyPatch, Callable[[], object]], None]] = {
    "before the lead": lambda patch, do: run_at_failpoint(patch, "lead in the online store", do),
    "before the load": lambda patch, do: run_at_failpoint(patch, "online values", do),
    "between two batches": lambda patch, do: run_at_failpoint(patch, "batch of the online values", do, 3),
    "before the proof": lambda patch, do: run_before_call(patch, Sides, "prove", do),
    "after the proof": lambda patch, do: run_before_call(patch, PublishAttempt, "refuse_lost", do),
}


@pytest.mark.parametrize("when", mark_rare_params(MOMENTS, "between two batches", "after the proof"))
def test_a_store_that_is_empty_since_a_moment_ago_is_never_switched_to(
    publishing: PublishWorkspace, redis: RestartableRedis, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    with monkeypatch.context() as patch:
        MOMENTS[when](patch, redis.restart)
        with pytest.raises(FeatureStoreUnavailableError, match=LOST):
            publishing.publish(3)

    publishing.publish_and_verify(3)
    publishing.publish_and_verify(2)


def test_a_release_that_is_put_back_by_the_switch_alone_is_looked_for_first(
    publishing: PublishWorkspace, redis: RestartableRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        run_before_call(patch, PublishAttempt, "refuse_lost", redis.restart)
        with pytest.raises(FeatureStoreUnavailableError, match=LOST):
            publishing.publish(1)

    publishing.publish_and_verify(1)


def test_postgresql_that_is_killed_within_the_load_serves_what_it_served_and_the_next_publish_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing = PublishWorkspace.create(tmp_path / "workspace")
    with create_postgresql_data() as (server, folder), ExitStack() as life:
        life.enter_context(postgresql_server(server, folder, signal.SIGKILL))
        postgresql_store(server, server.port).configure(publishing.root)
        publishing.publish_and_verify(1)

        with monkeypatch.context() as patch:
            run_at_failpoint(patch, "commit of the online values", life.close, 2)
            with pytest.raises(
                FeatureStoreUnavailableError, match=r"(?s)^The online store.*127\.0\.0\.1.*publish again"
            ):
                publishing.publish(2)

        with pytest.raises(FeatureStoreUnavailableError, match=r"(?s)^The online store.*127\.0\.0\.1.*publish again"):
            publishing.publish(2)
        life.enter_context(postgresql_server(server, folder, signal.SIGKILL))
        publishing.publish_after_outage(2)
        feature_workspace.close_all()
