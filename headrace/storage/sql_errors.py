"""Which errors of a database pass by themselves, whichever driver reports them: ADBC, psycopg, sqlite3, SQLAlchemy.

No driver is imported: each keeps the server's code in an attribute of the error.
"""

import re
import sqlite3

TRANSIENT_STATES = frozenset(
    {
        "08",  # connection exception
        "40",  # transaction rollback: serialization failure, deadlock
        "53200",  # out of memory
        "53300",  # too many connections
        "55P03",  # lock not available: a lock timeout
        "57",  # operator intervention: statement canceled, server shutting down, crashed or starting up
    }
)
"""SQLSTATE codes, or their first two digits for the whole class (PostgreSQL's documentation, appendix A)."""

TRANSIENT_SQLITE_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
"""Another process holds the file, or its lock. Extended codes have the same low byte."""

CONNECTION_LOST = re.compile(
    r"connection refused"
    r"|connection reset"
    r"|broken pipe"
    r"|connection (to server )?(was |is )?(closed|lost|terminated)"
    r"|could not (receive data from|send data to) server"
    r"|closed the connection unexpectedly"
    r"|terminating connection"
    r"|ssl syscall error"
    r"|no connection to the server"
    r"|timeout expired|timed out|couldn't get a connection"
    r"|could not translate host name|name resolution"
    r"|network is unreachable|no route to host"
    r"|the database system is (starting up|shutting down|in recovery mode|not yet accepting connections)"
    r"|too many (clients|connections)|remaining connection slots",
    re.IGNORECASE,
)
"""What libpq and its drivers say where no SQLSTATE reaches us: while connecting, and when the connection is cut.

A refusal (wrong password, no such database, no access) is not among them, although drivers use the same class for it.
"""


def is_transient_sql_error(error: BaseException) -> bool:
    """Whether the same statement may succeed a little later."""
    cause = getattr(error, "orig", None) or error  # SQLAlchemy wraps the driver's error
    sqlite_code = getattr(cause, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in TRANSIENT_SQLITE_CODES
    state = getattr(cause, "sqlstate", None)
    if state:
        return state in TRANSIENT_STATES or state[:2] in TRANSIENT_STATES
    return bool(CONNECTION_LOST.search(str(cause)))
