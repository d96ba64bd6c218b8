"""Feast's offline store over our tables: every request row gets its answer, in order, as it was known at its time.

N rows in, N rows out: repeated rows, unknown and null keys, and rows whose features are too old or still to come all
keep their place. Only partitions between the first request less the TTL and the last one are read.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import polars as pl
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalMetadata
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import _get_requested_feature_views_to_features_dict, _get_requested_on_demand_feature_views

from headrace.dataset import EVENT_TIME, KNOWN_TIME
from headrace.feast.data_source import table_of, table_store_of
from headrace.feast.retrieval_job import HeadraceRetrievalJob, saved_path
from headrace.feast.types import KINDS
from headrace.feast.variables import register
from headrace.retrieve.change_points import history
from headrace.retrieve.errors import FeatureStoreError
from headrace.retrieve.join import Join, Lookup
from headrace.retrieve.options import OfflineStoreOptions
from headrace.retrieve.partition_reader import (
    PartitionReader,
    microseconds,
    read_manifest,
    to_utc_datetime,
    utc_literal,
)
from headrace.retrieve.requests import Requests

register()  # here, since `FeatureStore(repo_path=...)` loads this module, and only this, before it needs the registry


class HeadraceOfflineStoreConfig(OfflineStoreOptions, FeastConfigBaseModel):
    """The `offline_store` of `feature_store.yaml`."""

    type: Literal["headrace.feast.offline_store.HeadraceOfflineStore"] = (
        "headrace.feast.offline_store.HeadraceOfflineStore"
    )


class HeadraceOfflineStore(OfflineStore):
    """Reads feature tables; it never writes them, for a release is what `headrace release` made."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(  # noqa: PLR0913, PLR0917  Feast's signature
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: object,
        registry: Any,  # noqa: ANN401  Feast has no types
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> HeadraceRetrievalJob:
        """The features of `feature_refs` for every row of `entity_df`; without one, for the rows between two times.

        Raises:
            InvalidRequestError: The requests lack a key or a time, or one has the wrong type.
            UnreadablePartitionError: A partition is missing or corrupt.
        """
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        asked, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        lookups = [
            lookup(view, {name: _named(view, name, full_feature_names) for name in names})
            for view, names in asked.items()
        ]
        options, table_store = config.offline_store, table_store_of(config)
        as_known = options.as_known or filter_by_created_timestamp
        if entity_df is None:
            entity_df = history(table_store, lookups, start_date, end_date, as_known=as_known, verify=options.verify)
        requests = Requests.read(entity_df)
        join = Join(table_store, requests, lookups, as_known, options.verify, options.memory_mb << 20).checked()
        window = requests.time_range
        return HeadraceRetrievalJob(
            join.frames,
            requests.schema.names(),
            [name for lookup in lookups for name in lookup.features.values()],
            as_known=as_known,
            full_feature_names=full_feature_names,
            on_demand=on_demand,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in requests.schema if name != requests.time],
                min_event_timestamp=to_utc_datetime(window.first) if window else None,
                max_event_timestamp=to_utc_datetime(window.last + 1) if window else None,
            ),
            repo=config.repo_path,
        )

    @staticmethod
    def pull_latest_from_table_or_query(  # noqa: PLR0913, PLR0917  Feast's signature
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> HeadraceRetrievalJob:
        """The newest row of each key between two times, both included."""
        columns = (*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column or KNOWN_TIME)
        return _once(
            lambda: (
                _between(config, data_source, columns, start_date, end_date)
                .drop_nulls(join_key_columns)
                .sort(EVENT_TIME, KNOWN_TIME, maintain_order=True)
                .unique(join_key_columns, keep="last", maintain_order=True)
            )
        )

    @staticmethod
    def pull_all_from_table_or_query(  # noqa: PLR0913, PLR0917  Feast's signature
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> HeadraceRetrievalJob:
        """Every row between two times, both included; of a saved dataset, every row and column that was saved."""
        if isinstance(data_source, FileSource):
            return _saved(saved_path(data_source, config.repo_path))
        columns = (*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column or KNOWN_TIME)
        return _once(lambda: _between(config, data_source, columns, start_date, end_date))

    @staticmethod
    def offline_write_batch(*_args: object, **_options: object) -> None:
        """Refused.

        Raises:
            FeatureStoreError: Always.
        """
        raise FeatureStoreError(
            "Feature tables are not written through Feast: `headrace transform` computes their rows, so that a release"
            " is a function of its inputs. Write the rows to a source of the dataset instead."
        )

    write_logged_features = offline_write_batch


def lookup(view: FeatureView, features: Mapping[str, str]) -> Lookup:
    """The lookup of a Feast view."""
    renamed, source = view.projection.join_key_map or {}, table_of(view.batch_source)
    return Lookup(
        view.projection.name_to_use(),
        source.table,
        source.release,
        {field.name: renamed.get(field.name, field.name) for field in view.entity_columns},
        {field.name: _polars(field.dtype) for field in (*view.entity_columns, *view.features)},
        view.ttl // timedelta(microseconds=1) if view.ttl else None,
        features,
    )


def _polars(kind: object) -> pl.DataType:
    return next(dtype for dtype, known in KINDS.items() if known.feast == kind)


def _once(rows: Callable[[], pl.DataFrame]) -> HeadraceRetrievalJob:
    return HeadraceRetrievalJob(lambda: iter([rows()]))


def _saved(path: Path) -> HeadraceRetrievalJob:
    if not path.exists():
        raise FeatureStoreError(f"Expected the saved dataset in {path}, found no such file. Save it again.")
    return _once(lambda: pl.read_parquet(path))


def _between(
    config: RepoConfig, source: DataSource, columns: Sequence[str], start: datetime | None, end: datetime | None
) -> pl.DataFrame:
    table_store, table_source = table_store_of(config), table_of(source)
    since, until = (microseconds(time) if time else None for time in (start, end))
    table = read_manifest(table_store, table_source.table, table_source.release)
    rows = PartitionReader.between(table_store, table, since, until, verify=config.offline_store.verify).read(
        list(columns)
    )
    if since is not None:
        rows = rows.filter(pl.col(EVENT_TIME) >= utc_literal(since))
    return rows if until is None else rows.filter(pl.col(EVENT_TIME) <= utc_literal(until))


def _named(view: FeatureView, feature: str, full: bool) -> str:
    return f"{view.projection.name_to_use()}__{feature}" if full else feature
