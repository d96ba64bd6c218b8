"""Feast's hashes in Redis, as they are read: a hash a key, a field a feature, and the event time of each view."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.redis import _versioned_fv_name
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from headrace.feast.online_stores.fast_read import ViewRequest
from headrace.feast.online_stores.response_builder import Block

NANO = 1_000_000_000.0


def commands(config: RepoConfig, asked: Sequence[ViewRequest]) -> list[tuple[bytes, list[str | bytes]]]:
    """Keys to read, each of a view's once, and their fields."""
    project = config.project.encode()
    return [
        (key + project, fields)
        for one in asked
        for fields in [_fields(_versioned_fv_name(one.view, config), one.features)]
        for key in dict.fromkeys(one.keys)
    ]


def blocks(asked: Sequence[ViewRequest], replies: Iterable[Sequence[Any]]) -> list[Block]:
    """What came back. Of a key that is not there, Feast's reader makes empty values that are found, at time zero."""
    left = iter(replies)
    found = []
    for one in asked:
        rows = {key: [cell or b"" for cell in next(left)] for key in dict.fromkeys(one.keys)}
        times, *columns = zip(*[rows[key] for key in one.keys], strict=True)
        found.append(Block([*map(_stamp, times)], columns))
    return found


@lru_cache(256)
def _fields(view: str, features: tuple[str, ...]) -> list[str | bytes]:
    """The time, then the features."""
    return [f"_ts:{view}", *(_mmh3(f"{view}:{feature}") for feature in features)]


@lru_cache(4096)
def _stamp(time: bytes) -> bytes:
    """An event time as Feast's reader gives it back: through a float of seconds."""
    message = Timestamp.FromString(time)
    message.FromDatetime(datetime.fromtimestamp(message.seconds + message.nanos / NANO, tz=UTC))
    found: bytes = message.SerializeToString()
    return found
