"""A retrieval: computed when its rows are asked for, as a stream or whole, in the form that the caller works with."""

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

from pipelines.engine import parquet

NULLABLE = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
"""pandas types that keep whole numbers whole beside a null."""


class Retrieval(RetrievalJob):
    """The rows that were asked for, each with its features.

    Args:
        frames: Gives them, in order, some at a time, anew whenever it is called.
        given: Columns of the requests.
        answered: Columns of the features that were asked for.
        as_known: Whether a row sees only what was known at its time.
        full_feature_names: Whether features are named `<view>__<feature>`.
        on_demand: Views that Feast computes from the rows.
        metadata: Features, keys and times of the requests.
        repo: Folder that the path of a saved dataset is relative to.
    """

    def __init__(  # noqa: PLR0913  what Feast asks a job about
        self,
        frames: Callable[[], Iterator[pl.DataFrame]],
        given: Sequence[str] = (),
        answered: Sequence[str] = (),
        *,
        as_known: bool = True,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
        repo: Path | None = None,
    ) -> None:
        self._frames = frames
        self._given = list(given)
        self._answered = list(answered)
        self._as_known = as_known
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

    @property
    def given(self) -> list[str]:
        """Columns of the requests."""
        return [*self._given]

    @property
    def answered(self) -> list[str]:
        """Columns of the features that were asked for."""
        return [*self._answered]

    @property
    def as_known(self) -> bool:
        """Whether a row sees only what was known at its time."""
        return self._as_known

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows, in order, some at a time: never more than the memory of `feature_store.yaml` allows."""
        for frame in self._frames():
            yield self._finished(frame)

    def renamed(self, names: Mapping[str, str]) -> "Retrieval":
        """The same with other names for some columns of the answer."""
        return Retrieval(
            lambda: (frame.rename(dict(names)) for frame in self.frames()),
            self._given,
            [names.get(name, name) for name in self._answered],
            as_known=self._as_known,
            full_feature_names=self._full_feature_names,
            metadata=self._metadata,
            repo=self._repo,
        )

    def to_batches(self, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow, in order, at most so many a batch."""
        for frame in self.frames():
            yield from _arrow(frame).to_batches(max_chunksize=rows)

    def to_polars(self) -> pl.DataFrame:
        """The rows as Polars, every type as it is in the table."""
        return pl.concat(self.frames())

    def to_parquet(self, path: Path) -> Path:
        """The rows in one Parquet file, whole or not at all; the same rows are the same bytes."""
        parquet.write_all(self.frames(), path)
        return path

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:  # noqa: ANN401
        """The rows as pandas; whole numbers and truth values are nullable types, never floats."""
        rows = self.to_arrow(validation_reference=validation_reference, timeout=timeout)
        whole = [name for name in self._given if not rows[name].null_count]
        given = rows.select(whole).to_pandas()
        rest = rows.drop_columns(whole).to_pandas(types_mapper=NULLABLE.get)
        return pd.concat([given, rest], axis="columns")[rows.column_names]

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:  # noqa: ANN401, ARG002
        """Write the rows to the Parquet file of a saved dataset."""
        path = saved_path(storage.to_data_source(), self._repo)
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.to_parquet(path)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas(types_mapper=NULLABLE.get)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002  Feast's signature
        return _arrow(pl.concat(self._frames()))

    def _finished(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows with the views that Feast computes on demand."""
        if not self._on_demand:
            return frame
        one = Retrieval(
            lambda: iter([frame]),
            full_feature_names=self._full_feature_names,
            on_demand=self._on_demand,
            metadata=self._metadata,
        )
        return pl.DataFrame(one.to_arrow())


def saved_path(source: FileSource, repo: Path | None) -> Path:
    """File of a saved dataset; a relative path is relative to Feast's repository, here as when it is read."""
    return Path(str(FileSource.get_uri_for_file_path(repo_path=repo, uri=source.file_options.uri)))


def _arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
