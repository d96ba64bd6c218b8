"""The text of a query: one SELECT that writes nothing, whatever its quotes and comments hold."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.ingest.database.query_text import QueryTextError, check_query

PIECES = (
    "'",
    "''",
    '"',
    "`",
    ";",
    "--",
    "\n",
    "/*",
    "*/",
    "$$",
    "$q$",
    "(",
    ")",
    "\\",
    "E'",
    "DELETE",
    "INTO",
    " ",
    "x",
)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS one",
        "select a from t where b = ';' and c = 'it''s (' and d = E'\\';' -- ; ) '",
        "(SELECT a FROM t) UNION ALL (SELECT b FROM u)",
        "WITH x AS (SELECT a FROM t) SELECT a::text, a[1:2], b % 2 AS odd FROM x /* ; ( */",
        'SELECT "into", "a;b" AS "c--d", update, deleted, t.into FROM t',
        "SELECT $$ ; ( ' $$ AS a, $q$ ; $$ $q$ AS b FROM t",
        "SELECT a FROM t WHERE b IN (SELECT insert_id FROM u) AND c ~ '^\\d+$'",
    ],
)
def test_a_select_is_taken_as_it_is(query: str) -> None:
    assert check_query(query) == query


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "found no statement"),
        (" -- nothing\n ; ", "found no statement"),
        ("SELECT 1; SELECT 2", "several with `;`"),
        ("SELECT 1; DROP TABLE t; --", "several with `;`"),
        ("SELECT 1) AS q; DROP TABLE t; --", "closed that was not opened"),
        ("SELECT (1", "opened and not closed"),
        ("SELECT 'a", "the quote ' is opened"),
        ('SELECT "a', 'the quote " is opened'),
        ("SELECT a /* from t", "a comment is opened"),
        ("DELETE FROM t", "begins with SELECT or WITH, found 'DELETE'"),
        ("EXPLAIN SELECT 1", "found 'EXPLAIN'"),
        ("WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone", "found DELETE"),
        ("WITH new AS ( -- one\n INSERT INTO t VALUES (1)) SELECT 1", "found INSERT"),
        ("WITH x AS (SELECT 1) UPDATE t SET a = 1", "found UPDATE"),
        ("SELECT a INTO other FROM t", "SELECT … INTO"),
        ("SELECT a FROM t FOR UPDATE", "FOR UPDATE"),
        ("SELECT a FROM t FOR NO KEY UPDATE", "FOR NO"),
        ("SELECT a /* one /* two */ ; DROP TABLE t; */ FROM t", "several with `;`"),
    ],
)
def test_what_is_not_one_select_that_only_reads_is_refused_with_the_reason(query: str, reason: str) -> None:
    with pytest.raises(QueryTextError, match=reason):
        check_query(query)


@settings(max_examples=150)
@example([";", "--"])
@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_a_second_statement_is_found_wherever_quotes_and_comments_end(pieces: list[str]) -> None:
    """The oracle is a scanner of one character at a time, for what can hide a semicolon."""
    query = f"SELECT a {''.join(pieces)} b"
    try:
        check_query(query)
    except QueryTextError:
        return

    assert not _has_bare_semicolon(query), query


def _has_bare_semicolon(query: str) -> bool:
    """Whether anything but blanks, comments and semicolons comes after a semicolon."""
    place, is_ended = 0, False
    while place < len(query):
        rest = query[place:]
        escaped = rest[:2].lower() == "e'" and not query[place - 1 : place].isalnum()
        if rest.startswith("--"):
            place = query.find("\n", place) if "\n" in rest else len(query)
        elif rest.startswith("/*"):
            place = query.index("*/", place + 2) + 2
        elif is_ended and not rest[0].isspace() and rest[0] != ";":
            return True
        elif escaped or rest[0] in "'\"`":
            place = _end_of_quote(query, place + escaped, rest[1] if escaped else rest[0], has_escapes=escaped)
        elif rest.startswith(("$$", "$q$")) and not query[place - 1 : place].isalnum():
            tag = "$$" if rest.startswith("$$") else "$q$"
            if tag in rest[len(tag) :]:
                place = query.index(tag, place + len(tag)) + len(tag)
            else:
                place += 1
        else:
            is_ended = is_ended or rest[0] == ";"
            place += 1
    return False


def _end_of_quote(query: str, start: int, quote: str, *, has_escapes: bool) -> int:
    place = start + 1
    while query[place] != quote or (query[place : place + 2] == quote * 2 and quote != "`"):
        place += 2 if query[place] == quote or (has_escapes and query[place] == "\\") else 1
    return place + 1
