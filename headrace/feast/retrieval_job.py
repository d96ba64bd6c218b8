"""A retrieval as Feast knows it: an answer of ours that also computes on-demand views and can be saved."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView

from headrace.retrieve.result import RetrievalResult, arrow, nullable


class HeadraceRetrievalJob(RetrievalResult, RetrievalJob):
    """The request rows, each with its features.

    Args:
        frames: As `RetrievalResult`.
        request_columns: As `RetrievalResult`.
        feature_columns: As `RetrievalResult`.
        as_known: As `RetrievalResult`.
        full_feature_names: Whether features are named `<view>__<feature>`.
        on_demand: Views that Feast computes from the rows.
        metadata: Features, keys and times of the requests.
        repo: Folder that the path of a saved dataset is relative to.
    """

    def __init__(  # noqa: PLR0913  what Feast asks a job about
        self,
        frames: Callable[[], Iterator[pl.DataFrame]],
        request_columns: Sequence[str] = (),
        feature_columns: Sequence[str] = (),
        *,
        as_known: bool = True,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
        repo: Path | None = None,
    ) -> None:
        super().__init__(frames, request_columns, feature_columns, as_known=as_known)
        self._full_feature_names = full_feature_names
        self._on_demand = list(on_demand)
        self._metadata = metadata
        self._repo = repo

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

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows, in order, some at a time: never more than the memory of `feature_store.yaml` allows."""
        for frame in self._frames():
            yield self._finished(frame)

    def renamed(self, names: Mapping[str, str]) -> "HeadraceRetrievalJob":
        """The same with other names for some columns of the answer."""
        return HeadraceRetrievalJob(
            lambda: (frame.rename(dict(names)) for frame in self.frames()),
            self._request_columns,
            [names.get(name, name) for name in self._feature_columns],
            as_known=self._as_known,
            full_feature_names=self._full_feature_names,
            metadata=self._metadata,
            repo=self._repo,
        )

    def to_arrow(self, validation_reference: Any = None, timeout: int | None = None) -> pa.Table:  # noqa: ANN401
        """The rows as Arrow."""
        return RetrievalJob.to_arrow(self, validation_reference=validation_reference, timeout=timeout)

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:  # noqa: ANN401
        """The rows as pandas; whole numbers and truth values are nullable types, never floats."""
        return self._pandas(self.to_arrow(validation_reference=validation_reference, timeout=timeout))

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:  # noqa: ANN401, ARG002
        """Write the rows to the Parquet file of a saved dataset."""
        path = saved_path(storage.to_data_source(), self._repo)
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.to_parquet(path)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas(types_mapper=nullable)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002  Feast's signature
        return arrow(pl.concat(self._frames()))

    def _finished(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows with the views that Feast computes on demand."""
        if not self._on_demand:
            return frame
        one = HeadraceRetrievalJob(
            lambda: iter([frame]),
            full_feature_names=self._full_feature_names,
            on_demand=self._on_demand,
            metadata=self._metadata,
        )
        return pl.DataFrame(one.to_arrow())


def saved_path(source: FileSource, repo: Path | None) -> Path:
    """File of a saved dataset; a relative path is relative to Feast's repository, here as when it is read."""
    return Path(str(FileSource.get_uri_for_file_path(repo_path=repo, uri=source.file_options.uri)))
