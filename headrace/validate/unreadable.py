"""The error for raw bytes that cannot be read, and the bounds that all readers have in common."""

from pathlib import Path

from headrace.errors import HeadraceError

MAX_BYTES, MAX_COLUMNS, MAX_FIELDS = 1 << 29, 10_000, 50_000_000
"""Most unpacked bytes, columns and fields of a file. Reading one takes several times its unpacked size."""

LONGEST_NAME = 10_000
"""Characters that the name of a column may have."""


class UnreadableError(HeadraceError):
    """The bytes of a raw partition cannot be read as what they are declared to be; `reason` says why, in few words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


def refused(path: Path, reason: str) -> UnreadableError:
    """The error for a file that cannot be read; `validate` adds to its reason which partition the file is."""
    return UnreadableError(
        f"{path}: {reason}. Have the producer send it again, whole, then run `headrace ingest` and"
        " `headrace validate`.",
        reason,
    )


def check_limit(path: Path, what: str, found: int, most: int) -> None:
    """Refuse a file that has more of something than is allowed."""
    if found > most:
        raise refused(path, f"it has {found:,} {what}, more than the {most:,} allowed")
