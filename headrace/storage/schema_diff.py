"""How the columns of a table differ between two versions of it, by field id."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.storage.manifest import Manifest
from headrace.storage.table_schema import LogicalColumn, arrow_type, is_wider, polars_type, table_schema


@dataclass(frozen=True)
class SchemaDiff:
    """Columns that came, went, got another name, or another type.

    Attributes:
        added: Column → type.
        removed: The same.
        changed: Column → its type before and after.
        renamed: Former name → name.
        widened: Those of `changed` whose values are all kept exactly.
    """

    added: Mapping[str, str] = field(default_factory=dict)
    removed: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    widened: tuple[str, ...] = ()

    @classmethod
    def between(cls, before: Mapping[str, str], after: Mapping[str, str]) -> "SchemaDiff":
        """Compare two schemas, column → type, by name."""
        return cls(
            {name: kind for name, kind in after.items() if name not in before},
            {name: kind for name, kind in before.items() if name not in after},
            {name: (before[name], kind) for name, kind in after.items() if before.get(name, kind) != kind},
        )

    @classmethod
    def by_id(cls, before: Mapping[int, LogicalColumn], after: Mapping[int, LogicalColumn]) -> "SchemaDiff":
        """Compare two schemas, field id → column."""
        kept = [(before[number], column) for number, column in after.items() if number in before]
        retyped = [(old, new) for old, new in kept if old.dtype != new.dtype]
        return cls(
            {column.name: str(column.dtype) for number, column in after.items() if number not in before},
            {column.name: str(column.dtype) for number, column in before.items() if number not in after},
            {new.name: (str(old.dtype), str(new.dtype)) for old, new in retyped},
            {old.name: new.name for old, new in kept if old.name != new.name},
            tuple(new.name for old, new in retyped if is_wider(arrow_type(new.dtype), arrow_type(old.dtype))),
        )

    @property
    def breaks(self) -> tuple[str, ...]:
        """What a reader of the former columns misses: those that are gone, renamed, or of a type with other values."""
        return (
            *(f"{name} ({kind}) is gone" for name, kind in self.removed.items()),
            *(f"{old} is called {new}" for old, new in self.renamed.items()),
            *(f"{name} is {new}, not {old}" for name, (old, new) in self.changed.items() if name not in self.widened),
        )

    def __str__(self) -> str:
        """One line: `+fresh String, -gone Boolean, late Int64 → Float64`."""
        added = (f"+{name} {kind}" for name, kind in self.added.items())
        removed = (f"-{name} {kind}" for name, kind in self.removed.items())
        renamed = (f"{old} → {new} (renamed)" for old, new in self.renamed.items())
        changed = (
            f"{name} {old} → {new}{' (widened)' * (name in self.widened)}" for name, (old, new) in self.changed.items()
        )
        return ", ".join((*added, *removed, *renamed, *changed))


def logical_columns(manifest: Manifest) -> dict[int, LogicalColumn]:
    """Field id → column as readers see it, as far as the manifest knows; no file is read.

    Raises:
        MixedTypesError: Two files have types in a column that no one type holds.
    """
    if schema := table_schema(manifest):
        return dict(schema.columns)
    used = {name for name in manifest.entries.column("schema").values() if name} if manifest.schemas else set()
    if len(used) != 1:
        return {}
    return {each.id: LogicalColumn(each.name, polars_type(each)) for each in manifest.schemas[used.pop()]}
