"""Times of day that Polars would read as null are refused by column and value, wherever in a Parquet file they are."""

from datetime import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.validate.parquet_reader import read_parquet
from headrace.validate.unreadable import UnreadableError

MICROSECONDS = pa.time64("us")
MIDNIGHT = 86_400_000_000


def write(folder: Path, ticks: list[object], storage: pa.DataType, kind: pa.DataType) -> Path:
    path = folder / "2013-01-09.parquet"
    pq.write_table(pa.table({"id": range(len(ticks)), "at": pa.array(ticks, storage).cast(kind)}), path)
    return path


@pytest.mark.parametrize(
    ("ticks", "storage", "kind", "value"),
    [
        ([0, None, MIDNIGHT], pa.int64(), MICROSECONDS, "24:00:00"),
        ([86_400_000], pa.int32(), pa.time32("ms"), "24:00:00"),
        ([-1], pa.int64(), MICROSECONDS, "-1 us"),
        ([MIDNIGHT * 1000 + 1], pa.int64(), pa.time64("ns"), "86400000000001 ns"),
        ([None, [], [0, MIDNIGHT]], pa.list_(pa.int64()), pa.list_(MICROSECONDS), "24:00:00"),
        (
            [{"open": [{"t": MIDNIGHT}]}],
            pa.struct({"open": pa.list_(pa.struct({"t": pa.int64()}))}),
            pa.struct({"open": pa.list_(pa.struct({"t": MICROSECONDS}))}),
            "24:00:00",
        ),
    ],
    ids=str,
)
def test_a_time_outside_of_the_day_is_refused_by_column_and_value(
    tmp_path: Path, ticks: list[object], storage: pa.DataType, kind: pa.DataType, value: str
) -> None:
    path = write(tmp_path, ticks, storage, kind)

    with pytest.raises(UnreadableError, match=f"the column at holds the time {value}, "):
        read_parquet(path)


def test_a_time_outside_of_the_day_is_refused_in_a_map(tmp_path: Path) -> None:
    times = pa.array([0, MIDNIGHT], pa.int64()).cast(MICROSECONDS)
    hours = pa.MapArray.from_arrays(pa.array([0, 2], pa.int32()), pa.array(["open", "close"]), times)
    pq.write_table(pa.table({"hours": hours}), tmp_path / "2013-01-09.parquet")

    with pytest.raises(UnreadableError, match=r"the column hours holds the time 24:00:00, "):
        read_parquet(tmp_path / "2013-01-09.parquet")


def test_times_of_the_day_are_read_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, [0, None, MIDNIGHT - 1], pa.int64(), MICROSECONDS)

    rows = read_parquet(path)

    assert rows.schema == {"id": pl.Int64, "at": pl.Time}
    assert rows["at"].to_list() == [time(0), None, time(23, 59, 59, 999999)]
