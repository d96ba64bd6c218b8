"""table → where it came from, and where it went: back to object, query or answers, forward to tables and releases.

Manifests alone are read, unless a row is asked for. An input is named by the md5 it was read with: where its table has
other bytes by now that is said, and the walk goes on in the last release that still has the old ones.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.lineage.history import Past, Tables, UnknownPlaceError, spoken
from headrace.lineage.row_lookup import Found
from headrace.storage.manifest import Entry, Manifest

ORIGINS = ("object", "query")
"""Facts of a raw partition that say where it came from."""


@dataclass(frozen=True)
class Node:
    """A partition with the bytes that were read, and what it was computed from in turn.

    Attributes:
        table: The table.
        partition: The partition.
        md5: Its bytes, as the one who read them says.
        standing: `as read`, or since then `changed` or `gone`.
        release: The release that lent the entry, where the table has other bytes by now.
        entry: What the manifest says; None if no release has these bytes.
        maker: The table whose computation made it, for one that is made beside another.
        inputs: What it was computed from.
    """

    table: str
    partition: str
    md5: str
    standing: str
    release: str | None
    entry: Entry | None
    maker: str | None = None
    inputs: tuple["Node", ...] = ()

    @property
    def id(self) -> str:
        """A name for these bytes in this place."""
        return f"{self.table}/{self.partition}@{self.md5}"

    @property
    def origin(self) -> dict[str, Any]:
        """Where it came from: the object, the query, or the answers of people. Nothing for what was computed."""
        facts = self.entry.facts if self.entry else {}
        if self.table.startswith("annotations/"):
            return {"answers": dict(facts)}
        return {name: facts[name] for name in ORIGINS if name in facts}

    def walk(self) -> Iterator["Node"]:
        """This node and all it came from, each once, inputs after what was made of them."""
        seen: set[str] = set()
        waiting = [self]
        while waiting:
            node = waiting.pop(0)
            if node.id not in seen:
                seen.add(node.id)
                waiting.extend(node.inputs)
                yield node

    def to_dict(self) -> dict[str, Any]:
        """For machines; inputs by their ids."""
        entry = self.entry
        known = {"size": entry.size, "rows": entry.rows, "facts": dict(entry.facts)} if entry else {}
        place = {"id": self.id, "table": self.table, "partition": self.partition, "md5": self.md5}
        state = {"standing": self.standing, "release": self.release, "made_beside": self.maker}
        return place | state | known | {"origin": self.origin, "inputs": [node.id for node in self.inputs]}


@dataclass(frozen=True)
class Lineage:
    """Where one partition came from and where it went.

    Attributes:
        tables: The tables it was looked for in.
        node: The partition, and all it came from.
        recipe: The manifest it stands in, less its partitions: code, parameters and libraries.
        releases: The releases that hold exactly these bytes, oldest first.
        used_by: Table → partitions computed from these bytes, at once or by way of others.
        found: The row that was asked for.
    """

    tables: Tables
    node: Node
    recipe: Manifest
    releases: Sequence[str]
    used_by: Mapping[str, Sequence[str]]
    found: Found | None = None

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        recipe = {name: dict(getattr(self.recipe, name)) for name in ("code", "params", "libraries")}
        row = {"rows": self.found.rows, "annotations": self.found.annotations} if self.found else {}
        return {
            "dataset": self.tables.dataset,
            "revision": self.tables.revision,
            "commit": self.tables.commit,
            "id": self.node.id,
            "nodes": [node.to_dict() for node in self.node.walk()],
            "recipe": recipe,
            "releases": list(self.releases),
            "used_by": {table: list(names) for table, names in self.used_by.items()},
            **row,
        }


def lineage(tables: Tables, given: str, partition: str | None = None, row: Mapping[str, str] | None = None) -> Lineage:
    """Where a partition came from, and where it went.

    Args:
        tables: The workspace's tables, or those of a revision.
        given: The table, as `Tables.table` takes it.
        partition: The partition; None if the row tells, or if there is only one.
        row: Column → value, as text, of the row that is asked for.

    Raises:
        UnknownPlaceError: There is no such table or partition.
        UnknownRowError: There is no such row, or in more than one partition.
        MissingObjectError: A manifest, or the bytes that hold the row, are nowhere.
    """
    table, past = tables.table(given), Past(tables.lake, tables.dataset)
    manifest = tables.manifest(table)
    if partition is not None or not row:
        partition = _partition(tables, past, table, partition)
    found = Found.of(tables.lake.cache, manifest, partition, row) if row else None
    partition = found.partition if found else str(partition)
    node = Walk(tables, past).node(table, partition, manifest.partitions[partition].md5)
    if found:
        answers = [item.md5 for item in node.walk() if item.table.startswith("annotations/")]
        found = found.with_annotations(tables.lake.cache, answers)
    held = list(past.holding(table, partition, node.md5))[::-1]
    return Lineage(tables, node, manifest.with_partitions({}), held, used_by(tables, node), found)


@dataclass(frozen=True)
class Walk:
    """The way back, each place looked at once."""

    tables: Tables
    past: Past
    _known: dict[tuple[str, str, str], Node] = field(default_factory=dict, repr=False, compare=False)

    def node(self, table: str, partition: str, md5: str) -> Node:
        """The bytes `md5` of a partition, and all they came from."""
        place = (table, partition, md5)
        if place not in self._known:
            self._known[place] = self._node(*place)
        return self._known[place]

    def _node(self, table: str, partition: str, md5: str) -> Node:
        now = self.tables.manifest(table).partitions.get(partition)
        if now and now.md5 == md5:
            return self._made(Node(table, partition, md5, "as read", None, now), self.tables)
        standing = "changed" if now else "gone"
        release = next(self.past.holding(table, partition, md5), None)
        if release is None:
            return Node(table, partition, md5, standing, None, None)
        then = Tables(self.tables.lake, self.tables.dataset, release)
        entry = then.manifest(table).partitions[partition]
        return self._made(Node(table, partition, md5, standing, release, entry), then)

    def _made(self, node: Node, tables: Tables) -> Node:
        """`node` with what it was computed from, as `tables` have it."""
        maker, inputs = None, node.entry.inputs if node.entry else {}
        if not inputs and not node.origin:
            maker, inputs = _maker(node, tables)
        nodes = [self.node(table, name, md5) for table in sorted(inputs) for name, md5 in sorted(inputs[table].items())]
        return replace(node, maker=maker, inputs=tuple(nodes))


def _maker(node: Node, tables: Tables) -> tuple[str | None, Mapping[str, Mapping[str, str]]]:
    """The table whose computation made `node` beside its own partition, and what it read."""
    for table in tables.names:
        entry = tables.manifest(table).partitions.get(node.partition)
        if entry and node.table in entry.beside and entry.beside[node.table].md5 == node.md5:
            return table, entry.inputs
    return None, {}


def used_by(tables: Tables, node: Node) -> dict[str, tuple[str, ...]]:
    """Table → partitions that were computed from the bytes of `node`, at once or by way of others."""
    readers = _readers(tables)
    reached: dict[tuple[str, str], str] = {}
    waiting = [(node.table, node.partition, node.md5)]
    while waiting:
        for table, partition, md5 in readers.get(waiting.pop(), ()):
            if (table, partition) not in reached:
                reached[table, partition] = md5
                waiting.append((table, partition, md5))
    found: dict[str, list[str]] = defaultdict(list)
    for table, partition in sorted(reached):
        found[table].append(partition)
    return {table: tuple(names) for table, names in found.items()}


def _readers(tables: Tables) -> dict[tuple[str, str, str], list[tuple[str, str, str]]]:
    """Table, partition and md5 of everything that was read → those of what was made of it."""
    readers: dict[tuple[str, str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for table in tables.names:
        for partition, entry in tables.manifest(table).partitions.items():
            made = [(table, partition, entry.md5)]
            made += [(other, partition, more.md5) for other, more in entry.beside.items()]
            for read, names in entry.inputs.items():
                for name, md5 in names.items():
                    readers[read, name, md5].extend(made)
    return readers


def _partition(tables: Tables, past: Past, table: str, partition: str | None) -> str:
    """`partition`, or the only one there is.

    Raises:
        UnknownPlaceError: There is none of that name, or no name was given and there are several.
    """
    there = sorted(tables.manifest(table).partitions)
    if partition is None and len(there) == 1:
        return there[0]
    if partition in there:
        return str(partition)
    where = f"{tables.where}: {table} has {spoken(there, 'no partition')}"
    if partition is None:
        raise UnknownPlaceError(f"{where}. Say which with `--partition`, or name a row with `--row column=value`.")
    once = next(past.holding(table, partition), None)
    hint = f" It is in {once}: add `--revision {once}`." if once else " No release that was fetched has it either."
    raise UnknownPlaceError(f"{where}; {partition} is not among them.{hint}")
