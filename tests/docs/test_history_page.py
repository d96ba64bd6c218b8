"""The recipe of `docs/history.md` is run as it stands: a table is recorded, and sales join the price of their time."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType

import dataframely as dy
import minimal_dataset
import polars as pl
import pytest
from doc_pages import code_blocks
from workspaces import REPOSITORY

from headrace.dataset import Source
from headrace.ingest.database.read_transaction import ReadTransaction
from headrace.ingest.ingest import ingest
from headrace.project.declaration_check import check_declaration
from headrace.settings import Settings
from headrace.validate.columns import utc_time


class Prices(dy.Schema):
    """Prices of items."""

    item = dy.String()
    cents = dy.Int64()
    updated_at = utc_time()


def as_sales(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(item="shop", sold_at="at")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with the page's Python."""
    blocks = code_blocks((REPOSITORY / "docs/history.md").read_text("utf-8"), "python")
    (tmp_path / "history_recipe.py").write_text("\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    return import_module("history_recipe")


def test_the_recipe_joins_the_price_that_was_known(
    page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_DATABASE_URL", f"sqlite:///{tmp_path}/prices.db")
    table_store = minimal_dataset.create_table_store(tmp_path / "workspace")
    prices = Source("prices", page.PRICES, pl.read_parquet, Prices, minimal_dataset.keep_rows, ("item",))
    sales = replace(minimal_dataset.SALES, transform=as_sales, key=("sold_at", "item"))
    dataset = replace(minimal_dataset.DATASET, sources=(sales, prices), features=(page.TABLE,))
    lines = "".join(f"2026-01-01T{hour:02}:00:00Z,pen,1\n" for hour in (5, 9, 12, 20))
    minimal_dataset.write_raw_partitions(table_store, {"2026-01-01": lines})

    def read_at(hour: int, statement: str) -> None:
        with closing(sqlite3.connect(tmp_path / "prices.db")) as connection, connection:
            connection.executescript(statement)
        time = datetime(2026, 1, 1, hour, tzinfo=UTC)
        monkeypatch.setattr(ReadTransaction, "current_time", lambda _self: time)
        ingest(dataset, table_store, Settings(), sources=["prices"])

    read_at(
        8,
        "CREATE TABLE prices (item TEXT, cents INTEGER, updated_at TIMESTAMP);"
        "INSERT INTO prices VALUES ('pen', 90, '2025-12-01T00:00:00Z'), ('ink', 5, '2025-12-01T00:00:00Z')",
    )
    read_at(16, "UPDATE prices SET cents = 95, updated_at = '2026-01-01T11:00:00Z'")
    read_at(18, "DELETE FROM prices WHERE item = 'pen'")
    minimal_dataset.run_all_stages(table_store, dataset)

    rows = table_store.scan("features/tiny/sold").sort("event_time").collect()
    assert rows["cents"].to_list() == [None, 90, 95, None]
    assert [found for found in check_declaration(dataset, REPOSITORY) if found.level == "error"] == []
