"""Loaders: batches of a retrieved Parquet file for Dask, PyTorch and Hugging Face.

Each library is imported only by the function that needs it. `ParquetBatches` decides which rows a process sees, and
needs none of them. Not the sharding of `datasets`: its ranks get different numbers of batches, and a stream that is
shuffled resumes with other rows (docs/why.md).
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


class LoaderError(HeadraceError):
    """The arguments of a loader make no sense, or its library is not installed."""


@dataclass(frozen=True)
class ParquetBatches:
    """The rows of a Parquet file in batches, sharded over several processes.

    Together the processes see every row once per epoch. With the same arguments a process sees the same rows in the
    same order. Memory holds one row group and one batch. Pages with a checksum are read against it.

    Attributes:
        path: The file.
        batch_size: Rows per batch, at most: no batch crosses the end of a row group.
        columns: Columns to read; by default all of them.
        rank: Number of this process, from 0.
        world_size: Number of processes: ranks times workers.
        seed: Shuffles the row groups, and the rows in each of them. None keeps the order of the file.
        epoch: Number of the epoch; each one is shuffled in another way.
        skip_batches: Number of batches that this process has already seen, to resume an epoch.
        drop_last: Give every process the same number of batches: leaves out less than one batch per process. Ranks
            that wait for each other (DistributedDataParallel) hang without it.

    Examples:
        >>> pl.DataFrame({"x": range(5)}).write_parquet("train.parquet")
        >>> [batch["x"].to_list() for batch in headrace.ParquetBatches("train.parquet", batch_size=2)]
        [[0, 1], [2, 3], [4]]
        >>> batches = headrace.ParquetBatches("train.parquet", batch_size=2, rank=1, world_size=2)
        >>> [batch["x"].to_list() for batch in batches]
        [[2, 3]]
    """

    path: Path | str
    batch_size: int = 1024
    columns: Sequence[str] | None = None
    rank: int = 0
    world_size: int = 1
    seed: int | None = None
    epoch: int = 0
    skip_batches: int = 0
    drop_last: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (0 <= self.rank < self.world_size and self.batch_size > 0 and self.skip_batches >= 0):
            raise LoaderError(
                "ParquetBatches: expected 0 <= rank < world_size, batch_size > 0 and skip_batches >= 0, found"
                f" rank={self.rank}, world_size={self.world_size}, batch_size={self.batch_size},"
                f" skip_batches={self.skip_batches}."
            )

    def shard(self, index: int, num_shards: int) -> Self:
        """The part of these batches that worker `index` of `num_shards` sees."""
        return replace(self, rank=self.rank * num_shards + index, world_size=self.world_size * num_shards)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """The batches, from `skip_batches` on."""
        with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
            held, group = pl.DataFrame(), -1
            for wanted, offset, length in self._mine(file):
                if wanted != group:
                    held, group = self._group(file, wanted), wanted
                yield held.slice(offset, length)

    def __len__(self) -> int:
        """Number of batches, from `skip_batches` on."""
        with pq.ParquetFile(self.path) as file:
            return len(self._mine(file))

    def _mine(self, file: pq.ParquetFile) -> list[tuple[int, int, int]]:
        """Row group, offset and number of rows of each batch of this process, from `skip_batches` on."""
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        order = np.arange(len(sizes)) if self.seed is None else self._draw().permutation(len(sizes))
        every = [
            (int(group), offset, min(self.batch_size, sizes[group] - offset))
            for group in order
            for offset in range(0, sizes[group], self.batch_size)
        ]
        if self.drop_last:
            every = every[: len(every) // self.world_size * self.world_size]
        return every[self.rank :: self.world_size][self.skip_batches :]

    def _group(self, file: pq.ParquetFile, number: int) -> pl.DataFrame:
        try:
            table = file.read_row_group(number, columns=None if self.columns is None else [*self.columns])
        except OSError as error:  # a page that is not as it was written, among others
            raise LoaderError(
                f"{self.path}: row group {number} cannot be read: {str(error).splitlines()[0]}. Retrieve the file"
                " again."
            ) from error
        rows = pl.DataFrame(table)
        return rows if self.seed is None else rows[self._draw(number).permutation(rows.height)]

    def _draw(self, *more: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed or 0, self.epoch, *more])))


def to_dask(path: Path | str, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401  Dask has no types
    """A Dask DataFrame with one partition per row group; integers with nulls stay integers.

    Examples:
        >>> pl.DataFrame({"x": [1, None]}).write_parquet("train.parquet")
        >>> headrace.to_dask("train.parquet").dtypes["x"]
        Int64Dtype()
    """
    import dask.dataframe as dd  # noqa: PLC0415  slow to import

    kinds = None if columns is None else [*columns]
    return dd.read_parquet(path, columns=kinds, dtype_backend="numpy_nullable", split_row_groups=True)


def to_hugging_face(path: Path | str, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401
    """A Hugging Face `Dataset`, backed by its own memory-mapped files."""
    datasets = _imported("datasets", "A Hugging Face Dataset")
    return datasets.Dataset.from_parquet(str(path), columns=None if columns is None else [*columns])


def to_torch(batches: ParquetBatches) -> Any:  # noqa: ANN401  PyTorch is not a dependency
    """A PyTorch `IterableDataset` of batches.

    A batch maps each column to a tensor. Text, and integers with nulls, stay lists; nulls of floats become NaN. The
    ranks of `torch.distributed` and the workers of a `DataLoader` (use `batch_size=None`) each see their shard.

    Start the workers, do not fork them (`multiprocessing_context="forkserver"` or `"spawn"`): the threads of Polars do
    not survive a fork. If the workers are not persistent, call `set_epoch` before each epoch: new workers start with
    the epoch that the dataset has. `state_dict` and `load_state_dict` are the protocol of `torchdata`'s
    `StatefulDataLoader`, to resume after a crash.
    """
    data = _imported("torch.utils.data", "A PyTorch dataset")
    return type("ParquetBatchesDataset", (_Torch, data.IterableDataset), {})(batches)


@dataclass(eq=False)
class _Torch:
    """The methods of the PyTorch dataset."""

    batches: ParquetBatches
    is_ranked: bool = field(default=False, init=False)
    _seen: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        shard = self._shard()
        self._seen = shard.skip_batches
        for batch in shard:
            self._seen += 1
            yield {column.name: _tensor(column) for column in batch.get_columns()}
        self.set_epoch(self.batches.epoch + 1)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for workers: they create the class again, and do not know which rank they belong to."""
        return _ranked_dataset, (self._rank_shard(),)

    def set_epoch(self, epoch: int) -> None:
        """Begin `epoch`. After its last batch the next epoch begins by itself."""
        self.batches, self._seen = replace(self.batches, epoch=epoch, skip_batches=0), 0

    def state_dict(self) -> dict[str, int]:
        """The position of this process."""
        return {"epoch": self.batches.epoch, "skip_batches": self._seen or self.batches.skip_batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the position that `state_dict` gave."""
        skip = state["skip_batches"] if "skip_batches" in state else state["done"]  # 0.1 called it `done`
        self.batches, self._seen = replace(self.batches, epoch=state["epoch"], skip_batches=skip), 0

    def _shard(self) -> ParquetBatches:
        batches, worker = self._rank_shard(), import_module("torch.utils.data").get_worker_info()
        return batches.shard(worker.id, worker.num_workers) if worker else batches

    def _rank_shard(self) -> ParquetBatches:
        distributed = import_module("torch.distributed")
        if self.is_ranked or not (distributed.is_available() and distributed.is_initialized()):
            return self.batches
        return self.batches.shard(distributed.get_rank(), distributed.get_world_size())


def _ranked_dataset(batches: ParquetBatches) -> Any:  # noqa: ANN401
    """The dataset of one rank's shard."""
    dataset = to_torch(batches)
    dataset.is_ranked = True
    return dataset


def _tensor(column: pl.Series) -> Any:  # noqa: ANN401
    """A tensor if the type has one. A null of a float column becomes NaN; any other null makes the column a list."""
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
        raise LoaderError(
            f"{what} needs the package {package}, which is not installed ({error}): `pip install {package}`."
            " `ParquetBatches` gives the same batches as Polars frames without it."
        ) from error
