"""Python source as `ruff format` lays it out: literals, calls and imports within 120 columns."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

WIDTH = 120
INDENT = "    "


def literal(text: str) -> str:
    """A string literal: double quotes unless they would need more escapes; characters that look like others escaped."""
    plain = all(letter.isascii() or _is_latin_letter(letter) for letter in text)
    body = (repr if plain else ascii)(text + "'\"")[1:-1].removesuffix("\\'\"")  # both quotes: repr then escapes '
    if text.count('"') > text.count("'"):
        return f"'{body}'"
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'


def raw_literal(text: str) -> str:
    """A literal of a regular expression."""
    if '"' in text or not text.isascii() or not text.isprintable() or text.endswith("\\"):
        return literal(text)
    return f'r"{text}"' if "\\" in text else f'"{text}"'


def _is_latin_letter(letter: str) -> bool:
    return letter.isalpha() and "\xc0" <= letter <= "\xff"


def call(function: str, arguments: Sequence[str], *, before: str = "", after: str = "", depth: int = 0) -> str:
    """A call, on one line where it fits, else with its arguments on a line of their own, else one per line."""
    indent = INDENT * depth
    one_line = f"{indent}{before}{function}({', '.join(arguments)}){after}"
    if len(one_line) <= WIDTH and "\n" not in one_line:
        return one_line
    hugged = f"{indent}{INDENT}{', '.join(arguments)}"
    if len(hugged) <= WIDTH and "\n" not in hugged:
        return f"{indent}{before}{function}(\n{hugged}\n{indent}){after}"
    return exploded(function, arguments, before=before, after=after, depth=depth)


def exploded(function: str, arguments: Iterable[str], *, before: str = "", after: str = "", depth: int = 0) -> str:
    """A call with one argument per line; its last comma keeps the formatter from joining them."""
    indent = INDENT * depth
    lines = "".join(f"{indent}{INDENT}{argument},\n" for argument in arguments)
    return f"{indent}{before}{function}(\n{lines}{indent}){after}"


def sequence(items: Sequence[str]) -> str:
    """A tuple."""
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def wrapped(text: str, *, first: str = "", rest: str = "") -> str:
    """Prose in lines of at most 120 columns."""
    lines, line = [], first
    for word in text.split():
        gap = "" if line in (first, rest) else " "
        if len(line) + len(gap) + len(word) > WIDTH and line not in (first, rest):
            lines.append(line)
            line, gap = rest, ""
        line += gap + word
    return "\n".join([*lines, line])


def prose(text: str) -> str:
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
