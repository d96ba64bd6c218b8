"""Feast's offline store over our tables: every request row gets its answer, in order, as it was known at its time.

N rows in, N rows out: repeated rows, unknown and null keys, and rows whose features are too old or still to come all
keep their place. Only partitions between the first request less the TTL and the last one are read.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_view import FeatureView
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import _get_requested_feature_views_to_features_dict, _get_requested_on_demand_feature_views

from pipelines import parquet
from pipelines.features import EVENT_TIME, KNOWN_TIME
from pipelines.systems.feature_store.errors import FeatureStoreError, RequestRefusedError
from pipelines.systems.feature_store.release import Rows, instant, manifest, microseconds, moment
from pipelines.systems.feature_store.requests import Requests
from pipelines.systems.feature_store.search import newest
from pipelines.systems.feature_store.source import TableSource, lake_of
from pipelines.systems.feature_store.types import KINDS
from pipelines.table import Lake

NULLABLE = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
"""pandas types that keep whole numbers whole beside a null."""


class HeadraceOfflineStoreConfig(FeastConfigBaseModel):
    """The `offline_store` of `feature_store.yaml`.

    Attributes:
        workspace: The git clone with the tables, relative to `feature_store.yaml`.
        as_known: Whether a request sees only what was known at its time. Off, it also sees what came in later about
            events before its time: corrections and late rows, which a model can not have at the moment of prediction.
        verify: Whether every file is hashed before it is read.
    """

    type: Literal["pipelines.systems.feature_store.offline.HeadraceOfflineStore"] = (
        "pipelines.systems.feature_store.offline.HeadraceOfflineStore"
    )
    workspace: str = ".."
    as_known: bool = True
    verify: bool = True


class Retrieval(RetrievalJob):
    """A retrieval that is computed when its rows are asked for."""

    def __init__(
        self,
        rows: Callable[[], pl.DataFrame],
        given: Sequence[str] = (),
        *,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._rows = rows
        self._given = list(given)
        self._full_feature_names = full_feature_names
        self._on_demand = list(on_demand)
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named `<view>__<feature>`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The views that Feast computes from the rows."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Features, keys and times of the request."""
        return self._metadata

    def to_polars(self) -> pl.DataFrame:
        """The rows as Polars, every type as it is in the table."""
        return pl.DataFrame(self.to_arrow())

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:  # noqa: ANN401
        """The rows as pandas; whole numbers and truth values are nullable types, never floats."""
        rows = self.to_arrow(validation_reference=validation_reference, timeout=timeout)
        whole = [name for name in self._given if not rows[name].null_count]
        given = rows.select(whole).to_pandas()
        rest = rows.drop_columns(whole).to_pandas(types_mapper=NULLABLE.get)
        return pd.concat([given, rest], axis="columns")[rows.column_names]

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas(types_mapper=NULLABLE.get)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002  Feast's signature
        return self._rows().to_arrow(compat_level=pl.CompatLevel.oldest())

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:  # noqa: ANN401, ARG002
        """Write the rows to the Parquet file of a saved dataset."""
        path = Path(storage.file_options.uri)
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        path.unlink(missing_ok=True)
        parquet.write(self.to_polars(), path)


class HeadraceOfflineStore(OfflineStore):
    """Reads feature tables; it never writes them, for a release is what `headrace version` made."""

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
        **_dates: datetime,
    ) -> Retrieval:
        """The features of `feature_refs` for every row of `entity_df`.

        Raises:
            RequestRefusedError: The requests lack a key or a time, or one has the wrong type.
            UnreadablePartitionError: A partition is missing or corrupt.
        """
        requests = Requests.of(entity_df)
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        asked, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        options = config.offline_store
        reader = _Reader(
            lake_of(config), as_known=options.as_known or filter_by_created_timestamp, verify=options.verify
        )
        lookups = [
            _Lookup(view, {name: _named(view, name, full_feature_names) for name in names})
            for view, names in asked.items()
        ]
        return Retrieval(
            lambda: reader.join(requests, lookups),
            requests.frame.columns,
            full_feature_names=full_feature_names,
            on_demand=on_demand,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in requests.frame.columns if name != requests.time],
                min_event_timestamp=moment(int(requests.moments.floor.min())) if requests.frame.height else None,
                max_event_timestamp=moment(int(requests.moments.ceiling.max())) if requests.frame.height else None,
            ),
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
    ) -> Retrieval:
        """The newest row of each key between two times, both included."""
        columns = (*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column or KNOWN_TIME)
        return Retrieval(
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
    ) -> Retrieval:
        """Every row between two times, both included."""
        columns = (*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column or KNOWN_TIME)
        return Retrieval(lambda: _between(config, data_source, columns, start_date, end_date))

    @staticmethod
    def offline_write_batch(*_args: object, **_options: object) -> None:
        """Refused.

        Raises:
            FeatureStoreError: Always.
        """
        raise FeatureStoreError(
            "Feature tables are not written through Feast: their rows come from `headrace transform`, so that a release"
            " is a function of its inputs. Give the rows to a source of the dataset instead."
        )

    write_logged_features = offline_write_batch


class _Lookup:
    """One view as a request asks for it: its table, keys and TTL, and feature → name of the answer's column."""

    def __init__(self, view: FeatureView, features: dict[str, str]) -> None:
        renamed = view.projection.join_key_map or {}
        self.name = view.projection.name_to_use()
        self.source = _table_of(view.batch_source)
        self.keys = {field.name: renamed.get(field.name, field.name) for field in view.entity_columns}
        self.types = {field.name: field.dtype for field in (*view.entity_columns, *view.features)}
        self.ttl = view.ttl // timedelta(microseconds=1) if view.ttl else None
        self.features = features


class _Reader:
    def __init__(self, lake: Lake, *, as_known: bool, verify: bool) -> None:
        self.lake = lake
        self.as_known = as_known
        self.verify = verify

    def join(self, requests: Requests, lookups: Sequence[_Lookup]) -> pl.DataFrame:
        names = [name for lookup in lookups for name in lookup.features.values()]
        taken = sorted({name for name in names if name in requests.frame.columns or names.count(name) > 1})
        if taken:
            raise RequestRefusedError(
                f"The answer would have two columns {taken[0]}, one of them a feature."
                " Rename the request's column, or ask with full_feature_names=True."
            )
        return requests.frame.with_columns(
            column for lookup in lookups for column in self._answers(requests, lookup).get_columns()
        )

    def _answers(self, requests: Requests, lookup: _Lookup) -> pl.DataFrame:
        types = {name: _polars(kind) for name, kind in lookup.types.items()}
        asked = requests.keys(lookup.keys, types, lookup.name)
        schema = {column: types[name] for name, column in lookup.features.items()}
        rows = self._rows(requests, lookup)
        if not rows.partitions or not requests.frame.height:
            return pl.DataFrame({name: pl.Series([None] * asked.height, dtype=kind) for name, kind in schema.items()})
        heads = rows.read([*lookup.keys, EVENT_TIME, KNOWN_TIME])
        index = newest(heads, asked, requests.moments, lookup.keys, lookup.ttl, as_known=self.as_known)
        values = rows.read(list(lookup.features)).select(pl.all().gather(index))
        return values.rename(lookup.features).cast(schema)  # type: ignore[arg-type]  # Polars wants a wider mapping

    def _rows(self, requests: Requests, lookup: _Lookup) -> Rows:
        table = manifest(self.lake, lookup.source.table, lookup.source.release)
        if not requests.frame.height:
            return Rows(self.lake, table, ())
        first, last = int(requests.moments.ceiling.min()), int(requests.moments.floor.max())
        since = None if lookup.ttl is None else first - lookup.ttl
        return Rows.between(self.lake, table, since, last, verify=self.verify)


def _between(
    config: RepoConfig, source: DataSource, columns: Sequence[str], start: datetime | None, end: datetime | None
) -> pl.DataFrame:
    lake, table_source = lake_of(config), _table_of(source)
    since, until = (microseconds(time) if time else None for time in (start, end))
    table = manifest(lake, table_source.table, table_source.release)
    rows = Rows.between(lake, table, since, until, verify=config.offline_store.verify).read(list(columns))
    if since is not None:
        rows = rows.filter(pl.col(EVENT_TIME) >= instant(since))
    return rows if until is None else rows.filter(pl.col(EVENT_TIME) <= instant(until))


def _table_of(source: DataSource | None) -> TableSource:
    if not isinstance(source, TableSource):
        raise FeatureStoreError(
            f"Expected a feature table as the source of a view, seen {type(source).__name__}."
            " Views are made from a dataset's declaration, in feature_repo/definitions.py."
        )
    return source


def _named(view: FeatureView, feature: str, full: bool) -> str:
    return f"{view.projection.name_to_use()}__{feature}" if full else feature


def _polars(kind: object) -> pl.DataType:
    return next(dtype for dtype, known in KINDS.items() if known.feast == kind)
