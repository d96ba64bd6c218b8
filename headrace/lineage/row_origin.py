"""The object, and the row in it, that a validated row was read from: its partition is validated once more."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from headrace.engine.fingerprint import stage_fingerprint
from headrace.engine.plan import partition_cache_key
from headrace.engine.stage import own_params
from headrace.project import graph
from headrace.project.loading import load_dataset
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore
from headrace.validate.history_columns import with_history_columns
from headrace.validate.validate_objects import validate_entries


def find_origins(
    table_store: TableStore,
    place: tuple[str, str],
    rows: Sequence[Mapping[str, Any]],
    *,
    validated: PartitionEntry,
    raw: Mapping[str, PartitionEntry],
) -> list[dict[str, Any]]:
    """Bucket, key and row number of what rows of a validated table were read from; none if that is not known.

    It is known of sources that are objects, where the clone has the code, parameters and libraries that validated them.

    Args:
        table_store: The workspace's tables.
        place: The validated table and the partition of the rows.
        rows: The rows.
        validated: Entry of the partition.
        raw: Entries of the raw partition.

    Raises:
        MissingObjectError: An object is neither in the cache nor on the remote.
    """
    table, partition = place
    _, dataset, name = table.split("/")
    declared = load_dataset(dataset)
    stage = next((each for each in graph.dataset_stages(declared) if each.table == table), None)
    objects = {entry: each.objects[0] for entry, each in raw.items() if each.objects}
    if stage is None or not objects:
        return []
    fingerprint = stage_fingerprint(stage, table_store.root)
    if partition_cache_key(fingerprint.key, partition, validated.inputs) != validated.cache_key:
        return []
    declared_source = next(each for each in declared.sources if each.name == name)
    source = with_history_columns(declared_source.with_params(own_params(fingerprint.params)))
    files = {entry: table_store.cache.fetch(each.md5, each.sha256) for entry, each in raw.items()}
    result = validate_entries(source, partition, files, {entry: found.key for entry, found in objects.items()})
    by_key = {found.key: found for found in objects.values()}
    only = next(iter(by_key))
    origins = []
    for row in rows:
        same = [pl.col(key).eq_missing(pl.lit(row[key], result.accepted.schema[key])) for key in source.key]
        for key, number in result.origins(result.accepted.select(pl.all_horizontal(same)).to_series()):
            found = by_key[key or only]
            origins.append({"bucket": found.bucket, "key": found.key, "row": number})
    return origins
