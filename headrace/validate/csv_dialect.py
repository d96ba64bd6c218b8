"""How a delimited file is written."""

import codecs
from dataclasses import dataclass

from headrace.validate.readers import MAX_BYTES, MAX_COLUMNS, MAX_FIELDS


@dataclass(frozen=True)
class CsvDialect:
    """How a delimited file is written, and how large it may be. What is larger is refused before it is in memory.

    Attributes:
        separator: Between two fields.
        encoding: Of the text; a byte order mark is allowed before it.
        nulls: Fields that mean "not known".
        max_bytes: Most bytes that a file may have once unpacked.
        multiline: Whether a quoted field may contain line ends. If not, each line is a record, and one bad quote cannot
            swallow the lines after it.
        final_newline: Whether the last line must have an end. If not, a file that was cut after a whole field is not
            recognised.
        max_columns: Most columns that a file may have.
        max_fields: Most fields that a file may have, in all columns together: each takes 16 bytes of memory, however
            short it is.

    Raises:
        ValueError: No file can be read so.
    """

    separator: str = ","
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ("", "NA")
    max_bytes: int = MAX_BYTES
    multiline: bool = False
    final_newline: bool = True
    max_columns: int = MAX_COLUMNS
    max_fields: int = MAX_FIELDS

    def __post_init__(self) -> None:
        """Refuse what no file can be read with."""
        separator: object = self.separator
        nulls: object = self.nulls
        if not (
            isinstance(separator, str) and len(separator) == 1 and separator.isascii() and separator not in '"\r\n\0'
        ):
            raise ValueError(
                "CsvDialect: expected one ASCII character other than a quote or a line end as `separator`, found"
                f" {separator!r}"
            )
        try:
            codecs.lookup(self.encoding)
            "".encode(self.encoding)
        except (LookupError, TypeError):  # `encode` refuses what is no text encoding, such as base64
            raise ValueError(
                f"CsvDialect: expected the name of a text encoding such as 'utf-8' or 'cp1252', found {self.encoding!r}"
            ) from None
        if not (isinstance(nulls, tuple | list) and all(isinstance(null, str) for null in nulls)):
            raise ValueError(f"CsvDialect: expected a tuple of texts as `nulls`, found {nulls!r}")
        if not (isinstance(self.max_bytes, int) and self.max_bytes > 0):
            raise ValueError(f"CsvDialect: expected a number of bytes above 0 as `max_bytes`, found {self.max_bytes!r}")
