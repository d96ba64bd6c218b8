"""Loaders promise: together the processes see each row once an epoch; one that is started anew goes on where it was."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from headrace.retrieve.loaders import LoaderError, ParquetBatches, to_dask, to_hugging_face, to_torch
from headrace.storage import parquet, parquet_encoding
from headrace.storage.golden import check_writer

LARGE = 2**53 + 1


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten row groups of ten rows, and one of three."""
    check_writer()  # before row groups are other ones
    monkeypatch.setattr(parquet_encoding, "ROW_GROUP", 10)
    rows = pl.DataFrame({"n": range(103), "x": [None if n % 7 == 0 else n / 2 for n in range(103)], "s": ["t"] * 103})
    parquet.write_all(iter([rows]), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def read_ids(feed: ParquetBatches) -> list[int]:
    return [number for batch in feed for number in batch["n"]]


def test_a_file_that_lost_a_bit_is_refused_with_the_row_group(path: Path) -> None:
    values = np.random.default_rng(1).random(25)  # nothing that compression shortens
    parquet.write_all(iter([pl.DataFrame({"n": range(25), "x": values})]), path)
    content = bytearray(path.read_bytes())
    middle = np.sort(values[10:20])[5]  # statistics hold the least and the greatest
    content[content.index(middle.tobytes())] ^= 1
    path.write_bytes(content)
    assert pl.read_parquet(path)["x"].to_list() != values.tolist(), "who looks at no checksum sees another value"

    with pytest.raises(LoaderError, match=r"rows\.parquet: row group 1 cannot be read: .*CRC"):
        read_ids(ParquetBatches(path))

    assert read_ids(ParquetBatches(path, columns=["n"])) == [*range(25)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("seed", [None, 0, 5])
def test_the_processes_see_every_row_once(path: Path, count: int, seed: int | None) -> None:
    parts = [
        read_ids(ParquetBatches(path, batch_size=4, rank=index, world_size=count, seed=seed)) for index in range(count)
    ]

    assert sorted(number for part in parts for number in part) == list(range(103))


def test_without_a_seed_one_process_sees_the_rows_in_their_order(path: Path) -> None:
    assert read_ids(ParquetBatches(path, batch_size=4)) == list(range(103))
    assert [batch.height for batch in ParquetBatches(path, batch_size=4)][:4] == [4, 4, 2, 4]


def test_shares_of_ranks_are_shared_by_their_workers(path: Path) -> None:
    shares = [
        ParquetBatches(path, batch_size=4, rank=rank, world_size=2).shard(worker, 3)
        for rank in range(2)
        for worker in range(3)
    ]

    assert sorted(number for share in shares for number in read_ids(share)) == list(range(103))


@pytest.mark.parametrize("seed", [None, 5])
def test_a_process_that_is_started_anew_goes_on_after_the_batches_it_had(path: Path, seed: int | None) -> None:
    whole = list(ParquetBatches(path, batch_size=4, rank=1, world_size=3, seed=seed))

    rest = list(ParquetBatches(path, batch_size=4, rank=1, world_size=3, seed=seed, skip_batches=4))

    assert len(whole) == len(ParquetBatches(path, batch_size=4, rank=1, world_size=3))
    assert [batch["n"].to_list() for batch in rest] == [batch["n"].to_list() for batch in whole[4:]]


def test_a_seed_gives_one_order_an_epoch_and_another_the_next(path: Path) -> None:
    first, again, second = (read_ids(ParquetBatches(path, seed=5, epoch=epoch)) for epoch in (0, 0, 1))

    assert first == again
    assert sorted(first) == sorted(second) == list(range(103))
    assert first != second
    assert first != list(range(103))


def test_even_shares_have_the_same_number_of_batches_and_leave_out_less_than_one_each(path: Path) -> None:
    feeds = [ParquetBatches(path, batch_size=4, rank=index, world_size=4, drop_last=True) for index in range(4)]

    assert {len(feed) for feed in feeds} == {7}
    assert len(ParquetBatches(path, batch_size=4)) == 31


@pytest.mark.parametrize("wrong", [{"rank": 2, "world_size": 2}, {"batch_size": 0}, {"skip_batches": -1}])
def test_numbers_that_no_process_can_have_are_refused(path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(LoaderError, match="expected 0 <= rank < world_size"):
        ParquetBatches(path, **wrong)  # type: ignore[arg-type]


def test_dask_gets_the_rows_with_whole_numbers_whole_beside_nulls(tmp_path: Path) -> None:
    pl.DataFrame({"n": [LARGE, None, 3], "x": [0.5, None, 1.0]}).write_parquet(tmp_path / "rows.parquet")

    frame = to_dask(tmp_path / "rows.parquet").compute()

    assert str(frame["n"].dtype) == "Int64"
    assert frame["n"][0] == LARGE
    assert frame["n"].isna().tolist() == [False, True, False]


def test_hugging_face_gets_the_rows_with_whole_numbers_whole_beside_nulls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"n": [LARGE, None, 3], "x": [0.5, None, 1.0], "s": ["a", None, ""]}
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")

    assert to_hugging_face(tmp_path / "rows.parquet")[:] == rows
    assert to_hugging_face(tmp_path / "rows.parquet", ["n"])[:] == {"n": rows["n"]}


@pytest.mark.slow
def test_only_what_is_asked_for_is_imported() -> None:
    heavy = "{'torch', 'datasets', 'dask', 'pandas', 'feast', 'duckdb', 'sklearn'} & sys.modules.keys()"
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; from headrace.retrieve import loaders, splits, training_set; print({heavy})",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize(("ask", "package"), [(to_torch, "torch"), (to_hugging_face, "datasets")])
def test_a_package_that_is_not_there_is_named(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Any,  # noqa: ANN401  one takes a feed, the other a path
    package: str,
) -> None:
    for name in (package, f"{package}.utils", f"{package}.utils.data"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(LoaderError, match=rf"needs the package {package}.*pip install {package}"):
        ask(ParquetBatches(path) if ask is to_torch else path)


# --- PyTorch: what of it the data set touches, as small as it can be, since the package is not among ours ---


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Says which rank and worker this is."""
    here = SimpleNamespace(rank=0, ranks=1, worker=None)
    modules = {name: ModuleType(name) for name in ("torch", "torch.utils", "torch.utils.data", "torch.distributed")}
    modules["torch"].__dict__["from_numpy"] = np.array
    modules["torch.utils.data"].__dict__.update(
        IterableDataset=type("IterableDataset", (), {}), get_worker_info=lambda: here.worker
    )
    modules["torch.distributed"].__dict__.update(
        is_available=lambda: True,
        is_initialized=lambda: here.ranks > 1,
        get_rank=lambda: here.rank,
        get_world_size=lambda: here.ranks,
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return here


def test_ranks_and_workers_of_pytorch_see_every_row_once(path: Path, torch: SimpleNamespace) -> None:
    found: list[int] = []
    torch.ranks = 2
    for torch.rank in range(2):
        for worker in range(3):
            torch.worker = SimpleNamespace(id=worker, num_workers=3)
            found += [int(number) for batch in to_torch(ParquetBatches(path, batch_size=4)) for number in batch["n"]]

    assert sorted(found) == list(range(103))


@pytest.mark.usefixtures("torch")
def test_numbers_become_tensors_texts_a_list_and_a_null_among_floats_nan(path: Path) -> None:
    batch = next(iter(to_torch(ParquetBatches(path, batch_size=4))))

    assert isinstance(batch["n"], np.ndarray)
    assert batch["s"] == ["t"] * 4
    assert np.isnan(batch["x"]).tolist() == [True, False, False, False]


@pytest.mark.usefixtures("torch")
def test_a_pytorch_loader_goes_on_from_its_state_and_then_begins_the_next_epoch(path: Path) -> None:
    whole, half = (
        to_torch(ParquetBatches(path, batch_size=4, seed=1)),
        to_torch(ParquetBatches(path, batch_size=4, seed=1)),
    )
    every = [batch["n"].tolist() for batch in whole]
    begun = iter(half)
    had = [next(begun)["n"].tolist() for _ in range(5)]
    other = to_torch(ParquetBatches(path, batch_size=4, seed=1))

    other.load_state_dict(half.state_dict())
    rest = [batch["n"].tolist() for batch in other]

    assert had + rest == every
    assert other.state_dict() == {"epoch": 1, "skip_batches": 0}


# --- PyTorch itself, where it is: `python -m pip install torch` ---


@pytest.fixture
def loader() -> Any:  # noqa: ANN401  torch has no types here
    """PyTorch's `DataLoader`."""
    return pytest.importorskip("torch.utils.data", reason="PyTorch is not installed").DataLoader


def read_with_loader(loader: Any, feed: ParquetBatches, workers: int) -> list[int]:  # noqa: ANN401
    how = {"num_workers": workers, "multiprocessing_context": "spawn"} if workers else {}
    return [number for batch in loader(to_torch(feed), batch_size=None, **how) for number in batch["n"].tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_pytorch_itself_sees_every_row_once(path: Path, loader: Any, workers: int) -> None:  # noqa: ANN401
    assert sorted(read_with_loader(loader, ParquetBatches(path, batch_size=4, seed=1), workers)) == list(range(103))


def test_ranks_of_pytorch_itself_share_the_rows_and_their_workers_too(
    path: Path,
    tmp_path: Path,
    loader: Any,  # noqa: ANN401
) -> None:
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(path), str(tmp_path / "meet"), str(rank)], text=True, stdout=-1)
        for rank in range(2)
    ]
    found = [[int(number) for number in rank.communicate(timeout=240)[0].split()] for rank in ranks]

    assert loader
    assert all(found)
    assert sorted(found[0] + found[1]) == list(range(103))


def test_tensors_of_pytorch_itself_and_going_on_from_a_state(path: Path, loader: Any) -> None:  # noqa: ANN401
    torch = import_module("torch")
    whole, half = (
        to_torch(ParquetBatches(path, batch_size=4, seed=1)),
        to_torch(ParquetBatches(path, batch_size=4, seed=1)),
    )
    every = [batch["n"].tolist() for batch in loader(whole, batch_size=None)]
    begun = iter(half)
    had = [next(begun) for _ in range(5)]
    other = to_torch(ParquetBatches(path, batch_size=4, seed=1))

    other.load_state_dict(half.state_dict())
    rest = [batch["n"].tolist() for batch in loader(other, batch_size=None)]

    assert [batch["n"].tolist() for batch in had] + rest == every
    assert (had[0]["n"].dtype, had[0]["x"].dtype, had[0]["s"][0]) == (torch.int64, torch.float64, "t")


def as_rank(path: str, meet: str, rank: str) -> None:
    """One of two ranks, with two workers each: prints the rows that it sees."""
    distributed, loader = import_module("torch.distributed"), import_module("torch.utils.data").DataLoader
    distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=int(rank), world_size=2)
    print(*read_with_loader(loader, ParquetBatches(Path(path), batch_size=4, seed=1), 2))  # noqa: T201
    distributed.destroy_process_group()


if __name__ == "__main__":
    as_rank(*sys.argv[1:])
