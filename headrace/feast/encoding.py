"""Rows → the bytes that Feast keeps online, a column at a time: entity keys and value messages.

They are the bytes of `serialize_entity_key` and `Value.SerializeToString`, without an object for each value.
"""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key_prefix
from feast.protos.feast.types.Value_pb2 import Value
from numpy.typing import NDArray

from headrace.dataset import EVENT_TIME, FeatureTable
from headrace.feast.definitions import key_type
from headrace.feast.types import KEY, STAMP, kind_of

KEY_VERSION = 3
PACKED = {"double_val": "<f8", "float_val": "<f4"}
KEY_PACKED = {"int64_val": "<i8", "int32_val": "<i4"}
LONGEST_VARINT = 10


def encode(rows: pl.DataFrame, table: FeatureTable) -> pl.DataFrame:
    """`KEY`, `STAMP` and the features as bytes, one row for each row."""
    stamp = rows[EVENT_TIME].to_physical().alias(STAMP)
    features = [values(rows[name], kind_of(name, dtype).field) for name, dtype in table.features.items()]
    return pl.DataFrame([keys(rows, table), stamp, *features])


def keys(rows: pl.DataFrame, table: FeatureTable) -> pl.Series:
    """Feast's bytes of each row's join keys."""
    parts: list[Any] = []
    for name in sorted(table.keys):
        field = kind_of(name, key_type(table, name)).field
        blank: dict[str, Any] = {field: "" if field == "string_val" else 0}
        code = Value(**blank)
        body = _binary(rows[name]) if field == "string_val" else _fixed(rows[name], KEY_PACKED[field])
        size = pa.array(pc.binary_length(body).to_numpy(zero_copy_only=False).astype("<u4"))
        parts += [_kind_of_value(code), _bytes_of(size), body]
    prefix = serialize_entity_key_prefix(list(table.keys), KEY_VERSION)
    return _series(KEY, _joined([prefix, *parts]))


def key_size(table: FeatureTable) -> int | None:
    """Bytes of each key, where all have the same: none of its parts is a text."""
    kinds = {name: key_type(table, name) for name in table.keys}
    if pl.String() in kinds.values():
        return None
    some = pl.DataFrame({name: pl.Series([0], dtype=kind) for name, kind in kinds.items()})
    return len(keys(some, table)[0])


def values(column: pl.Series, field: str) -> pl.Series:
    """Feast's bytes of each value; a null is the empty message."""
    tag = bytes([_tag(field)])
    if field in PACKED:
        body = _joined([tag, _fixed(column, PACKED[field])])
    elif field == "string_val":
        text = _binary(column)
        size = pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
        body = _joined([tag, _varints(size), text])
    else:
        body = _joined([tag, _varints(column.fill_null(0).cast(pl.Int64).to_numpy())])
    found = _series(column.name, body)
    return pl.select(pl.when(column.is_null()).then(pl.lit(b"")).otherwise(found).alias(column.name)).to_series()


def cut(keys: bytes, sizes: NDArray[np.int64]) -> pl.Series:
    """The keys that lie one after the other in some bytes, each of its size."""
    ends = np.concatenate(([0], np.cumsum(sizes)))
    return _series(KEY, pa.Array.from_buffers(pa.large_binary(), len(sizes), _buffers(ends, keys)))


def plain_key(key: bytes) -> dict[str, Any]:
    """Join key → value, as Feast reads them."""
    found = deserialize_entity_key(key, KEY_VERSION)
    return {name: _plain(value) for name, value in zip(found.join_keys, found.entity_values, strict=True)}


def plain_value(value: bytes | None) -> object:
    """The value, as Feast reads it."""
    return None if value is None else _plain(Value.FromString(value))


def _plain(value: Value) -> Any:  # noqa: ANN401  whatever the message holds
    field = value.WhichOneof("val")
    return None if field is None else getattr(value, field)


def _tag(field: str) -> int:
    """The byte that says which field of the message follows: its number and how it is written."""
    some: dict[str, Any] = {field: "a" if field == "string_val" else 1}
    found: bytes = Value(**some).SerializeToString()
    return found[0]


def _kind_of_value(value: Value) -> bytes:
    """The four bytes that say of which type a join key is."""
    from feast.infra.key_encoding_utils import _serialize_val  # noqa: PLC0415  Feast's table of types is in there

    return int(_serialize_val(value.WhichOneof("val"), value, KEY_VERSION)[1]).to_bytes(4, "little")


def _series(name: str, body: Any) -> pl.Series:  # noqa: ANN401  an Arrow array
    return pl.Series(name, body, dtype=pl.Binary)


def _joined(parts: list[Any]) -> Any:  # noqa: ANN401
    scalars = [pa.scalar(part, pa.large_binary()) if isinstance(part, bytes) else part for part in parts]
    return pc.binary_join_element_wise(*scalars, pa.scalar(b"", pa.large_binary()))


def _binary(column: pl.Series) -> Any:  # noqa: ANN401
    return column.cast(pl.Binary).to_arrow().cast(pa.large_binary())


def _fixed(column: pl.Series, dtype: str) -> Any:  # noqa: ANN401
    return _bytes_of(pa.array(column.fill_null(0).to_numpy().astype(dtype)))


def _bytes_of(numbers: Any) -> Any:  # noqa: ANN401
    """Each number's own bytes."""
    width = numbers.type.bit_width // 8
    start, size = numbers.offset * width, len(numbers) * width
    buffer = numbers.buffers()[1].slice(start, size) if size else pa.py_buffer(b"")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(numbers), [None, buffer]).cast(pa.large_binary())


def _varints(numbers: NDArray[np.int64]) -> Any:  # noqa: ANN401
    """Protobuf's variable-length bytes of each number: seven bits a byte, the lowest first."""
    rest = numbers.astype(np.int64).view(np.uint64)
    groups = np.empty((len(rest), LONGEST_VARINT), np.uint8)
    length = np.ones(len(rest), np.int64)
    for place in range(LONGEST_VARINT):
        groups[:, place] = rest & np.uint64(0x7F)
        rest = rest >> np.uint64(7)
        more = rest > 0
        groups[more, place] |= np.uint8(0x80)
        length += more
    used = np.arange(LONGEST_VARINT) < length[:, None]
    ends = np.concatenate(([0], np.cumsum(length)))
    return pa.Array.from_buffers(pa.large_binary(), len(rest), _buffers(ends, groups[used].tobytes()))


def _buffers(ends: NDArray[np.int64], body: bytes) -> list[Any]:
    """What Arrow keeps of values without nulls that lie one after the other."""
    return [None, pa.py_buffer(ends.astype(np.int64).tobytes()), pa.py_buffer(body)]
