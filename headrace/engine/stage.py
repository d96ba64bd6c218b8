"""A stage: the pure function that makes one table, as `validate` and `transform` build it and the engine runs it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError
from headrace.storage.manifest import Manifest

if TYPE_CHECKING:
    import polars as pl

Inputs = Mapping[str, Mapping[str, str]]
"""Table → partition → md5."""

Files = Mapping[str, Mapping[str, Path]]
"""Table → partition → file with its bytes."""


@dataclass(frozen=True)
class Outcome:
    """What a stage made of one partition.

    Attributes:
        rows: The rows of the stage's own table.
        keys: Columns that the rows are sorted by.
        is_unique: Whether no two rows can share their keys.
        facts: What is known about the partition beyond its rows, for the manifest.
        check: Raises a known error if the rows, once computed, are not what they must be.
        told: More facts, of the rows once they are computed.
        beside: Table → rows, for the tables beside it; a table of no rows is left out.
        refusal: The partition must not go on: given where the rows lie that show why, the error that says so.
    """

    rows: "pl.LazyFrame | pl.DataFrame"
    keys: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    check: "Callable[[pl.DataFrame], None]" = lambda _rows: None
    told: "Callable[[pl.DataFrame], Mapping[str, Any]]" = lambda _rows: {}
    beside: "Mapping[str, pl.DataFrame]" = field(default_factory=dict)
    refusal: Callable[[str], HeadraceError] | None = None
    is_unique: bool = False


@dataclass(frozen=True)
class Stage:
    """One step of the graph.

    Attributes:
        verb: The command: `validate`, `transform` or `label`.
        dataset: Name of the dataset.
        table: The table it makes, `<state>/<dataset>/<name>`.
        beside: Tables it makes beside that one.
        reads: The tables it reads.
        modules: Where the project's code begins: the fingerprint follows their imports.
        libraries: Distributions that decide its bytes, whether or not the code imports them.
        files: Data files that the code reads, as paths below the project's root.
        params: Names in `params.yaml` that it reads.
        partitions: Manifests of the inputs and of its own table → every partition there should be, and its inputs.
        compute: Partition, files of the inputs, parameters → outcome. A pure function.
        at_once: Most partitions that are computed together.
        together: Partition → files, parameters → the outcomes that `compute` would give, made together, of those
            partitions of which it can tell; whatever it refuses is left to `compute`.
        settles: Whether what a run made cannot change which inputs a partition has; else it is planned once more.
    """

    verb: str
    dataset: str
    table: str
    reads: tuple[str, ...]
    modules: tuple[str, ...]
    partitions: Callable[[Mapping[str, Manifest], Manifest], Iterable[tuple[str, Inputs]]]
    compute: Callable[[str, Files, Mapping[str, Any]], Outcome]
    at_once: int = 1
    together: Callable[[Mapping[str, Files], Mapping[str, Any]], Mapping[str, Outcome]] = lambda _files, _params: {}
    settles: bool = True
    beside: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("polars", "pyarrow")
    files: tuple[str, ...] = ()
    params: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The table's own name, as the command line and DVC call the stage."""
        return self.table.rsplit("/", 1)[1]
