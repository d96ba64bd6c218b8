"""The Redis online store. Feast's own writer ignores a correction at the same event time and can not delete; this can.

All views of an entity share one hash a key. A batch is one script: the fence, then the values, and nobody in between.
"""

# no failpoint: a script, which Redis runs atomically; the caller is in a failpoint

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np
import polars as pl
from feast import FeatureStore
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.online_response import OnlineResponse
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from redis import RedisError
from redis import exceptions as redis_errors

from headrace import failpoints
from headrace.batches import batched
from headrace.feast.encoding import KEY_VERSION, cut
from headrace.feast.online_stores.fast_read import ViewRequest, understood
from headrace.feast.online_stores.redis_layout import blocks, commands
from headrace.feast.online_stores.response_builder import Block
from headrace.feast.online_stores.sql_store import ReadOnlyOnlineStore
from headrace.feast.online_stores.writer import OnlineView, fenced_error
from headrace.feast.types import KEY, STAMP
from headrace.feast.variables import expand_options
from headrace.retrieve.errors import FeatureStoreError, FeatureStoreUnavailableError

BATCH = 500
"""Keys a script: Redis serves nobody else while one runs."""

PAGE = 500
"""Keys that a script looks at when all are listed."""

LIMITS = {"socket_timeout": 5, "socket_connect_timeout": 5}
"""Seconds that an answer and a connection are waited for, each time, unless the connection string sets its own."""

AGAIN = (
    "The slot that was being loaded is not served. Check that Redis runs and has memory left, then publish again: it"
    " writes what is missing."
)
ASK_AGAIN = "Check that it runs and that the dataset is published, then ask or publish again."
MILLION = 1_000_000
DONE = -1
LEAD = """
local seen = tonumber(redis.call('GET', KEYS[1]) or '0')
if seen < tonumber(ARGV[2]) or seen > tonumber(ARGV[1]) then return seen end
redis.call('SET', KEYS[1], ARGV[1])
return -1
"""
GUARD = """
local seen = tonumber(redis.call('GET', KEYS[1]) or '0')
if seen ~= tonumber(ARGV[1]) then return seen end
"""
WRITE = (
    GUARD
    + """
local n = tonumber(ARGV[2])
for i = 2, #KEYS do
  local cells = {}
  for j = 1, n do
    cells[2 * j - 1] = ARGV[2 + j]
    cells[2 * j] = ARGV[2 + n + (i - 2) * n + j]
  end
  redis.call('HSET', KEYS[i], unpack(cells))
end
return -1
"""
)
DELETE = (
    GUARD
    + """
for i = 2, #KEYS do redis.call('HDEL', KEYS[i], unpack(ARGV, 2)) end
return -1
"""
)
READ = """
local found = {}
for i = 1, #KEYS do
  local cells = redis.call('HMGET', KEYS[i], unpack(ARGV))
  for j = 1, #cells do found[#found + 1] = cells[j] end
end
return found
"""

KEYS_OF = """
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local keys, sizes = {}, {}
for _, key in ipairs(page[2]) do
  for _, cell in ipairs(redis.call('HMGET', key, unpack(ARGV, 5))) do
    if cell then
      keys[#keys + 1] = string.sub(key, 1, -1 - ARGV[4])
      sizes[#sizes + 1] = #keys[#keys]
      break
    end
  end
end
return {page[1], table.concat(keys), table.concat(sizes, ',')}
"""


UNAVAILABLE = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,  # a replica that was a primary until now
    redis_errors.ClusterDownError,
    redis_errors.TryAgainError,
)
REFUSALS = (redis_errors.AuthenticationError, redis_errors.AuthorizationError)
"""Subclasses of redis-py's ConnectionError all the same."""


class HeadraceRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """The `online_store` of `feature_store.yaml`: Feast's own options of `redis`."""

    type: Literal["headrace.feast.online_stores.redis.HeadraceRedisOnlineStore"] = (
        "headrace.feast.online_stores.redis.HeadraceRedisOnlineStore"  # type: ignore[assignment]
    )

    _expanded = expand_options


class HeadraceRedisOnlineStore(ReadOnlyOnlineStore, RedisOnlineStore):
    """Serves what was published to Redis, in Feast's own layout: a pipeline for all views."""

    def blocks(self, config: RepoConfig, asked: Sequence[ViewRequest]) -> Sequence[Block]:
        """As the base class says."""
        return blocks(asked, self._read_hash_fields(config, commands(config, asked)))

    async def get_online_features_async(self, config: RepoConfig, *given: Any, **named: Any) -> OnlineResponse:  # noqa: ANN401
        """As Feast's.

        Raises:
            FeatureStoreError: Redis does not answer.
        """
        request = understood(config, *given, **named)
        with _known(config.online_store, ASK_AGAIN):
            if request is None:
                return await super().get_online_features_async(config, *given, **named)
            client = await self._get_client_async(config.online_store)
            async with client.pipeline(transaction=False) as pipeline:
                for key, fields in commands(config, request.asked):
                    pipeline.hmget(key, fields)
                return request.answer(blocks(request.asked, await pipeline.execute()))

    def get_online_features(self, config: RepoConfig, *given: Any, **named: Any) -> OnlineResponse:  # noqa: ANN401
        """As Feast's.

        Raises:
            FeatureStoreError: Redis does not answer.
        """
        with _known(config.online_store, ASK_AGAIN):
            return super().get_online_features(config, *given, **named)

    def update(self, config: RepoConfig, *arguments: Any, **named: Any) -> None:  # noqa: ANN401
        """As Feast's.

        Raises:
            FeatureStoreError: Redis does not answer.
        """
        with _known(config.online_store, AGAIN):
            super().update(config, *arguments, **named)

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Any:  # noqa: ANN401
        """As Feast's, which waits for ever where the connection string says nothing of it."""
        if self._client:
            return self._client
        given = online_store_config.connection_string
        limits = [f"{name}={seconds}" for name, seconds in LIMITS.items() if f"{name}=" not in given]
        return super()._get_client(
            online_store_config.model_copy(update={"connection_string": ",".join([given, *limits])})
        )

    def publisher(self, store: FeatureStore, dataset: str) -> "RedisWriter":
        """How its hashes are written.

        Raises:
            FeatureStoreError: It is a cluster, where one script cannot reach all keys of a batch.
        """
        found = store.config.online_store
        if found.redis_type == "redis_cluster":
            raise FeatureStoreError(
                "Headrace cannot publish to a Redis cluster: its keys are on several servers, and a batch is one"
                " script. Use redis_type redis or redis_sentinel in feature_repo/feature_store.yaml."
            )
        return RedisWriter(self._get_client(found), store.project, dataset, found)


@dataclass(frozen=True)
class RedisWriter:
    """The keys of one project.

    Attributes:
        client: A connection.
        project: The project.
        dataset: The dataset, which has a fence of its own.
        options: The `online_store` of `feature_store.yaml`.
    """

    client: Any
    project: str
    dataset: str
    options: RedisOnlineStoreConfig = field(repr=False)

    def rows(self, view: OnlineView, among: pl.Series | None = None) -> pl.DataFrame:
        """As `Online`."""
        names = [STAMP, *view.features]
        found: list[bytes | None] = []
        keys = (self.keys(view) if among is None else among).to_list()
        with self._known(view):
            for some in batched(keys, BATCH):
                found += self._script(READ, self._names(some), self._fields(view))
        columns = {name: found[place :: len(names)] for place, name in enumerate(names)}
        frame = pl.DataFrame({KEY: keys, **columns}, schema=dict.fromkeys((KEY, *names), pl.Binary))
        return frame.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in names))

    def keys(self, view: OnlineView) -> pl.Series:
        """As `Online`: the server looks through all it has, a page a script, and says which keys the view is in."""
        pattern = _literally(serialize_entity_key_prefix(list(view.keys), KEY_VERSION)) + b"*" + self._project
        asked = [pattern, PAGE, len(self._project), *self._fields(view)]
        keys: list[bytes] = []
        sizes: list[bytes] = []
        cursor = b""
        with self._known(view):
            while cursor != b"0":
                cursor, some, their = self._script(KEYS_OF, [], [cursor or b"0", *asked])
                keys.append(some)
                sizes += their.split(b",") if their else []
        # A key may come twice while Redis moves its keys about.
        return cut(b"".join(keys), np.array(sizes, np.int64)).unique()

    def change(self, view: OnlineView, write: pl.DataFrame, delete: pl.Series, generation: int) -> None:
        """As `Online`, a batch of keys at once."""
        fields = self._fields(view)
        columns = [STAMP, *view.features]
        with self._known(view):
            for batch in write.iter_slices(BATCH):
                keys = self._names(batch[KEY].to_list())
                values = [*chain.from_iterable(batch.select(columns).iter_rows())]
                with failpoints.failpoint("batch of the online values"):
                    self._guarded(WRITE, keys, generation, [len(fields), *fields, *values])
            for some in batched(delete.to_list(), BATCH):
                with failpoints.failpoint("batch of the online deletions"):
                    self._guarded(DELETE, self._names(some), generation, fields)

    def take_lead(self, generation: int, last: int) -> None:
        """As `Online`."""
        with self._known(None):
            self._guarded(LEAD, [], generation, [last])

    def generation(self) -> int:
        """As `Online`."""
        with self._known(None):
            return int(self.client.get(self._fence) or 0)

    def migrate(self, views: Iterable[OnlineView]) -> list[str]:  # noqa: ARG002
        """As `OnlineStoreWriter`: Feast's own layout did not change."""
        return []

    def stamps(self, times: pl.Series) -> pl.Series:
        """Feast's message of the time."""
        messages = {found: _message(found) for found in times.unique()}
        return pl.Series(times.name, [messages[found] for found in times.to_list()], dtype=pl.Binary)

    def _guarded(self, script: str, keys: Sequence[bytes], generation: int, rest: Sequence[Any]) -> None:
        seen = int(self._script(script, [self._fence, *keys], [generation, *rest]))
        if seen != DONE:
            raise fenced_error(self.dataset, generation, seen)

    def _script(self, script: str, keys: Sequence[bytes], rest: Sequence[Any]) -> Any:  # noqa: ANN401  Redis's answer
        return self.client.eval(script, len(keys), *keys, *rest)

    def _names(self, keys: Sequence[bytes]) -> list[bytes]:
        """What Redis calls the keys."""
        project = self._project
        return [key + project for key in keys]

    @staticmethod
    def _fields(view: OnlineView) -> list[bytes]:
        """Names of the view's fields in the hash: the time, then the features."""
        return [f"_ts:{view.name}".encode(), *(_mmh3(f"{view.name}:{feature}") for feature in view.features)]

    @property
    def _project(self) -> bytes:
        return self.project.encode()

    @property
    def _fence(self) -> bytes:
        return f"headrace:fence:{self.project}:{self.dataset}".encode()

    def _known(self, view: OnlineView | None) -> AbstractContextManager[None]:
        return _known(self.options, AGAIN, view)


@contextmanager
def _known(options: RedisOnlineStoreConfig, mend: str, view: OnlineView | None = None) -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        where = ",".join(part for part in options.connection_string.split(",") if "=" not in part)
        named = f", view {view.name}" if view else ""
        kind = FeatureStoreUnavailableError if _is_transient(error) else FeatureStoreError
        raise kind(f"The online store, Redis at {where}{named}: {str(error).rstrip('.')}. {mend}") from error


def _is_transient(error: Exception) -> bool:
    """Whether Redis may answer a little later: it is unreachable, loading, full of clients, or failing over."""
    return isinstance(error, (OSError, *UNAVAILABLE)) and not isinstance(error, REFUSALS)


def _message(microseconds: int) -> bytes:
    seconds, rest = divmod(microseconds, MILLION)
    found: bytes = Timestamp(seconds=seconds, nanos=rest * 1000).SerializeToString()
    return found


def _literally(prefix: bytes) -> bytes:
    """The bytes as a pattern that matches only them."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\" else bytes([byte]) for byte in prefix)
