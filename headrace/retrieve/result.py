"""An answer: computed when its rows are asked for, as a stream or whole, in the form that the caller works with.

Nothing here imports Feast, and pandas only who asks for it.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from headrace.storage import parquet

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


class RetrievalResult:
    """The rows that were asked for, each with its features.

    Args:
        frames: Gives them, in order, some at a time, anew whenever it is called.
        given: Columns of the requests.
        answered: Columns of the features that were asked for.
        as_known: Whether a row sees only what was known at its time.
    """

    def __init__(
        self,
        frames: Callable[[], Iterator[pl.DataFrame]],
        given: Sequence[str] = (),
        answered: Sequence[str] = (),
        *,
        as_known: bool = True,
    ) -> None:
        self._frames = frames
        self._given = list(given)
        self._answered = list(answered)
        self._as_known = as_known

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
        return self._frames()

    def to_batches(self, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow, in order, at most so many a batch."""
        for frame in self.frames():
            yield from arrow(frame).to_batches(max_chunksize=rows)

    def to_polars(self) -> pl.DataFrame:
        """The rows as Polars, every type as it is in the table."""
        return pl.concat(self.frames())

    def to_arrow(self) -> pa.Table:
        """The rows as Arrow."""
        return arrow(self.to_polars())

    def to_parquet(self, path: Path) -> Path:
        """The rows in one Parquet file, whole or not at all; the same rows are the same bytes."""
        parquet.write_all(self.frames(), path)
        return path

    def to_df(self) -> "pd.DataFrame":
        """The rows as pandas; whole numbers and truth values are nullable types, never floats."""
        return self._pandas(self.to_arrow())

    def _pandas(self, rows: pa.Table) -> "pd.DataFrame":
        import pandas as pd  # noqa: PLC0415

        whole = [name for name in self._given if not rows[name].null_count]
        given = rows.select(whole).to_pandas()
        rest = rows.drop_columns(whole).to_pandas(types_mapper=nullable)
        return pd.concat([given, rest], axis="columns")[rows.column_names]


def arrow(frame: pl.DataFrame) -> pa.Table:
    """The rows as Arrow, in types that every reader knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def nullable(kind: pa.DataType) -> Any:  # noqa: ANN401  a type of pandas
    """The pandas type that keeps whole numbers whole beside a null; None where there is no need of one."""
    import pandas as pd  # noqa: PLC0415

    types = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    return types.get(kind)
