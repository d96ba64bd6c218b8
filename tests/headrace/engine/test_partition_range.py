"""`--from` and `--to`: the partitions that a range of time touches, whatever their grain."""

import pytest

from headrace.engine.partition_range import PartitionRange, PartitionRangeError

NAMES = ("2012", "2012-12", "2012-12-31", "2013-01-01", "2013-01-01T05", "2013-01-31", "2013-02-01", "all", "east")


@pytest.mark.parametrize(
    ("first", "last", "inside"),
    [
        ("2013-01-01", "2013-01-31", ["2013-01-01", "2013-01-01T05", "2013-01-31"]),
        ("2013-01", "2013-01", ["2013-01-01", "2013-01-01T05", "2013-01-31"]),
        ("2013-01-01T06", None, ["2013-01-01", "2013-01-31", "2013-02-01"]),
        (None, "2012-12-30", ["2012", "2012-12"]),
        (None, "2013-01-01T04", ["2012", "2012-12", "2012-12-31", "2013-01-01"]),
    ],
)
def test_a_partition_is_in_the_range_if_its_time_overlaps_it(
    first: str | None, last: str | None, inside: list[str]
) -> None:
    chosen = PartitionRange(first, last)

    assert [name for name in NAMES if name in chosen] == inside


@pytest.mark.parametrize("ends", [("yesterday", None), ("2013-02-30", None), (None, "all"), ("2013-02", "2013-01")])
def test_ends_that_are_no_times_in_order_are_refused(ends: tuple[str | None, str | None]) -> None:
    with pytest.raises(PartitionRangeError, match=r"--from and --to: "):
        PartitionRange(*ends)
