"""Manifests: a line a partition, which says what it is made of, read back as it was written."""

import json

from headrace.storage.manifest import Entry, Manifest


def test_manifests_read_back_as_they_were_written() -> None:
    side = Entry("m", "s", 1, 1)
    entry = Entry("m", "a", 10, 2, {"raw/x": {"p": "q"}}, {"rows_in": 3}, {"rejected/x": side})
    manifest = Manifest("t", ".csv", {"f": "h"}, {"p": [1]}, {"polars": "1"}, 3, {"2026-01-01": entry})

    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert Manifest.from_bytes(Manifest("t").to_bytes()) == Manifest("t")


def test_a_manifest_is_a_line_a_partition_the_file_first_and_is_read_however_it_is_laid_out() -> None:
    entry = Entry("m", "a", 10, 2, {"raw/x": {"p": "q"}}, {"rows_in": 3})
    manifest = Manifest("t", ".csv", {"f": "h"}, {"p": [1]}, {"polars": "1"}, 3, {"2026-01-01": entry})
    other = b"""{"code": {"f": "h"}, "libraries": {"polars": "1"}, "params": {"p": [1]}, "result_version": 3,
 "suffix": ".csv", "table": "t",
 "partitions": {
"2026-01-01":{"facts": {"rows_in": 3}, "inputs": {"raw/x": {"p": "q"}}, "md5": "a", "memo": "m", "rows": 2, "size": 10}
}}
"""

    assert manifest.to_bytes().decode().splitlines()[-2] == (
        '"2026-01-01": {"rows":2,"size":10,"md5":"a","memo":"m","facts":{"rows_in":3},"inputs":{"raw/x":{"p":"q"}}}'
    )
    assert json.loads(manifest.to_bytes())["partitions"]["2026-01-01"]["inputs"] == entry.inputs
    assert Manifest.from_bytes(other) == manifest
    assert Manifest.from_bytes(other).to_bytes() == manifest.to_bytes()


def test_what_is_told_of_all_partitions_is_what_their_entries_say() -> None:
    entries = {"b": Entry("m1", "x", 10, 2, facts={"md5": "other", "size": 7}), "a": Entry("m2", "y", 20)}
    manifest = Manifest.from_bytes(Manifest("t", ".csv", partitions=entries).to_bytes())

    assert manifest.partitions == entries
    assert manifest.md5s == {"a": "y", "b": "x"}
    assert manifest.memos == {"a": "m2", "b": "m1"}
    assert (manifest.rows, manifest.sizes, manifest.objects) == (2, {"a": 20, "b": 10}, {"y": 20, "x": 10})
    assert manifest.files == {"a.csv": "y", "b.csv": "x"}
    assert manifest.plus({"a": entries["b"]}).memos == {"a": "m1", "b": "m1"}
