"""A range of partitions, as `--from` and `--to` name it."""

from dataclasses import dataclass

from headrace.errors import HeadraceError
from headrace.storage.partition_names import RecordedInterval, is_impossible_interval, partition_interval


class PartitionRangeError(HeadraceError):
    """The ends of a range are not two times in order."""


@dataclass(frozen=True)
class PartitionRange:
    """The partitions of a table that a range of time touches; those that stand for no time are not among them.

    Attributes:
        first: An hour, day, month or year in ISO 8601; None for no limit.
        last: The last one, which is included.

    Raises:
        PartitionRangeError: One of them is no time, or the last ends before the first begins.
    """

    first: str | None = None
    last: str | None = None

    def __post_init__(self) -> None:
        for name in (self.first, self.last):
            if name is not None and (partition_interval(name) == (None, None) or is_impossible_interval(name)):
                raise PartitionRangeError(
                    f"--from and --to: expected a year, month, day or hour such as 2013-01-09, found {name!r}."
                    " `--partition` names a single partition of any name."
                )
        start, end = self._interval
        if start and end and end <= start:
            raise PartitionRangeError(f"--from and --to: {self.last} ends before {self.first} begins.")

    @property
    def _interval(self) -> RecordedInterval:
        return (
            partition_interval(self.first)[0] if self.first else None,
            partition_interval(self.last)[1] if self.last else None,
        )

    def __contains__(self, partition: object) -> bool:
        """Whether the interval of a partition overlaps the range."""
        first, last = self._interval
        start, end = partition_interval(str(partition))
        if start is None or end is None:
            return False
        return (first is None or end > first) and (last is None or start < last)
