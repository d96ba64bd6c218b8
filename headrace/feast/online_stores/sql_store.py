"""Feast's online store over our own tables: one row per key, one column per feature. Only a publish writes it.

Feast's own stores keep one row per value, with the feature's name in it: with five features, five times the rows to
write, verify and read. The cells are Feast's bytes all the same, and its calls (`get_online_features`, `feast serve`)
are what serving code sees.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from feast import Entity, FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from headrace.feast.online_stores.fast_read import DirectOnlineStore, ViewRequest
from headrace.feast.online_stores.response_builder import Block
from headrace.retrieve.errors import FeatureStoreError
from headrace.retrieve.partition_reader import to_utc_datetime

Answer = tuple[datetime | None, dict[str, Value] | None]
"""Event time and values of a key, or two times nothing."""


class ReadOnlyOnlineStore(DirectOnlineStore):
    """What every online store of ours has in common."""

    max_features: int | None = None

    def online_write_batch(self, *_args: object, **_options: object) -> None:
        """Refused.

        Raises:
            FeatureStoreError: Always.
        """
        raise FeatureStoreError(
            "Feast's materialize and push are refused, because they lose corrections and deletions: `headrace publish`"
            " brings a release online, and verifies it."
        )

    def _is_versioned_read_supported(self) -> bool:
        """No. To find that out, Feast imports the drivers of every store there is."""
        return False


class TableOnlineStore(ReadOnlyOnlineStore):
    """What the SQL stores have in common."""

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Answer]:
        """The values of each key, in order."""
        features = tuple(requested_features or [field.name for field in table.features])
        keys = [serialize_entity_key(key, config.entity_key_serialization_version) for key in entity_keys]
        rows = self.rows_of(config, f"{config.project}_{table.name}", features, keys)
        return [_answer(rows.get(key), features) for key in keys]

    def blocks(self, config: RepoConfig, asked: Sequence[ViewRequest]) -> Sequence[Block]:
        """As the base class says, a query a view."""
        return [self._block(config, one) for one in asked]

    def _block(self, config: RepoConfig, asked: ViewRequest) -> Block:
        rows = self.rows_of(config, f"{config.project}_{asked.view.name}", asked.features, [*dict.fromkeys(asked.keys)])
        nothing = (None,) * (2 + len(asked.features))
        _, times, *columns = zip(*[rows.get(key, nothing) for key in asked.keys], strict=True)
        return Block([*map(_stamp, times)], columns)

    def update(  # noqa: PLR0913, PLR0917  Feast's signature
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],  # noqa: ARG002
        entities_to_keep: Sequence[Entity],  # noqa: ARG002
        partial: bool,  # noqa: ARG002
    ) -> None:
        """Make the tables of these views, or the columns that they lack; drop those of the others."""
        keep = {f"{config.project}_{view.name}": [field.name for field in view.features] for view in tables_to_keep}
        self.make(config, keep, [f"{config.project}_{view.name}" for view in tables_to_delete])

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:  # noqa: ARG002
        """Drop the tables of these views."""
        self.make(config, {}, [f"{config.project}_{view.name}" for view in tables])

    @abstractmethod
    def rows_of(
        self, config: RepoConfig, table: str, features: tuple[str, ...], keys: Sequence[bytes]
    ) -> Mapping[bytes, Sequence[Any]]:
        """Key → itself, event time in microseconds, the features' bytes; keys that are not there are left out."""

    @abstractmethod
    def make(self, config: RepoConfig, keep: Mapping[str, Sequence[str]], drop: Iterable[str]) -> None:
        """Make these tables with these features, and drop those."""

    @abstractmethod
    def disconnect(self) -> None:
        """Close the connection that reads keep open."""


_moment = lru_cache(4096)(to_utc_datetime)
"""Many keys share few event times."""


@lru_cache(4096)
def _stamp(time: int | None) -> bytes:
    """The bytes of Feast's message of an event time; of one that is not there, none."""
    if time is None:
        return b""
    message = Timestamp()
    message.FromDatetime(_moment(time))
    found: bytes = message.SerializeToString()
    return found


def _answer(row: Sequence[Any] | None, features: Sequence[str]) -> Answer:
    if row is None:
        return None, None
    _, time, *cells = row
    parse = Value.FromString
    return _moment(time), {name: parse(cell) for name, cell in zip(features, cells, strict=True) if cell is not None}
