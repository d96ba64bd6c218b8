"""What the online store keeps → Feast's answer, without an object for each value on the way.

A value is kept as the bytes of its message. A column of an answer is these messages, each behind its length, then the
statuses, then the event times: it is put together as bytes, and the whole answer is parsed at once.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.type_map import feast_value_type_to_python_type as to_python
from feast.value_type import ValueType

MESSAGE = GetOnlineFeaturesResponse
SHORT = 0x80
"""Sizes below this are one byte; every byte but the last of a larger one has this bit."""

PLAIN = frozenset(("double_val", "float_val", "int64_val", "int32_val", "string_val", "bool_val"))
"""Fields of a value's message that hold what Python code gets to see, as it is."""

PLAIN_TYPES = frozenset(
    (
        None,
        ValueType.DOUBLE,
        ValueType.FLOAT,
        ValueType.INT64,
        ValueType.INT32,
        ValueType.STRING,
        ValueType.BOOL,
    )
)


class Block(NamedTuple):
    """What a view holds of the keys that were asked for, in their order.

    Attributes:
        times: Event time of each key, as bytes of its message; empty where there is none.
        columns: Of each feature, the bytes of each key's value; None where it is not found.
    """

    times: Sequence[bytes]
    columns: Sequence[Sequence[bytes | None]]


class FastOnlineResponse(OnlineResponse):
    """Feast's response; plain values are read without asking of each what else it might be."""

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, list[Any]]:
        """As Feast's."""
        types = self._feature_types
        names = self.proto.metadata.feature_names.val
        if include_event_timestamps or any(types.get(name) not in PLAIN_TYPES for name in names):
            return dict(super().to_dict(include_event_timestamps))
        return {
            name: [
                getattr(value, field) if (field := value.WhichOneof("val")) in PLAIN else to_python(value)
                for value in vector.values
            ]
            for name, vector in zip(names, self.proto.results, strict=True)
        }


def encode_header(names: Sequence[str]) -> bytes:
    """The first bytes of a response: the names of its columns."""
    made = MESSAGE()
    made.metadata.feature_names.val.extend(names)
    found: bytes = made.SerializeToString()
    return found


def encode_key_column(cells: Sequence[bytes]) -> bytes:
    """The column of a join key, from the request: every value is present, without a time."""
    return _column(cells, _repeated(TIMES, [b""] * len(cells)))


def encode_view_columns(block: Block) -> bytes:
    """The feature columns of a view."""
    times = _repeated(TIMES, block.times)
    return b"".join([_column(cells, times) for cells in block.columns])


def build_response(parts: Sequence[bytes], types: dict[str, ValueType]) -> FastOnlineResponse:
    """Parse the bytes of a response: the header, then the columns in the order of the names."""
    return FastOnlineResponse(MESSAGE.FromString(b"".join(parts)), types)


def _column(cells: Sequence[bytes | None], times: bytes) -> bytes:
    statuses = PRESENT * len(cells)
    there: Sequence[Any] = cells
    if None in cells:
        statuses = b"".join([NOT_FOUND if cell is None else PRESENT for cell in cells])
        there = [cell or b"" for cell in cells]
    body = b"".join((_repeated(VALUES, there), STATUSES, _size(len(statuses)), statuses, times))
    return RESULTS + _size(len(body)) + body


def _repeated(tag: bytes, messages: Sequence[bytes]) -> bytes:
    """The messages of a field. Numbers of one type, and times, are mostly of one size."""
    sizes = set(map(len, messages))
    if len(sizes) == 1:
        start = _before(tag, sizes.pop())
        return start + start.join(messages)
    return b"".join([_before(tag, len(message)) + message for message in messages])


def _tag(message: Any, field: str) -> bytes:  # noqa: ANN401  protobuf's
    """Protobuf's tag of a field of bytes: its number, and that a size follows."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | 2])


@lru_cache(1024)
def _before(tag: bytes, size: int) -> bytes:
    return tag + _size(size)


def _size(number: int) -> bytes:
    """Protobuf's bytes of the number: seven bits each, the lowest first."""
    made = bytearray()
    while number >= SHORT:
        made.append(number % SHORT + SHORT)
        number //= SHORT
    made.append(number)
    return bytes(made)


RESULTS = _tag(MESSAGE, "results")
VALUES, STATUSES, TIMES = (_tag(MESSAGE.FeatureVector, name) for name in ("values", "statuses", "event_timestamps"))
PRESENT, NOT_FOUND = (bytes([status]) for status in (FieldStatus.PRESENT, FieldStatus.NOT_FOUND))
