"""Errors of real databases through every driver: those that pass by themselves are told from those that do not."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from adbc_driver_manager import Error as AdbcError
from adbc_driver_postgresql import dbapi
from servers import HOST, PostgreSQL, free_port
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from headrace.storage.sql_errors import is_transient_sql_error

Ask = Callable[[str, str], None]
"""Connects to an address and runs statements there."""


def adbc(address: str, statements: str) -> None:
    with closing(dbapi.connect(address)) as connection, closing(connection.cursor()) as cursor:
        for statement in statements.split(";"):
            cursor.execute(statement)
            cursor.fetchall()


def through_psycopg(address: str, statements: str) -> None:
    with psycopg.connect(address, connect_timeout=5) as connection:
        connection.execute(statements.encode())


def sqlalchemy(address: str, statements: str) -> None:
    engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements.split(";"):
            connection.execute(text(statement))


DRIVERS: dict[str, tuple[Ask, type[Exception]]] = {
    "adbc": (adbc, AdbcError),
    "psycopg": (through_psycopg, psycopg.Error),
    "sqlalchemy": (sqlalchemy, SQLAlchemyError),
}


@pytest.fixture(params=DRIVERS)
def failure(request: pytest.FixtureRequest) -> Callable[[str, str], Exception]:
    """The error with which a driver fails."""
    ask, kind = DRIVERS[request.param]

    def fail(address: str, statements: str = "SELECT 1") -> Exception:
        with pytest.raises(kind) as raised:
            ask(address, statements)
        return raised.value

    return fail


@pytest.fixture
def database(postgres: PostgreSQL) -> tuple[PostgreSQL, str]:
    """A database of the test's own: the server, and its name."""
    name = postgres.new_database()
    with postgres.connect(name) as connection:
        connection.execute("CREATE TABLE numbers (id int PRIMARY KEY, value int)")
        connection.execute("INSERT INTO numbers VALUES (1, 1), (2, 2)")
    return postgres, name


def address(server: PostgreSQL, name: str, *, port: int | None = None, user: str = "", password: str = "") -> str:
    account = f"{user or server.user}:{password or server.password}"
    return f"postgresql://{account}@{HOST}:{port or server.port}/{name}"


Failure = Callable[..., Exception]


# They pass


def test_a_server_that_is_down(database: tuple[PostgreSQL, str], failure: Failure) -> None:
    assert is_transient_sql_error(failure(address(*database, port=free_port())))


def test_a_connection_that_an_administrator_ends(database: tuple[PostgreSQL, str], failure: Failure) -> None:
    server, name = database

    error = failure(address(server, name), "SELECT pg_terminate_backend(pg_backend_pid())")

    assert is_transient_sql_error(error), error


@pytest.mark.parametrize("setting", ["lock_timeout", "statement_timeout"])
def test_a_lock_that_another_transaction_holds_too_long(
    database: tuple[PostgreSQL, str], failure: Failure, setting: str
) -> None:
    server, name = database
    with server.connect(name) as holder, holder.transaction():
        holder.execute("LOCK TABLE numbers")

        error = failure(address(server, name), f"SET {setting} = '100ms'; SELECT * FROM numbers")  # noqa: S608

    assert is_transient_sql_error(error), error


def test_too_many_connections(database: tuple[PostgreSQL, str], failure: Failure) -> None:
    server, name = database
    with server.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS narrow")
        connection.execute("CREATE ROLE narrow LOGIN PASSWORD 'narrow' CONNECTION LIMIT 0")

    error = failure(address(server, name, user="narrow", password="narrow"))  # noqa: S106

    assert is_transient_sql_error(error), error


def test_a_deadlock(database: tuple[PostgreSQL, str]) -> None:
    server, name = database
    errors: list[BaseException] = []

    def update(first: int, second: int) -> None:
        try:
            with psycopg.connect(address(server, name)) as connection:
                connection.execute("UPDATE numbers SET value = 0 WHERE id = %s", [first])
                met.wait(10)
                connection.execute("UPDATE numbers SET value = 0 WHERE id = %s", [second])
        except psycopg.Error as error:
            errors.append(error)

    met = threading.Barrier(2)
    threads = [threading.Thread(target=update, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (error,) = errors
    assert is_transient_sql_error(error)


def test_a_transaction_that_cannot_be_serialized(database: tuple[PostgreSQL, str]) -> None:
    server, name = database
    with psycopg.connect(address(server, name)) as one, psycopg.connect(address(server, name)) as two:
        for connection in (one, two):
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SELECT * FROM numbers")
        one.execute("UPDATE numbers SET value = 3")
        one.commit()
        with pytest.raises(psycopg.Error) as raised:
            two.execute("UPDATE numbers SET value = 4")
        two.rollback()

    assert is_transient_sql_error(raised.value)


@pytest.mark.parametrize(
    "said",
    [
        "connection to server failed: FATAL:  the database system is starting up",
        "connection to server failed: FATAL:  the database system is shutting down",
        "connection to server failed: FATAL:  sorry, too many clients already",
        'could not translate host name "db" to address: Temporary failure in name resolution',
        "could not receive data from server: Connection timed out",
        "server closed the connection unexpectedly",
        "SSL SYSCALL error: EOF detected",
        "connection to server failed: timeout expired",
    ],
)
def test_what_libpq_says_of_a_server_that_is_unavailable(said: str) -> None:
    assert is_transient_sql_error(psycopg.OperationalError(said))


# They do not


def test_a_wrong_password(database: tuple[PostgreSQL, str], failure: Failure) -> None:
    assert not is_transient_sql_error(failure(address(*database, password="wrong")))  # noqa: S106


def test_a_database_that_does_not_exist(postgres: PostgreSQL, failure: Failure) -> None:
    assert not is_transient_sql_error(failure(address(postgres, "nowhere")))


def test_an_option_whose_name_holds_the_word_timeout(database: tuple[PostgreSQL, str], failure: Failure) -> None:
    assert not is_transient_sql_error(failure(address(*database) + "?options=-c%20statement_timeot%3D5s"))


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM nowhere", "SELEC 1", "SELECT nothing FROM numbers", "SELECT 1/0", "SELECT 'timed out'::int"],
)
def test_a_statement_that_can_only_fail(database: tuple[PostgreSQL, str], failure: Failure, statement: str) -> None:
    server, name = database

    assert not is_transient_sql_error(failure(address(server, name), statement))


def test_a_table_that_may_not_be_read(database: tuple[PostgreSQL, str], failure: Failure) -> None:
    server, name = database
    with server.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS stranger")
        connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")

    error = failure(address(server, name, user="stranger", password="stranger"), "SELECT * FROM numbers")  # noqa: S106

    assert not is_transient_sql_error(error)


# SQLite


def test_an_sqlite_file_that_another_process_holds_passes_and_its_other_errors_do_not(tmp_path: Path) -> None:
    path = tmp_path / "numbers.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("CREATE TABLE numbers (id int)")
    holder.execute("BEGIN EXCLUSIVE")
    plain = sqlite3.connect(path, timeout=0.01)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.01}, poolclass=NullPool)

    with pytest.raises(sqlite3.OperationalError) as locked:
        plain.execute("SELECT * FROM numbers")
    with pytest.raises(SQLAlchemyError) as locked_too, engine.connect() as connection:
        connection.execute(text("SELECT * FROM numbers"))
    holder.execute("ROLLBACK")
    with pytest.raises(sqlite3.OperationalError) as missing:
        plain.execute("SELECT * FROM nowhere")
    with pytest.raises(sqlite3.OperationalError) as syntax:
        plain.execute("SELEC")
    for one in (plain, holder):
        one.close()

    assert is_transient_sql_error(locked.value)
    assert is_transient_sql_error(locked_too.value)
    assert not is_transient_sql_error(missing.value)
    assert not is_transient_sql_error(syntax.value)
