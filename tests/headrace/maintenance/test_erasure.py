"""Erasure: what is deleted in the source, pruned and collected is in no object, no commit and no workspace any more."""

import io
from dataclasses import replace
from pathlib import Path

import polars as pl
from release_clones import Clone, Origin, dataset
from servers import S3

from headrace.dataset import Retention
from headrace.maintenance.gc import collect_garbage
from headrace.maintenance.prune import prune
from headrace.settings import Settings

FLIGHTS = dataset("flights")
LAST_ONLY = replace(FLIGHTS, retention=Retention(keep_last=1))
CANARY = 987654321012345
"""A value that one row has, and nothing else."""


def test_a_row_that_is_deleted_pruned_and_collected_is_nowhere(tmp_path: Path, s3: S3) -> None:
    origin = Origin.begin(tmp_path, s3)
    place, other = origin.first, origin.clone("other")
    place.release(FLIGHTS, CANARY)
    other.git("pull", "--quiet")
    assert len(holders(place)) > 2, "raw, validated and features hold it"

    place.release(FLIGHTS, 1)
    prune(LAST_ONLY, place.table_store, Settings(workspace=place.root), dry_run=False)
    # Until the source is listed again, the release that it was last listed after counts as referenced.
    place.run(FLIGHTS, {1: 1})
    other.git("pull", "--quiet", "--rebase")
    for clone in (place, other):
        collect_garbage(clone.table_store, min_age_hours=0, remote=True, dry_run=False)

    assert holders(place) == holders(other) == []
    assert "flights/1" not in origin.tags()
    other.release(FLIGHTS, 2)
    assert holders(other) == []


def holders(clone: Clone) -> list[str]:
    """The objects, the files of the clone, and the history of git, that hold the value."""
    bucket = clone.table_store.cache.remote.bucket
    contents = {found.key: bucket.read(found) for found in bucket.list("")}
    contents |= {str(path): path.read_bytes() for path in clone.root.rglob("*") if path.is_file()}
    contents["git"] = clone.git("log", "--all", "--patch", "--text").encode()
    return sorted(name for name, content in contents.items() if holds_value(content))


def holds_value(content: bytes) -> bool:
    if not content.startswith(b"PAR1"):
        return str(CANARY).encode() in content
    columns = pl.read_parquet(io.BytesIO(content)).get_columns()
    return any(CANARY in column.to_list() for column in columns)
