"""Traces a partition back to its objects, queries and annotations, and forward to the tables and releases that use it.

Only manifests are read, unless a row is asked for. An input is identified by the md5 it was read with. If its table
has other bytes by now, the trace continues in the newest release that still has the old ones.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import to_builtins

from headrace.lineage.history import DatasetRevision, ReleaseHistory, UnknownTableError, format_names
from headrace.lineage.row_lookup import RowMatch
from headrace.release.branches import list_releases
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import partition_of
from headrace.storage.released_inputs import ReleasedInput
from headrace.storage.s3.objects import object_address

QUERY = "query"
"""Metadata of a raw partition that identifies its source."""

CURRENT, CHANGED, REMOVED = "current", "changed", "removed"
RELEASED = "released"
"""Status of a partition of another dataset, which is read at a release."""


@dataclass(frozen=True)
class LineageNode:
    """A partition with the bytes that were read, and the partitions it was computed from.

    Attributes:
        table: The table.
        partition: The partition; of several objects, the entry of one.
        md5: Hash of the bytes that were read.
        status: `current`, or `changed` or `removed` in its table since it was read; `released` where another dataset
            reads it at a release.
        release: The release that the entry was taken from, if the status is not `current`.
        entry: The manifest entry; None if no release has these bytes.
        producer: For a side output, the table whose computation wrote it.
        inputs: What it was computed from.
    """

    table: str
    partition: str
    md5: str
    status: str
    release: str | None
    entry: PartitionEntry | None
    producer: str | None = None
    inputs: tuple["LineageNode", ...] = ()

    @property
    def id(self) -> str:
        """Identifies these bytes of this partition."""
        return f"{self.table}/{self.partition}@{self.md5}"

    @property
    def source(self) -> dict[str, Any]:
        """Where the bytes entered the dataset: objects, query or annotations. Empty for what was computed."""
        if self.entry is None:
            return {}
        metadata = self.entry.metadata
        if self.table.startswith("annotations/"):
            return {"annotations": dict(metadata)}
        if self.entry.objects:
            return {"objects": [to_builtins(item) for item in self.entry.objects]}
        return {QUERY: metadata[QUERY]} if QUERY in metadata else {}

    def walk(self) -> Iterator["LineageNode"]:
        """This node and all that it was computed from, breadth first, each once."""
        visited: set[str] = set()
        queue = [self]
        while queue:
            node = queue.pop(0)
            if node.id not in visited:
                visited.add(node.id)
                queue.extend(node.inputs)
                yield node

    def to_dict(self) -> dict[str, Any]:
        """The node as JSON, with its inputs by their ids."""
        key = {"id": self.id, "table": self.table, "partition": self.partition, "md5": self.md5}
        state = {"status": self.status, "release": self.release, "producer": self.producer}
        entry = self.entry
        content = {"size": entry.size, "rows": entry.rows, "metadata": dict(entry.metadata)} if entry else {}
        return key | state | content | {"source": self.source, "inputs": [node.id for node in self.inputs]}


@dataclass(frozen=True)
class PartitionLineage:
    """Where one partition came from, and where it went.

    Attributes:
        tables: The tables that the partition was looked up in.
        node: The partition, and all that it was computed from.
        fingerprint: The table's manifest without its partitions: code, parameters, libraries and result version.
        releases: The releases that contain exactly these bytes, oldest first.
        used_by: Table → partitions computed from these bytes, directly or through other tables.
        row_match: The row that was asked for.
    """

    tables: DatasetRevision
    node: LineageNode
    fingerprint: Manifest
    releases: Sequence[str]
    used_by: Mapping[str, Sequence[str]]
    row_match: RowMatch | None = None

    def to_dict(self) -> dict[str, Any]:
        """The lineage as JSON."""
        fingerprint = {name: dict(getattr(self.fingerprint, name)) for name in ("code", "params", "libraries")}
        match = self.row_match
        return {
            "dataset": self.tables.dataset,
            "revision": self.tables.revision,
            "commit": self.tables.commit,
            "id": self.node.id,
            "nodes": [node.to_dict() for node in self.node.walk()],
            "fingerprint": fingerprint | {"result_version": self.fingerprint.result_version},
            "releases": list(self.releases),
            "used_by": {table: list(names) for table, names in self.used_by.items()},
            **({"rows": match.rows, "annotations": match.annotations} if match else {}),
            **({"origins": match.origins} if match and match.origins else {}),
        }


def trace_lineage(
    tables: DatasetRevision,
    table_name: str,
    partition: str | None = None,
    row: Mapping[str, str] | None = None,
    object_key: str | None = None,
) -> PartitionLineage:
    """Trace a partition, the partition of a row, or an object, in both directions.

    Args:
        tables: The tables of the workspace or of a revision.
        table_name: The table, as `DatasetRevision.resolve_table` takes it.
        partition: The partition; None if the row identifies it, or if there is only one.
        row: Column → value, as text, of the row that is asked for.
        object_key: Key of the object of a raw table that is asked for.

    Raises:
        UnknownTableError: There is no such table, partition or object.
        UnknownRowError: There is no such row, or several partitions have one.
        MissingObjectError: A manifest, or the bytes of the row, are neither in the cache nor on the remote.
    """
    table, history = tables.resolve_table(table_name), ReleaseHistory(tables.table_store, tables.dataset)
    manifest = tables.manifest(table)
    if object_key is not None:
        partition = _find_object(tables, table, object_key)
    elif partition is not None or not row:
        partition = _resolve_partition(tables, history, table, partition)
    match = RowMatch.find(tables.table_store.cache, manifest, partition, row) if row else None
    partition = match.partition if match else str(partition)

    node = LineageBuilder(tables, history).node(table, partition, manifest.partitions[partition].md5)
    if match:
        annotation_md5s = [item.md5 for item in node.walk() if item.table.startswith("annotations/")]
        match = match.with_annotations(tables.table_store.cache, annotation_md5s)
        if table.startswith("validated/"):
            match = replace(match, origins=_find_origins(tables, node, match.rows))
    releases = list(history.releases_with(table, partition, node.md5))[::-1]
    return PartitionLineage(tables, node, manifest.with_partitions({}), releases, find_dependents(tables, node), match)


def _find_origins(
    tables: DatasetRevision, node: LineageNode, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    from headrace.lineage.row_origin import find_origins  # noqa: PLC0415  most lineages validate nothing

    own = [item for item in node.inputs if partition_of(item.partition) == node.partition]
    raw = {item.partition: item.entry for item in own if item.entry}
    if node.entry is None or len(raw) < len(own):
        return []
    return find_origins(tables.table_store, (node.table, node.partition), rows, validated=node.entry, raw=raw)


@dataclass(frozen=True)
class LineageBuilder:
    """Builds nodes backwards from a partition, each once."""

    tables: DatasetRevision
    history: ReleaseHistory
    _nodes: dict[tuple[str, str, str], LineageNode] = field(default_factory=dict, repr=False, compare=False)

    def node(self, table: str, partition: str, md5: str) -> LineageNode:
        """The partition with the bytes `md5`, with all that it was computed from."""
        key = (table, partition, md5)
        if key not in self._nodes:
            self._nodes[key] = self._build_node(*key)
        return self._nodes[key]

    def _build_node(self, table: str, partition: str, md5: str) -> LineageNode:
        current = self.tables.manifest(table).partitions.get(partition)
        if current and current.md5 == md5:
            return self._with_inputs(LineageNode(table, partition, md5, CURRENT, None, current), self.tables)
        status = CHANGED if current else REMOVED
        release = next(self.history.releases_with(table, partition, md5), None)
        if release is None:
            return LineageNode(table, partition, md5, status, None, None)
        released = DatasetRevision(self.tables.table_store, self.tables.dataset, release)
        entries = released.manifest(table).partitions
        names = [name for name in entries if partition_of(name) == partition_of(partition)]
        entry = next(entries[name] for name in names if entries[name].md5 == md5)
        return self._with_inputs(LineageNode(table, partition, md5, status, release, entry), released)

    def _with_inputs(self, node: LineageNode, tables: DatasetRevision) -> LineageNode:
        producer, inputs = None, node.entry.inputs if node.entry else {}
        if released := ReleasedInput.of_manifest(tables.manifest(node.table)):
            return replace(node, inputs=(self._released(released, node),))
        if not inputs and not node.source:
            producer, inputs = _find_producer(node, tables)
        nodes = [self.node(table, name, md5) for table in sorted(inputs) for name, md5 in sorted(inputs[table].items())]
        return replace(node, producer=producer, inputs=tuple(nodes))

    def _released(self, released: ReleasedInput, node: LineageNode) -> LineageNode:
        """The partition of another dataset that a raw one is, traced there."""
        dataset, store = released.table.split("/")[1], self.tables.table_store
        unknown = LineageNode(released.table, node.partition, node.md5, RELEASED, released.release, None)
        if released.release not in list_releases(store, dataset):
            return unknown
        other = LineageBuilder(DatasetRevision(store, dataset, released.release), ReleaseHistory(store, dataset))
        traced = other.node(released.table, node.partition, node.md5)
        return replace(traced, status=RELEASED, release=released.release) if traced.status == CURRENT else unknown


def _find_producer(node: LineageNode, tables: DatasetRevision) -> tuple[str | None, Mapping[str, Mapping[str, str]]]:
    """The table whose computation wrote `node` as a side output, and that computation's inputs.

    The entry of a side output (rejected rows) lists no inputs; the entry of the partition beside it does.
    """
    for table in tables.table_names:
        entry = tables.manifest(table).partitions.get(node.partition)
        if entry and node.table in entry.companions and entry.companions[node.table].md5 == node.md5:
            return table, entry.inputs
    return None, {}


def find_dependents(tables: DatasetRevision, node: LineageNode) -> dict[str, tuple[str, ...]]:
    """Table → partitions that were computed from the bytes of `node`, directly or through other tables."""
    readers = _index_readers(tables)
    reached: dict[tuple[str, str], str] = {}
    queue = [(node.table, node.partition, node.md5)]
    while queue:
        for table, partition, md5 in readers.get(queue.pop(), ()):
            if (table, partition) not in reached:
                reached[table, partition] = md5
                queue.append((table, partition, md5))
    dependents: dict[str, list[str]] = defaultdict(list)
    for table, partition in sorted(reached):
        dependents[table].append(partition)
    return {table: tuple(names) for table, names in dependents.items()}


def _index_readers(tables: DatasetRevision) -> dict[tuple[str, str, str], list[tuple[str, str, str]]]:
    """(table, partition, md5) of every input → those of the partitions and side outputs computed from it."""
    readers: dict[tuple[str, str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for table in tables.table_names:
        for partition, entry in tables.manifest(table).partitions.items():
            outputs = [(table, partition, entry.md5)]
            outputs += [(other, partition, side.md5) for other, side in entry.companions.items()]
            for input_table, names in entry.inputs.items():
                for name, md5 in names.items():
                    readers[input_table, name, md5].extend(outputs)
    return readers


def _resolve_partition(tables: DatasetRevision, history: ReleaseHistory, table: str, partition: str | None) -> str:
    """`partition`, or the only one that the table has.

    Raises:
        UnknownTableError: The table does not have it, it has several objects, or no name was given and there are
            several partitions.
    """
    entries = tables.manifest(table).partitions
    names = sorted(entries)
    if partition is None and len(names) == 1:
        return names[0]
    if partition in names:
        return str(partition)
    partitions = sorted({*map(partition_of, names)})
    chosen = partitions[0] if partition is None and len(partitions) == 1 else partition
    if objects := [name for name in names if partition_of(name) == chosen]:
        example = entries[objects[0]].objects[0].key
        raise UnknownTableError(
            f"{tables.label}: {table} {chosen} has {len(objects):,} objects. Choose one with `--object`, for example"
            f" `--object {example}`."
        )
    where = f"{tables.label}: {table} has {format_names(partitions, 'no partition')}"
    if partition is None:
        raise UnknownTableError(f"{where}. Choose one with `--partition`, or a row with `--row column=value`.")
    release = next(history.releases_with(table, partition), None)
    hint = f" {release} has it: add `--revision {release}`." if release else " No fetched release has it either."
    raise UnknownTableError(f"{where}; {partition} is not among them.{hint}")


def _find_object(tables: DatasetRevision, table: str, key: str) -> str:
    """The entry of a raw table that was read from the object, by its key or by the address that lineage prints.

    Raises:
        UnknownTableError: None was.
    """
    entries = tables.manifest(table).partitions
    for name, entry in entries.items():
        if any(key in (item.key, object_address(item.bucket, item.key)) for item in entry.objects):
            return name
    example = next((item.key for entry in entries.values() for item in entry.objects), "")
    such_as = f", such as {example}" if example else ""
    raise UnknownTableError(
        f"{tables.label}: expected the key of an object that {table} was read from{such_as}, found {key!a}, which"
        f" none of its {len(entries):,} objects has. `headrace lineage --table {table} --revision RELEASE` looks in a"
        " release."
    )
