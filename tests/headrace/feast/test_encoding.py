"""Encoding promises the bytes of Feast's own functions, for every type and any value."""

from typing import Any

import feature_workspace
import polars as pl
import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from headrace.feast.encoding import keys, plain_key, plain_value, values
from headrace.feast.types import KINDS

ANY: dict[pl.DataType, st.SearchStrategy[Any]] = {
    pl.Float64(): st.floats(),
    pl.Float32(): st.floats(width=32),
    pl.Int64(): st.integers(-(2**63), 2**63 - 1),
    pl.Int32(): st.integers(-(2**31), 2**31 - 1),
    pl.String(): st.text(st.characters(codec="utf-8"), max_size=300),
    pl.Boolean(): st.booleans(),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(data=st.data())
def test_a_value_is_the_message_that_feast_would_write(kind: pl.DataType, data: st.DataObject) -> None:
    found = data.draw(st.lists(st.none() | ANY[kind], max_size=20))
    column, field = pl.Series("x", found, dtype=kind), KINDS[kind].field

    made = values(column, field).to_list()

    one_by_one = [Value(**({} if value is None else {field: value})) for value in column.to_list()]
    assert made == [value.SerializeToString() for value in one_by_one]
    assert [repr(plain_value(each)) for each in made] == [repr(value) for value in column.to_list()]


@given(rows=st.lists(st.tuples(ANY[pl.Int64()], ANY[pl.String()]), max_size=20))
def test_a_key_is_the_bytes_that_feast_would_look_for(rows: list[tuple[int, str]]) -> None:
    schema = {"carrier_id": pl.Int64(), "origin": pl.String()}
    frame = pl.DataFrame(rows, schema=schema, orient="row")

    made = keys(frame, feature_workspace.ROUTES).to_list()

    names = ["carrier_id", "origin"]
    whole = [(Value(int64_val=carrier), Value(string_val=origin)) for carrier, origin in rows]
    assert made == [serialize_entity_key(EntityKey(join_keys=names, entity_values=both), 3) for both in whole]
    assert [plain_key(key) for key in made] == frame.to_dicts()


def test_every_type_that_may_be_declared_is_tried() -> None:
    assert ANY.keys() == KINDS.keys()
