"""Feast's `get_online_features`, for requests as serving code makes them: the same answer for less work.

Feast makes several objects for every key and every value. Here a request becomes the bytes of its keys, and the bytes
that the store keeps become the answer. What is asked for is Feast's to say, by its copy of the registry: which views
and features a service has, which columns are join keys. A request that is unusual in any way (on-demand views, versions
of views, keys that are not plain numbers or strings, a server that counts what it reads) is Feast's to answer, too.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any

from feast import FeatureView, utils
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.online_response import OnlineResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.protos.feast.types.Value_pb2 import ValueType as Code
from feast.repo_config import RepoConfig
from feast.value_type import ValueType

from headrace.feast.encoding import KEY_VERSION
from headrace.feast.online_stores.response_builder import (
    Block,
    FastOnlineResponse,
    build_response,
    encode_header,
    encode_key_column,
    encode_view_columns,
)

Columns = dict[str, Sequence[Any]]
"""Join key → its values, a row of the request each."""


@dataclass(frozen=True)
class ViewRequest:
    """What is asked of a view.

    Attributes:
        view: The view.
        features: Its features that are asked for.
        keys: Feast's bytes of each row's key; a key may come again.
    """

    view: FeatureView
    features: tuple[str, ...]
    keys: Sequence[bytes]


@dataclass(frozen=True)
class Request:
    """What is asked of the store, and what is known of the answer.

    Attributes:
        asked: The views.
        parts: How the answer begins: its head, and the columns of the request.
        types: Name of a feature → its type.
    """

    asked: Sequence[ViewRequest]
    parts: Sequence[bytes]
    types: dict[str, ValueType]

    def answer(self, blocks: Sequence[Block]) -> FastOnlineResponse:
        """The answer with what the views hold."""
        return build_response([*self.parts, *map(encode_view_columns, blocks)], self.types)


class DirectOnlineStore(OnlineStore):
    """What the stores that answer this way have in common."""

    def get_online_features(self, config: RepoConfig, *given: Any, **named: Any) -> OnlineResponse:  # noqa: ANN401
        """As Feast's."""
        request = understood(config, *given, **named)
        if request is None:
            return super().get_online_features(config, *given, **named)
        return request.answer(self.blocks(config, request.asked))

    @abstractmethod
    def blocks(self, config: RepoConfig, asked: Sequence[ViewRequest]) -> Sequence[Block]:
        """What each view holds of its keys."""


def understood(  # noqa: PLR0913, PLR0917  what Feast asks a store, by Feast's names
    config: RepoConfig,
    features: Any,  # noqa: ANN401  names, or a service
    entity_rows: Any,  # noqa: ANN401  a list of rows, or columns
    registry: BaseRegistry,
    project: str,
    full_feature_names: bool = False,
    include_feature_view_version_metadata: bool = False,
) -> Request | None:
    """The request; None if it is Feast's to answer."""
    columns = _columns(entity_rows)
    if (
        not columns
        or include_feature_view_version_metadata
        or getattr(features, "precompute_online", False)
        or config.entity_key_serialization_version != KEY_VERSION
        or _measured()
    ):
        return None
    context = utils._get_cached_request_context(registry, project, features, full_feature_names)  # noqa: SLF001
    plan = _plan(_Same(context), tuple(columns), full_feature_names)
    return plan.request(columns) if plan else None


@dataclass(frozen=True)
class _Kind:
    """A type of join keys.

    Attributes:
        field: The field of a value's message that holds one.
        python: The one Python type that is taken as it is.
        key: Value → its bytes in an entity key.
    """

    field: str
    python: type
    key: Callable[[Any], bytes]

    def takes(self, values: Sequence[Any]) -> bool:
        """Whether each of them is plain. An empty string is not: Feast takes a column of them for nulls."""
        return set(map(type, values)) == {self.python} and "" not in values

    def cells(self, values: Sequence[Any]) -> list[bytes]:
        """The bytes of each value's message."""
        return [Value(**{self.field: value}).SerializeToString() for value in values]


@dataclass(frozen=True)
class _Entity:
    """How the keys of a view are made.

    Attributes:
        prefix: What every key begins with.
        columns: The request's columns, in the order of the join keys' names.
    """

    prefix: bytes
    columns: tuple[str, ...]

    def keys(self, parts: Mapping[str, Sequence[bytes]]) -> list[bytes]:
        """The bytes of each row's key."""
        first, *others = (parts[name] for name in self.columns)
        rows = map(b"".join, zip(first, *others, strict=True)) if others else first
        return [self.prefix + row for row in rows]


@dataclass(frozen=True)
class _Plan:
    """What a request for the same features with the same columns comes to.

    Attributes:
        kinds: Of each column; None where Feast looks at the values to know.
        own: The columns that the answer gives back: join keys, of other views too.
        views: View, its features, its entity.
        head: How every answer begins.
        types: Name of a feature → its type.
    """

    kinds: Mapping[str, _Kind | None]
    own: Sequence[str]
    views: Sequence[tuple[FeatureView, tuple[str, ...], _Entity]]
    head: bytes
    types: dict[str, ValueType]

    def request(self, columns: Columns) -> Request | None:
        """The request for these keys."""
        kinds = {name: kind or SEEN.get(type(columns[name][0])) for name, kind in self.kinds.items()}
        known = {name: kind for name, kind in kinds.items() if kind and kind.takes(columns[name])}
        if len(known) < len(kinds):
            return None
        cells = {name: kind.cells(columns[name]) for name, kind in known.items()}
        entities = {entity for *_, entity in self.views}
        parts = {name: [*map(known[name].key, columns[name])] for entity in entities for name in entity.columns}
        keys = {entity: entity.keys(parts) for entity in entities}
        asked = [ViewRequest(view, features, keys[entity]) for view, features, entity in self.views]
        return Request(asked, [self.head, *(encode_key_column(cells[name]) for name in self.own)], self.types)


class _Same:
    """Equal to nothing but the very same object."""

    def __init__(self, it: Any) -> None:  # noqa: ANN401
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)


@lru_cache(64)
def _plan(context: _Same, columns: tuple[str, ...], full_feature_names: bool) -> _Plan | None:
    """The plan, from what Feast makes of a request's features and keeps as long as its copy of the registry."""
    _, on_demand, join_keys, types, known, grouped, wanted, request_data, no_entity = context.it
    own = [name for name in columns if name in known]
    if on_demand or request_data or no_entity or any(name in join_keys for name in columns if name not in known):
        return None
    views = []
    for view, features in grouped:
        entity = _entity(view, join_keys, columns)
        if entity is None or view.projection.version_tag is not None:
            return None
        views.append((view, tuple(features), entity))
    names = [_name(view, feature, full_feature_names) for view, features, _ in views for feature in features]
    kinds = {name: KINDS.get(types.get(name)) for name in columns}
    if not wanted >= set(names) or any(kinds[name] is None and name in types for name in columns):
        return None
    return _Plan(kinds, own, views, encode_header([*own, *names]), OnlineStore._build_feature_types(grouped))  # noqa: SLF001


def _entity(view: FeatureView, join_keys: dict[str, str], columns: tuple[str, ...]) -> _Entity | None:
    """The view's entity; None if the request has not all of its join keys."""
    itself: Any = {name: name for name in columns}
    named: dict[str, Any] = utils._get_table_entity_values(view, join_keys, itself)  # noqa: SLF001
    if not named or set(named) != set(view.join_keys):
        return None
    names = sorted(named)
    return _Entity(serialize_entity_key_prefix(names, KEY_VERSION), tuple(named[name] for name in names))


def _name(view: FeatureView, feature: str, full: bool) -> str:
    return f"{view.projection.name_to_use()}__{feature}" if full else feature


def _columns(entity_rows: Any) -> Columns | None:  # noqa: ANN401
    """The request by columns; None if they are not lists, all of one length, or have no row."""
    if type(entity_rows) is list:
        names = entity_rows[0].keys() if entity_rows and type(entity_rows[0]) is dict else ()
        if any(type(row) is not dict or row.keys() != names for row in entity_rows):
            return None
        return {name: [row[name] for row in entity_rows] for name in names}
    if type(entity_rows) is not dict or any(type(values) is not list for values in entity_rows.values()):
        return None
    return entity_rows if len(set(map(len, entity_rows.values()))) == 1 and all(entity_rows.values()) else None


def _measured() -> bool:
    """Whether Feast's server counts what is read."""
    metrics = sys.modules.get("feast.metrics")
    return metrics is not None and bool(metrics._config.online_features)  # noqa: SLF001


def _number(code: int, form: str) -> Callable[[int], bytes]:
    packed = Struct(f"<II{form}")
    size = packed.size - 8
    return lambda value: packed.pack(code, size, value)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return TEXT.pack(Code.STRING, len(encoded)) + encoded


TEXT = Struct("<II")
KINDS = {
    ValueType.INT64: _Kind("int64_val", int, _number(Code.INT64, "q")),
    ValueType.INT32: _Kind("int32_val", int, _number(Code.INT32, "i")),
    ValueType.STRING: _Kind("string_val", str, _text),
}
SEEN = {int: KINDS[ValueType.INT64], str: KINDS[ValueType.STRING]}
"""Python type → what Feast takes it for where nothing is declared."""
