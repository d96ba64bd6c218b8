"""Python source as `ruff format` lays it out: literals, calls and imports within 120 columns."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from textwrap import fill

WIDTH = 120
INDENT = "    "


def string_literal(text: str) -> str:
    """A string literal: double quotes unless they would need more escapes; characters that look like others escaped."""
    plain = all(letter.isascii() or _is_latin_letter(letter) for letter in text)
    body = (repr if plain else ascii)(text + "'\"")[1:-1].removesuffix("\\'\"")  # both quotes: repr then escapes '
    if text.count('"') > text.count("'"):
        return f"'{body}'"
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'


def regex_literal(text: str) -> str:
    """A literal of a regular expression."""
    if '"' in text or not text.isascii() or not text.isprintable() or text.endswith("\\"):
        return string_literal(text)
    return f'r"{text}"' if "\\" in text else f'"{text}"'


def _is_latin_letter(letter: str) -> bool:
    return letter.isalpha() and "\xc0" <= letter <= "\xff"


def format_call(function: str, arguments: Sequence[str], *, before: str = "", after: str = "", depth: int = 0) -> str:
    """A call, on one line where it fits, else with its arguments on a line of their own, else one per line."""
    indent = INDENT * depth
    one_line = f"{indent}{before}{function}({', '.join(arguments)}){after}"
    if len(one_line) <= WIDTH and "\n" not in one_line:
        return one_line
    hugged = f"{indent}{INDENT}{', '.join(arguments)}"
    if len(hugged) <= WIDTH and "\n" not in hugged:
        return f"{indent}{before}{function}(\n{hugged}\n{indent}){after}"
    return format_call_one_per_line(function, arguments, before=before, after=after, depth=depth)


def format_call_one_per_line(
    function: str, arguments: Iterable[str], *, before: str = "", after: str = "", depth: int = 0
) -> str:
    """A call with one argument per line; its last comma keeps the formatter from joining them."""
    indent = INDENT * depth
    lines = "".join(f"{indent}{INDENT}{argument},\n" for argument in arguments)
    return f"{indent}{before}{function}(\n{lines}{indent}){after}"


def tuple_literal(items: Sequence[str]) -> str:
    """A tuple of these expressions, on one line."""
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def wrap_prose(text: str, *, first: str = "", rest: str = "") -> str:
    """Prose in lines of at most 120 columns, which begin with `first` and then with `rest`."""
    return fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def escape_for_docstring(text: str) -> str:
    """Text for a docstring: one line, printable, without what would end the docstring or escape its end."""
    shown = "".join(
        letter if letter.isprintable() and (letter.isascii() or letter.isalpha()) else "?" for letter in text
    )
    return shown.replace("\\", "/").replace('"""', "'''")


def snake_case(text: str) -> str:
    """A column's or a table's name in lower-case ASCII letters, digits and underscores; empty if nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", ascii_text)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def class_name(text: str) -> str:
    """A class's name for a table's."""
    return "".join(word.capitalize() for word in snake_case(text).split("_")) or "Table"
