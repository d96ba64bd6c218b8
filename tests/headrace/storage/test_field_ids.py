"""Field ids: a column has one id in all files of a table, whatever columns come and go, and no other has it."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.compute import store_partition
from headrace.storage import field_ids, parquet
from headrace.storage.dvc.cache import Cache
from headrace.storage.field_ids import MAX_FIELD_ID, assign_field_ids, schema_hash
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

TABLE = "validated/tiny/sales"


def ids_of(frame: pl.DataFrame, tmp_path: Path) -> dict[str, int]:
    """Column → id, as pyarrow reads it from the file."""
    path = tmp_path / "part.parquet"
    path.write_bytes(parquet.encode_partition(frame).content)
    return {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in pq.read_schema(path)}


def test_a_column_keeps_its_id_when_others_come_and_go_and_when_it_comes_back(tmp_path: Path) -> None:
    first = ids_of(pl.DataFrame({"a": [1], "b": [1], "c": [1]}), tmp_path)
    without = ids_of(pl.DataFrame({"c": [1], "d": [1]}), tmp_path)
    again = ids_of(pl.DataFrame({"b": [1.5], "d": [1], "a": ["x"]}), tmp_path)

    assert without["c"] == first["c"]
    assert without["d"] not in first.values()
    assert (again["a"], again["b"], again["d"]) == (first["a"], first["b"], without["d"])


def test_nested_columns_have_ids_on_every_level(tmp_path: Path) -> None:
    nested = pl.List(pl.Struct({"x": pl.Int64, "y": pl.List(pl.String)}))
    path = tmp_path / "part.parquet"
    path.write_bytes(parquet.encode_partition(pl.DataFrame({"n": pl.Series([None], dtype=nested)})).content)

    (field,) = parquet.read_schema(path)

    (element,) = field.fields
    x, y = element.fields
    (item,) = y.fields
    assert [each.name for each in (field, element, x, y, item)] == ["n", "element", "x", "y", "element"]
    assert [each.type for each in (field, element, x, y, item)] == ["list", "struct", "int64", "list", "string"]
    assert len({each.id for each in (field, element, x, y, item)} - {0}) == 5


def test_a_struct_with_a_field_and_a_column_with_a_dot_in_its_name_have_other_ids() -> None:
    ids = assign_field_ids([("a",), ("a", "b"), ("a.b",)])

    assert len(set(ids.values())) == 3


@given(st.sets(st.lists(st.text(), min_size=1, max_size=3).map(tuple), max_size=30))
def test_ids_are_valid_for_iceberg_and_differ(paths: set[tuple[str, ...]]) -> None:
    ids = assign_field_ids(list(paths))

    assert len(set(ids.values())) == len(paths)
    assert all(1 <= number <= MAX_FIELD_ID for number in ids.values())


def test_two_columns_with_one_hash_have_other_ids_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_ids, "_hash_path", lambda _path: MAX_FIELD_ID)

    assert assign_field_ids([("b",), ("a",)]) == {("a",): MAX_FIELD_ID, ("b",): 1}


def test_ids_never_change() -> None:
    """They are in the Parquet files of every release."""
    assert assign_field_ids([("carrier",), ("event_time",)]) == {("carrier",): 1110359990, ("event_time",): 1510586401}


def test_other_readers_see_the_rows_and_types_as_before(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, None], "s": ["x", "y"], "l": [[1], []], "n": [{"x": 1}, {"x": None}]})
    path = tmp_path / "part.parquet"
    path.write_bytes(parquet.encode_partition(frame).content)

    assert pl.read_parquet(path).equals(frame)
    assert pq.read_table(path).schema.equals(pa.Table.from_pylist(frame.to_dicts()).schema)


def test_a_manifest_has_the_schema_of_every_partition(tmp_path: Path) -> None:
    table_store = TableStore(tmp_path, Cache(tmp_path / "cache", tmp_path))
    one, two = pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [1], "b": ["x"]})
    frames = {"2013-01-01": one, "2013-01-02": two}
    table_store.checkout(
        Manifest(TABLE, partitions={name: stored(table_store, name, frame) for name, frame in frames.items()})
    )

    manifest = table_store.manifest(TABLE)

    entries = manifest.partitions.items()
    columns = {name: [field.name for field in manifest.schemas[entry.schema or ""]] for name, entry in entries}
    assert columns == {"2013-01-01": ["a"], "2013-01-02": ["a", "b"]}
    assert all(schema_hash(schema) == name for name, schema in manifest.schemas.items())
    table_store.checkout(manifest.with_partitions(manifest.entries.select(["2013-01-02"])))
    assert len(table_store.manifest(TABLE).schemas) == 1


def stored(table_store: TableStore, name: str, frame: pl.DataFrame) -> PartitionEntry:
    return store_partition(table_store.cache, frame, name, "key")
