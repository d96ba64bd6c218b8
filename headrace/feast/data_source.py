"""A feature table as Feast's data source: its name, and the release it is read at."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.value_type import ValueType

from headrace.dataset import EVENT_TIME, KNOWN_TIME
from headrace.retrieve.errors import FeatureStoreError
from headrace.retrieve.partition_reader import WORKSPACE, read_manifest
from headrace.storage.table_schema import table_schema
from headrace.storage.table_store import TableStore
from headrace.workspace import PACKAGE

CLASS_PATH = f"{__name__}.FeatureTableSource"
"""What a registry names the class of our sources: Feast imports it from there."""

CLASS_PATH_0_1 = f"{PACKAGE}.systems.feature_store.source.TableSource"
"""The same in registries that 0.1 wrote, until the next publish."""


def table_store_of(config: RepoConfig) -> TableStore:
    """The table store that the offline store of `feature_store.yaml` reads."""
    return TableStore.at(Path(config.repo_path or ".") / config.offline_store.workspace)


class FeatureTableSource(DataSource):
    """The table `table` at `release`.

    Attributes:
        table: `features/<dataset>/<name>`.
        release: Name of the release; empty for the tables as the workspace has them.
        class_path: What the registry names this class.
    """

    def __init__(self, *, name: str, table: str, release: str = WORKSPACE, **rest: Any) -> None:  # noqa: ANN401
        self.table = table
        self.release = release
        self.class_path = CLASS_PATH
        super().__init__(name=name, timestamp_field=EVENT_TIME, created_timestamp_column=KNOWN_TIME, **rest)

    def __eq__(self, other: object) -> bool:
        """Same table, same release, same description, registered alike: Feast writes nothing over an equal object."""
        return (
            isinstance(other, FeatureTableSource)
            and bool(super().__eq__(other))  # type: ignore[no-untyped-call]
            and (self.table, self.release, self.class_path) == (other.table, other.release, other.class_path)
        )

    def __hash__(self) -> int:
        """By name, as Feast does."""
        return hash(self.name)

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> "FeatureTableSource":
        """The source that `to_proto` wrote to the registry."""
        where = json.loads(data_source.custom_options.configuration)
        source = FeatureTableSource(
            name=data_source.name,
            **where,
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )
        source.class_path = data_source.data_source_class_type
        return source

    def _to_proto_impl(self) -> DataSourceProto:
        where = json.dumps({"table": self.table, "release": self.release}).encode()
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=CLASS_PATH,
            custom_options=DataSourceProto.CustomSourceOptions(configuration=where),
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )

    def source_type(self) -> Any:  # noqa: ANN401  an enum of protobuf's
        """What Feast calls sources that are not its own."""
        return DataSourceProto.CUSTOM_SOURCE

    def validate(self, config: Any) -> None:  # noqa: ANN401  Feast's configuration
        """Nothing to do: a definition may be registered before its table has a partition."""

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """Column and Polars type of the table; none of one without partitions."""
        table_store = table_store_of(config)
        table = read_manifest(table_store, self.table, self.release)
        if mixed := table_schema(table):
            return [(name, str(kind)) for name, kind in mixed.types.items()]
        first = table.entries.first
        entry = table.partitions[first] if first else None
        schema = pl.read_parquet_schema(table_store.cache.fetch(entry.md5, entry.sha256)) if entry else {}
        return [(name, str(kind)) for name, kind in schema.items()]

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Never asked for: every column of a view is declared."""
        return ValueType.__getitem__


# Feast imports the class of a source by the path in the registry, which is that of 0.1 until the next publish rewrites
# it. A module that is in `sys.modules` is imported without its parents.
TableSource = FeatureTableSource
sys.modules.setdefault(CLASS_PATH_0_1.rpartition(".")[0], sys.modules[__name__])


def table_of(source: DataSource | None) -> FeatureTableSource:
    """The source of a view, which must be one of our tables.

    Raises:
        FeatureStoreError: It is not.
    """
    if not isinstance(source, FeatureTableSource):
        raise FeatureStoreError(
            f"Expected a feature table as the source of a view, found {type(source).__name__}."
            " Views come from a dataset's declaration: see feature_repo/definitions.py."
        )
    return source
