"""A stage: the pure function that makes one table, as `validate` and `transform` build it and the engine runs it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError
from headrace.storage.field_ids import Renamed, TableColumn
from headrace.storage.manifest import Manifest
from headrace.storage.partition_names import RecordedInterval
from headrace.storage.table_schema import TableSchema

if TYPE_CHECKING:
    import polars as pl

InputHashes = Mapping[str, Mapping[str, str]]
"""Table → entry → md5 of its bytes. A partition is one entry, but for a raw one of several objects."""

ObjectKeys = Mapping[str, Mapping[str, str]]
"""Table → entry → key of its object."""

InputPaths = Mapping[str, Mapping[str, Path]]
"""Table → entry → file with its bytes; of a table without partitions, `SCHEMA_ONLY` → a file with its columns."""

SCHEMA_ONLY = ""
"""In place of a partition: the rows of the file are not an input, only its columns are."""


class ObjectPaths(dict[str, Path]):
    """Entry → file, for a table with partitions of several objects.

    Attributes:
        object_keys: Entry → key of its object.
    """

    def __init__(self, paths: Mapping[str, Path], object_keys: Mapping[str, str]) -> None:
        super().__init__(paths)
        self.object_keys = object_keys


class MixedPaths(dict[str, Path]):
    """Entry → file, for a table whose files differ in their columns.

    Attributes:
        schema: The columns of the table.
    """

    def __init__(self, paths: Mapping[str, Path], schema: TableSchema) -> None:
        super().__init__(paths)
        self.schema = schema


def scan_inputs(paths: Mapping[str, Path]) -> "pl.LazyFrame":
    """The rows of an input's partitions, one after the other, in the columns of the whole table."""
    import polars as pl  # noqa: PLC0415  plans do not need it

    if isinstance(paths, MixedPaths):
        return paths.schema.scan({name: path for name, path in paths.items() if name != SCHEMA_ONLY})
    if {*paths} == {SCHEMA_ONLY}:
        return pl.scan_parquet(paths[SCHEMA_ONLY]).clear()
    return pl.scan_parquet([path for name, path in paths.items() if name != SCHEMA_ONLY])


def join_inputs(parts: "Iterable[Mapping[str, Path]]") -> Mapping[str, Path]:
    """The partitions of an input that several partitions read."""
    parts = list(parts)
    paths = {name: path for part in parts for name, path in part.items()}
    mixed = next((part for part in parts if isinstance(part, MixedPaths)), None)
    return paths if mixed is None else MixedPaths(paths, mixed.schema)


@dataclass(frozen=True)
class PartitionOutput:
    """What a stage computed of one partition.

    Attributes:
        rows: The rows of the stage's own table.
        keys: Columns that the rows are sorted by.
        is_unique: Whether no two rows can share their keys.
        interval: Start and end of the partition, if its name does not say them: of a day in a time zone.
        metadata: What is known about the partition beyond its rows, for the manifest.
        check: Raises a known error if the rows, once computed, are not what they must be.
        computed_metadata: More of it, from the rows once they are computed.
        companions: Table → rows, for the stage's other tables; a table without rows is left out.
        rejection_error: Location of the rows that show why → the error, if the partition must not go on.
        renamed: Columns that had another name first, by which their field ids go.
    """

    rows: "pl.LazyFrame | pl.DataFrame"
    keys: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    check: "Callable[[pl.DataFrame], None]" = lambda _rows: None
    computed_metadata: "Callable[[pl.DataFrame], Mapping[str, Any]]" = lambda _rows: {}
    companions: "Mapping[str, pl.DataFrame]" = field(default_factory=dict)
    rejection_error: Callable[[str], HeadraceError] | None = None
    is_unique: bool = False
    interval: RecordedInterval | None = None
    renamed: Renamed = ()


def param_key(dataset: str, name: str) -> str:
    """What `params.yaml` calls a parameter that a declaration of the dataset names."""
    return f"{dataset}.{name}"


def own_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters under the names that a declaration has for them: without the dataset."""
    return {name.partition(".")[2]: value for name, value in params.items()}


@dataclass(frozen=True)
class Stage:
    """One step of the graph.

    Attributes:
        verb: The command: `validate`, `transform` or `label`.
        dataset: Name of the dataset.
        table: The table it makes, `<state>/<dataset>/<name>`.
        companion_tables: Other tables that it computes with that one.
        reads: The tables it reads.
        modules: Where the project's code begins: the fingerprint follows their imports.
        libraries: Distributions that decide its bytes, whether or not the code imports them.
        files: Data files that the code reads, as paths below the project's root.
        params: Names in `params.yaml` that it reads.
        partitions: Manifests of the inputs and of its own table → every partition there should be, and its inputs.
        compute: Partition, files of the inputs, parameters → outcome. A pure function.
        batch_size: Most partitions that are computed together.
        compute_batch: Partition → files, parameters → outputs, equal to those of `compute`, of those partitions that
            can be computed together; what it refuses is left to `compute`.
        columns: Parameters → the columns of its tables that not every file has under its name and type.
        is_single_pass: Whether results cannot change which inputs a partition has; else the stage is planned once more.
    """

    verb: str
    dataset: str
    table: str
    reads: tuple[str, ...]
    modules: tuple[str, ...]
    partitions: Callable[[Mapping[str, Manifest], Manifest], Iterable[tuple[str, InputHashes]]]
    compute: Callable[[str, InputPaths, Mapping[str, Any]], PartitionOutput]
    batch_size: int = 1
    compute_batch: Callable[[Mapping[str, InputPaths], Mapping[str, Any]], Mapping[str, PartitionOutput]] = (
        lambda _files, _params: {}
    )
    columns: Callable[[Mapping[str, Any]], tuple[TableColumn, ...]] = lambda _params: ()
    is_single_pass: bool = True
    companion_tables: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("polars", "pyarrow")
    files: tuple[str, ...] = ()
    params: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The table's own name, as the command line and DVC call the stage."""
        return self.table.rsplit("/", 1)[1]
