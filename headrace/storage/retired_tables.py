"""The file `retired_tables.yaml`: tables that a project no longer has, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import HeadraceError
from headrace.storage.files import parse_mapping

FILE = "retired_tables.yaml"


@dataclass(frozen=True)
class RetiredTable:
    """Why a table is not part of further releases.

    Attributes:
        reason: Why it was dropped, or that it was renamed.
        by: Who did it.
        at: When (UTC), in ISO 8601.
        renamed_to: Its new name; empty if it was dropped.
    """

    reason: str
    by: str
    at: str
    renamed_to: str = ""

    def __str__(self) -> str:
        """One line for people."""
        what = f"renamed to {self.renamed_to}" if self.renamed_to else "dropped"
        return f"{what} by {self.by} on {self.at[:16].replace('T', ' ')} UTC: {self.reason}"


def parse_retired_tables(text: bytes) -> dict[str, RetiredTable]:
    """Table → why it is retired, from the file's content at some commit."""
    return decode_retired_tables(parse_mapping(text, Path(FILE)), FILE)


def decode_retired_tables(content: Mapping[str, object], where: str) -> dict[str, RetiredTable]:
    """Table → why it is retired, from the parsed file.

    Raises:
        HeadraceError: It holds something else.
    """
    try:
        return {table: RetiredTable(**fields) for table, fields in content.items()}  # type: ignore[arg-type]
    except TypeError as error:
        raise HeadraceError(
            f"{where}: expected a mapping of tables to `reason`, `by`, `at` and perhaps `renamed_to`: {error}. Restore"
            f" it: `git checkout -- {FILE}`."
        ) from None
