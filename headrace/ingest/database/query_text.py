"""The text of a declared query: one SELECT that writes nothing, as far as its words tell without a database.

The database decides in the end: PostgreSQL runs the query inside another one in a READ ONLY transaction, SQLite as a
view of a file that is opened read-only. What is found here is found by `headrace check`, without a connection.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*|/\*.*?\*/)
  | (?P<text>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*')
  | (?P<quoted>"(?:[^"]|"")*"|`[^`]*`)
  | (?P<dollar>\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
  | (?P<word>[^\W\d][\w$]*)
  | (?P<number>\d[\w.]*)
  | (?P<mark>.)
    """,
    re.DOTALL | re.VERBOSE,
)
"""Tokens of SQL. A comment that nests, as PostgreSQL allows, ends early here: its rest is read as SQL, and refused."""

WRITES = frozenset({"delete", "insert", "merge", "update"})
LOCKS = frozenset({"key", "no", "share", "update"})
"""What follows FOR in a SELECT that locks its rows."""

OPEN_QUOTES = frozenset({"'", '"', "`"})


class QueryTextError(ValueError):
    """The text is not one SELECT that writes nothing."""


@dataclass(frozen=True)
class Token:
    """A token that is neither space nor comment.

    Attributes:
        kind: Name of its group in `TOKEN`.
        text: Its text, a word in lower case.
        start: Where it begins.
    """

    kind: str
    text: str
    start: int


def check_query(query: str) -> str:
    """The query without the semicolons at its end.

    Raises:
        QueryTextError: It is empty, not a SELECT, writes, is several statements, or a quote or parenthesis is open.
    """
    tokens, end = _tokens(query), len(query)
    while tokens and tokens[-1].text == ";":
        end = tokens.pop().start
    if not tokens:
        raise QueryTextError("expected a SELECT, found no statement")
    _check_marks(tokens)
    first = next((token for token in tokens if token.text != "("), tokens[0])
    if first.text not in {"select", "with"}:
        raise QueryTextError(f"expected a statement that begins with SELECT or WITH, found {first.text.upper()!r}")
    _check_reads_only(tokens)
    return query[:end]


def _tokens(query: str) -> list[Token]:
    found = []
    for match in TOKEN.finditer(query):
        kind = match.lastgroup if match.lastgroup != "tag" else "dollar"
        if kind not in {"space", "comment"}:
            text = match[0].lower() if kind == "word" else match[0]
            found.append(Token(kind or "", text, match.start()))
    return found


def _check_marks(tokens: list[Token]) -> None:
    depth = 0
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.kind != "mark":
            continue
        if token.text in OPEN_QUOTES:
            raise QueryTextError(f"the quote {token.text} is opened and not closed")
        if token.text == ";":
            raise QueryTextError("expected one statement, found several with `;` between them")
        if token.text == "*" and before and before.text == "/":
            raise QueryTextError("a comment is opened and not closed")
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth < 0:
            raise QueryTextError("a parenthesis is closed that was not opened")
    if depth:
        raise QueryTextError("a parenthesis is opened and not closed")


def _check_reads_only(tokens: list[Token]) -> None:
    """No statement that writes is part of it, no INTO and no lock: of two tokens, the second makes it one."""
    for before, token in pairwise(tokens):
        if token.kind != "word":
            continue
        if token.text in WRITES and before.text in {"(", ")"}:
            raise QueryTextError(f"expected a query that only reads, found {token.text.upper()} in it")
        if token.text == "into" and before.text != ".":
            raise QueryTextError("expected a query that only reads, found SELECT … INTO")
        if before.kind == "word" and before.text == "for" and token.text in LOCKS:
            raise QueryTextError(f"expected a query that only reads, found FOR {token.text.upper()}, which locks rows")
