"""Addresses of databases: parameters reach the server as written, and no message shows what they keep secret."""

import time
from pathlib import Path

import pytest
from servers import PostgreSQL
from weather import WEATHER, create_dataset

from headrace.ingest.database.backend import DatabaseAccessDeniedError, NullPartitionError
from headrace.ingest.database.read_transaction import open_read_transaction
from headrace.ingest.ingest import ingest
from headrace.settings import Settings
from headrace.storage.table_store import TableStore


def test_a_parameter_with_a_space_reaches_the_server(postgres: PostgreSQL) -> None:
    address = postgres.address() + "?options=-c%20statement_timeout%3D4321%20-c%20work_mem%3D5MB"

    with open_read_transaction(address) as transaction:
        backend = transaction.backend
        settings = backend.fetch_all("SELECT current_setting('statement_timeout'), current_setting('work_mem')", "")

    assert settings == [("4321ms", "5MB")]


def test_an_option_that_the_server_rejects_is_not_tried_again(postgres: PostgreSQL) -> None:
    started = time.monotonic()

    with (
        pytest.raises(DatabaseAccessDeniedError, match="no_such_timeout"),
        open_read_transaction(postgres.address() + "?options=-c%20no_such_timeout%3D1"),
    ):
        pass

    assert time.monotonic() - started < 10


@pytest.mark.parametrize("parameter", ["password", "sslpassword"])
def test_a_password_among_the_parameters_is_not_shown(postgres: PostgreSQL, parameter: str) -> None:
    address = postgres.address().replace(f":{postgres.password}@", "@")

    with (
        pytest.raises(DatabaseAccessDeniedError) as refused,
        open_read_transaction(f"{address}?{parameter}=se%2Ccret%20pw&sslmode=bogus"),
    ):
        pass

    assert "se,cret" not in str(refused.value)
    assert "se%2Ccret" not in str(refused.value)


@pytest.mark.parametrize("column", ["timestamptz", "date"])
def test_a_row_before_christ_is_refused_by_its_day(
    postgres: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    name = postgres.new_database()
    with postgres.connect(name) as database:
        database.execute(f"CREATE TABLE weather (origin text, at {column}, updated_at timestamptz)".encode())
        database.execute(
            "INSERT INTO weather VALUES ('EWR', '2013-01-01', '2013-01-01'), ('EWR', '0044-03-15 BC', now())"
        )
    monkeypatch.setenv("HEADRACE_DATABASE_URL", postgres.address(name))

    with pytest.raises(NullPartitionError, match=r"1 row has no UTC day in at \(found 0044-03-15 BC"):
        ingest(create_dataset(weather=WEATHER), TableStore.at(tmp_path), Settings())
