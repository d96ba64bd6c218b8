"""The oracle of point-in-time joins: nested loops over plain rows, without a library, an index or sorting."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def expected_row(
    request: Row, table: Sequence[Row], keys: Sequence[str], ttl: int | None, *, as_known: bool = True
) -> Row | None:
    """The row of `table` that a request must get; times (`at`, `event_time`, `known_time`) are whole nanoseconds."""
    best: Row | None = None
    for row in table:
        if any(row[key] is None or row[key] != request[key] for key in keys):
            continue
        if row["event_time"] > request["at"] or (as_known and row["known_time"] > request["at"]):
            continue
        newer = best is None or (row["event_time"], row["known_time"]) >= (best["event_time"], best["known_time"])
        if newer:
            best = row
    if best is not None and ttl is not None and request["at"] - best["event_time"] > ttl:
        return None
    return best
