"""The object, and the row in it, that a validated row was read from: its partition is validated once more."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.engine.fingerprint import stage_fingerprint
from headrace.engine.plan import partition_cache_key
from headrace.engine.stage import own_params
from headrace.project import graph
from headrace.project.loading import load_dataset
from headrace.storage.partition_entry import SourceObject
from headrace.storage.partition_names import partition_of
from headrace.storage.table_store import TableStore
from headrace.validate.validate_objects import validate_entries

if TYPE_CHECKING:
    from headrace.lineage.lineage import LineageNode


def find_origins(
    table_store: TableStore, dataset: str, node: "LineageNode", rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Bucket, key and row number of what each row was read from; none if that is not known.

    It is known of sources that are objects, where the clone has the code, parameters and libraries that validated them.

    Args:
        table_store: The workspace's tables.
        dataset: Name of the dataset.
        node: A partition of a validated table, with what it was computed from.
        rows: Rows of it.

    Raises:
        MissingObjectError: An object is neither in the cache nor on the remote.
    """
    declared = load_dataset(dataset)
    stages = {stage.table: stage for stage in graph.dataset_stages(declared) if stage.verb == "validate"}
    source = next((each for each in declared.sources if node.table == f"validated/{dataset}/{each.name}"), None)
    objects = {item.partition: (item, item.entry.objects[0]) for item in _own_objects(node) if item.entry}
    if source is None or node.entry is None or not objects:
        return []
    fingerprint = stage_fingerprint(stages[node.table], table_store.root)
    if partition_cache_key(fingerprint.key, node.partition, node.entry.inputs) != node.entry.cache_key:
        return []
    files = {name: table_store.cache.fetch(item.md5, found.sha256) for name, (item, found) in objects.items()}
    keys = {name: found.key for name, (_, found) in objects.items()}
    source = source.with_params(own_params(fingerprint.params))
    result = validate_entries(source, node.partition, files, keys)
    by_key: dict[str, SourceObject] = {found.key: found for _, found in objects.values()}
    only = next(iter(by_key))
    origins = []
    for row in rows:
        types = result.accepted.schema
        same = [pl.col(name).eq_missing(pl.lit(row[name], types[name])) for name in source.key]
        for key, number in result.origins(result.accepted.select(pl.all_horizontal(same)).to_series()):
            found = by_key[key or only]
            origins.append({"bucket": found.bucket, "key": found.key, "row": number})
    return origins


def _own_objects(node: "LineageNode") -> Iterator["LineageNode"]:
    """The entries of the raw partition, without those of other partitions that were read for their keys."""
    own = (item for item in node.inputs if partition_of(item.partition) == node.partition)
    return (item for item in own if item.entry and item.entry.objects)
