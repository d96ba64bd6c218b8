"""training rows → whoever trains: Dask, PyTorch, Hugging Face, all from the Parquet file that a retrieval wrote.

Nothing is imported that is not asked for. What decides which rows a process sees, `Feed`, needs none of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from headrace.errors import HeadraceError


class FeedRefusedError(HeadraceError):
    """Rows can not be handed out like that."""


@dataclass(frozen=True)
class Feed:
    """The rows of a Parquet file in batches, dealt out to several processes, from any place on.

    Together the processes see every row once an epoch, each the same rows in the same order whenever it is started
    anew with the same numbers. Memory holds a row group and a batch.

    Attributes:
        path: The file.
        rows: Rows a batch, at most; no batch reaches over the end of a row group.
        columns: Columns to read; all by default.
        index: Which of the processes this is.
        count: How many there are: ranks times workers.
        seed: Shuffles row groups, and the rows in each; None leaves them as they lie.
        epoch: Another one shuffles otherwise.
        done: Batches that this process has had already: where to go on.
        even: Whether every process gets the same number of batches: the last few are left out, a batch a process at
            most. Ranks that wait for each other hang without it.
    """

    path: Path
    rows: int = 1024
    columns: Sequence[str] | None = None
    index: int = 0
    count: int = 1
    seed: int | None = None
    epoch: int = 0
    done: int = 0
    even: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no process can have."""
        if not (0 <= self.index < self.count and self.rows > 0 and self.done >= 0):
            raise FeedRefusedError(
                f"Expected a process from 0 to count - 1, some rows a batch and nothing negative done, seen process"
                f" {self.index} of {self.count}, {self.rows} rows a batch, {self.done} done."
            )

    def share(self, index: int, count: int) -> Self:
        """The part of this share that one of `count` workers sees."""
        return replace(self, index=self.index * count + index, count=self.count * count)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """The batches that are left."""
        with pq.ParquetFile(self.path) as file:
            held, group = pl.DataFrame(), -1
            for wanted, offset, length in self._mine(file):
                if wanted != group:
                    held, group = self._group(file, wanted), wanted
                yield held.slice(offset, length)

    def __len__(self) -> int:
        """How many batches are left."""
        with pq.ParquetFile(self.path) as file:
            return len(self._mine(file))

    def _mine(self, file: pq.ParquetFile) -> list[tuple[int, int, int]]:
        """Row group, offset and rows of each batch that is left."""
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        order = np.arange(len(sizes)) if self.seed is None else self._draw().permutation(len(sizes))
        every = [
            (int(group), offset, min(self.rows, sizes[group] - offset))
            for group in order
            for offset in range(0, sizes[group], self.rows)
        ]
        if self.even:
            every = every[: len(every) // self.count * self.count]
        return every[self.index :: self.count][self.done :]

    def _group(self, file: pq.ParquetFile, number: int) -> pl.DataFrame:
        rows = pl.DataFrame(file.read_row_group(number, columns=None if self.columns is None else [*self.columns]))
        return rows if self.seed is None else rows[self._draw(number).permutation(rows.height)]

    def _draw(self, *more: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed or 0, self.epoch, *more])))


def to_dask(path: Path, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401  Dask has no types
    """A Dask DataFrame, a partition a row group; whole numbers beside nulls stay whole."""
    import dask.dataframe as dd  # noqa: PLC0415  only who asks for it pays for it

    kinds = None if columns is None else [*columns]
    return dd.read_parquet(path, columns=kinds, dtype_backend="numpy_nullable", split_row_groups=True)


def to_hugging_face(path: Path, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401
    """A Hugging Face `Dataset`, in its own memory-mapped files."""
    datasets = _imported("datasets", "a Hugging Face Dataset")
    return datasets.Dataset.from_parquet(str(path), columns=None if columns is None else [*columns])


def to_torch(feed: Feed) -> Any:  # noqa: ANN401  PyTorch is not installed here
    """A PyTorch `IterableDataset` of batches: column → tensor, or list of texts and of numbers beside nulls.

    Ranks of `torch.distributed` and workers of a `DataLoader` (with `batch_size=None`) each get their share of `feed`.
    Workers are started, not forked (`multiprocessing_context="forkserver"` or `"spawn"`): Polars' threads do not
    survive a fork. With workers that do not persist, call `set_epoch`: each epoch begins with new ones.
    `state_dict` and `load_state_dict` are what `torchdata`'s `StatefulDataLoader` calls to go on after a crash.
    """
    data = _imported("torch.utils.data", "a PyTorch dataset")
    return type("HeadraceRows", (_Torch, data.IterableDataset), {})(feed)


@dataclass(eq=False)
class _Torch:
    """What the PyTorch dataset does."""

    feed: Feed
    is_ranked: bool = field(default=False, init=False)
    _passed: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        share = self._share()
        self._passed = share.done
        for batch in share:
            self._passed += 1
            yield {column.name: _tensor(column) for column in batch.get_columns()}
        self.feed, self._passed = replace(self.feed, epoch=self.feed.epoch + 1, done=0), 0

    def __reduce__(self) -> tuple[Any, ...]:
        """For workers that are started: they make the class anew, and do not know which rank they work for."""
        return _of_a_rank, (self._ranked(),)

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch; after the last batch of one, the next begins by itself."""
        self.feed = replace(self.feed, epoch=epoch, done=0)

    def state_dict(self) -> dict[str, int]:
        """Where this process stands."""
        return {"epoch": self.feed.epoch, "done": self._passed or self.feed.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.feed, self._passed = replace(self.feed, epoch=state["epoch"], done=state["done"]), 0

    def _share(self) -> Feed:
        feed, worker = self._ranked(), import_module("torch.utils.data").get_worker_info()
        return feed.share(worker.id, worker.num_workers) if worker else feed

    def _ranked(self) -> Feed:
        """What this rank sees."""
        distributed = import_module("torch.distributed")
        if self.is_ranked or not (distributed.is_available() and distributed.is_initialized()):
            return self.feed
        return self.feed.share(distributed.get_rank(), distributed.get_world_size())


def _of_a_rank(feed: Feed) -> Any:  # noqa: ANN401
    """The dataset of what one rank sees."""
    made = to_torch(feed)
    made.is_ranked = True
    return made


def _tensor(column: pl.Series) -> Any:  # noqa: ANN401
    """A tensor where the type has one: a null among floats is NaN, any other null keeps the column a list."""
    if column.dtype.is_temporal():
        column = column.to_physical()
    if column.dtype.is_float():
        column = column.fill_null(float("nan"))
    numeric = column.dtype.is_numeric() or column.dtype == pl.Boolean
    if not numeric or column.null_count():
        return column.to_list()
    return import_module("torch").from_numpy(column.to_numpy(writable=True))


def _imported(name: str, what: str) -> Any:  # noqa: ANN401
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise FeedRefusedError(
            f"For {what}, expected the package {package!r}, seen: {error}. `pip install {package}` beside Headrace."
            " `Feed` gives the same batches as Polars frames without it."
        ) from error
