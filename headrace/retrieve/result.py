"""The result of a retrieval: computed when its rows are asked for, as a stream or in memory, in several forms.

Nothing here imports Feast; pandas is imported by `to_df` alone.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from headrace.extras import require_extra
from headrace.storage import parquet

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


class RetrievalResult:
    """The request rows, each with its features, in the order of the requests.

    Args:
        frames: Computes the rows, a frame at a time; called again for every form that is asked for.
        request_columns: Columns of the requests.
        feature_columns: Columns of the features.
        as_known: Whether a row sees only what was known at its time.
    """

    def __init__(
        self,
        frames: Callable[[], Iterator[pl.DataFrame]],
        request_columns: Sequence[str] = (),
        feature_columns: Sequence[str] = (),
        *,
        as_known: bool = True,
    ) -> None:
        self._frames = frames
        self._request_columns = list(request_columns)
        self._feature_columns = list(feature_columns)
        self._as_known = as_known

    @property
    def request_columns(self) -> list[str]:
        """Columns of the requests."""
        return [*self._request_columns]

    @property
    def feature_columns(self) -> list[str]:
        """Columns of the features."""
        return [*self._feature_columns]

    @property
    def as_known(self) -> bool:
        """Whether a row sees only what was known at its time."""
        return self._as_known

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows in order, a frame at a time: the memory is bounded by `memory_mb` of `feature_store.yaml`."""
        return self._frames()

    def to_batches(self, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow record batches, in order, at most `rows` in each."""
        for frame in self.frames():
            yield from arrow(frame).to_batches(max_chunksize=rows)

    def to_polars(self) -> pl.DataFrame:
        """The rows as a Polars frame, every type as it is in the table."""
        return pl.concat(self.frames())

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return arrow(self.to_polars())

    def to_parquet(self, path: Path | str) -> Path:
        """Write the rows to a Parquet file, atomically; equal rows give equal bytes. Returns the path."""
        target = Path(path)
        parquet.write_all(self.frames(), target)
        return target

    def to_df(self) -> "pd.DataFrame":
        """The rows as a pandas frame; integers and Booleans are nullable types, never floats.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return self._pandas(self.to_arrow())

    def _pandas(self, rows: pa.Table) -> "pd.DataFrame":
        require_extra("pandas", "RetrievalResult.to_df()")
        import pandas as pd  # noqa: PLC0415

        whole = [name for name in self._request_columns if not rows[name].null_count]
        given = rows.select(whole).to_pandas()
        rest = rows.drop_columns(whole).to_pandas(types_mapper=nullable)
        return pd.concat([given, rest], axis="columns")[rows.column_names]


def arrow(frame: pl.DataFrame) -> pa.Table:
    """The rows as an Arrow table, in types that every reader knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def nullable(kind: pa.DataType) -> Any:  # noqa: ANN401  a type of pandas
    """The pandas type that keeps integers with nulls integers; None if the default does."""
    import pandas as pd  # noqa: PLC0415

    types = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    return types.get(kind)
