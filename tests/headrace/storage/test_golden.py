"""No table is written by a Parquet writer that gives other bytes than the ones that tables are recorded with."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from headrace.storage import golden, parquet, parquet_encoding
from headrace.storage.golden import WriterChangedError

FRAME = pl.DataFrame({"a": [1]})


@pytest.fixture(autouse=True)
def _forget() -> None:
    golden.check_writer.cache_clear()


def test_the_writer_of_the_lock_file_gives_the_golden_bytes() -> None:
    assert golden.golden_hash() == golden.recorded()["sha256"]


@pytest.mark.slow
def test_another_process_with_other_threads_gives_them_too() -> None:
    script = "from headrace.storage.golden import golden_hash; print(golden_hash())"

    done = subprocess.run(
        [sys.executable, "-c", script], env={"POLARS_MAX_THREADS": "1"}, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == golden.recorded()["sha256"]


@pytest.mark.parametrize(
    "option", [{"compression": "zstd"}, {"version": "1.0"}, {"write_page_checksum": False}, {"data_page_size": 2048}]
)
def test_another_layout_of_the_same_rows_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, object]
) -> None:
    monkeypatch.setattr(parquet_encoding, "FORMAT", {**parquet_encoding.FORMAT, **option})

    with pytest.raises(WriterChangedError, match=r"other bytes here.*Nothing was written.*pip install 'polars=="):
        parquet.write(FRAME, tmp_path / "a.parquet")
    with pytest.raises(WriterChangedError):
        parquet.write_all(iter([FRAME]), tmp_path / "b.parquet")

    assert not list(tmp_path.iterdir())


def test_another_size_of_row_groups_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_encoding, "ROW_GROUP", parquet_encoding.ROW_GROUP // 2)

    with pytest.raises(WriterChangedError):
        parquet.to_parquet_bytes(FRAME)


def test_the_golden_bytes_are_computed_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.to_parquet_bytes(FRAME)
    monkeypatch.setattr(golden, "golden_hash", lambda: "other")

    assert parquet.to_parquet_bytes(FRAME)
