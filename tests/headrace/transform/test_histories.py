"""A history that features join: rows as known at a time, against nested loops, and through validate and transform."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dataframely as dy
import minimal_dataset
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workspaces import REPOSITORY

from headrace.as_known import as_known, join_as_known
from headrace.dataset import KNOWN_TIME, OPERATION, UTC_MICROSECONDS, Dataset, FeatureTable, Input, Source, TableSource
from headrace.engine.run import StageResult
from headrace.errors import HeadraceError
from headrace.ingest.database.read_transaction import ReadTransaction
from headrace.ingest.ingest import ingest
from headrace.ingest.table_history import RecordedHistory, SnapshotRows, find_changes
from headrace.lineage.row_lookup import RowMatch
from headrace.partitions import Interval, Monthly, Partitions, Unpartitioned
from headrace.project.declaration_check import check_declaration
from headrace.settings import Settings
from headrace.storage.table_store import TableStore
from headrace.validate.column_history import evolving
from headrace.validate.columns import utc_time
from headrace.validate.errors import SchemaChangedError
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.stage import TooManyRejectedError

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PRICES = TableSource("prices", ("item",), "updated_at", history=True)
SCHEMA = {"item": pl.String(), "cents": pl.Int64(), "updated_at": UTC_MICROSECONDS}

# --- random edits, read at random moments ---

Version = tuple[int, datetime | None]
"""Cents and watermark."""


@dataclass(frozen=True)
class Edit:
    """What happens to the table in an hour, and whether it is read at the end of the hour."""

    item: str
    cents: int | None
    lag: int | None
    is_read: bool

    def mark(self, hour: datetime) -> datetime | None:
        """The watermark: some hours before now or after; None for NULL."""
        return None if self.lag is None else hour - self.lag * HOUR


EDITS = st.lists(
    st.builds(
        Edit,
        item=st.sampled_from("ab"),
        cents=st.one_of(st.none(), st.integers(1, 3)),
        lag=st.one_of(st.none(), st.integers(-2, 4)),
        is_read=st.booleans(),
    ),
    max_size=12,
)


def read_moments(edits: Sequence[Edit]) -> Iterator[tuple[datetime, dict[str, Version]]]:
    """When the table is read, and what it holds then."""
    table: dict[str, Version] = {}
    for number, edit in enumerate(edits):
        hour = START + number * HOUR
        table.pop(edit.item, None)
        if edit.cents is not None:
            table[edit.item] = edit.cents, edit.mark(hour)
        if edit.is_read:
            yield hour, dict(table)


def record(edits: Sequence[Edit]) -> pl.DataFrame:
    changes = pl.DataFrame(
        schema={**SCHEMA, "known_time": UTC_MICROSECONDS, "seen_time": UTC_MICROSECONDS, "operation": pl.String()}
    )
    for seen, table in read_moments(edits):
        rows = pl.DataFrame([(item, *version) for item, version in table.items()], schema=SCHEMA, orient="row")
        last = changes["seen_time"].max()
        state = changes.sort("known_time").unique("item", keep="last")
        history = RecordedHistory(state, last) if isinstance(last, datetime) else RecordedHistory(pl.DataFrame())
        changes = pl.concat([changes, find_changes(history, SnapshotRows(rows, seen, "", {}), PRICES)])
    return changes


def expected_changes(edits: Sequence[Edit]) -> list[tuple[str, int | None, datetime]]:
    """Item, cents (None: deleted) and known time of every change, by the rule as the page states it."""
    found: list[tuple[str, int | None, datetime]] = []
    before: dict[str, Version] = {}
    recorded: datetime | None = None
    for seen, table in read_moments(edits):
        new: list[tuple[str, int | None, datetime]] = []
        for item in "ab":
            if item in table and (item not in before or before[item][0] != table[item][0]):
                cents, mark = table[item]
                is_evidence = recorded is not None and mark is not None and recorded < mark <= seen
                new.append((item, cents, mark if is_evidence and mark else seen))
            if item in before and item not in table:
                new.append((item, None, seen))
        if new:
            found, recorded = found + new, seen
        before = table
    return found


def known(changes: Sequence[tuple[str, int | None, datetime]], item: str, at: datetime) -> int | None:
    """Nested loops: of the changes of an item that were known, the latest."""
    best: tuple[datetime, int | None] | None = None
    for each, cents, time in changes:
        if each == item and time <= at and (best is None or time >= best[0]):
            best = time, cents
    return best[1] if best else None


@given(EDITS)
@settings(max_examples=60, deadline=None)
def test_what_was_known_at_any_time_is_what_nested_loops_find(edits: list[Edit]) -> None:
    history, expected = record(edits), expected_changes(edits)
    times = [START + number * HOUR / 2 for number in range(-2, 2 * len(edits) + 6)]
    frame = pl.DataFrame(
        [(item, time) for time in reversed(times) for item in "abx"],
        schema={"item": pl.String, "at": UTC_MICROSECONDS},
        orient="row",
    )

    joined = join_as_known(frame.lazy(), history.lazy(), on="item", at="at").collect()

    assert joined.select("item", "at").equals(frame)
    assert joined["cents"].to_list() == [known(expected, item, time) for item, time in frame.iter_rows()]
    for time in times:
        rows = as_known(history.lazy(), key="item", at=time).collect()
        there = {item: cents for item in "ab" if (cents := known(expected, item, time)) is not None}
        assert dict(rows.select("item", "cents").iter_rows()) == there


@given(EDITS)
@settings(max_examples=60, deadline=None)
def test_what_a_recorded_snapshot_showed_is_known_at_its_time_for_ever(edits: list[Edit]) -> None:
    history = record(edits)
    recorded = set(history["seen_time"])

    for seen, table in read_moments(edits):
        if seen in recorded:
            rows = as_known(history.lazy(), key="item", at=seen).collect()
            assert dict(rows.select("item", "cents").iter_rows()) == {item: cents for item, (cents, _) in table.items()}


# --- the helpers ---


def changes(*rows: tuple[str, int, int, str]) -> pl.LazyFrame:
    """Item, cents, hour and operation."""
    return pl.LazyFrame(
        [(item, cents, START + hour * HOUR, START + hour * HOUR, kind) for item, cents, hour, kind in rows],
        schema={
            "item": pl.String,
            "cents": pl.Int64,
            "known_time": UTC_MICROSECONDS,
            "seen_time": UTC_MICROSECONDS,
            "operation": pl.String,
        },
        orient="row",
    )


def test_a_joined_row_says_when_it_became_known() -> None:
    history = changes(("a", 1, 2, "insert"), ("a", 1, 5, "delete"))
    frame = pl.LazyFrame({"item": ["a", "a", "a"], "at": [START + hour * HOUR for hour in (1, 2, 5)]})
    frame = frame.with_columns(pl.col("at").cast(UTC_MICROSECONDS))

    joined = join_as_known(frame, history, on="item", at="at", known_time="price_known").collect()

    assert joined.columns == ["item", "at", "cents", "price_known"]
    assert joined.select("cents", "price_known").rows() == [(None, None), (1, START + 2 * HOUR), (None, None)]


def test_a_row_without_a_key_or_a_time_receives_nothing() -> None:
    frame = pl.LazyFrame(
        {"item": [None, "a"], "at": [START + 9 * HOUR, None]}, schema={"item": pl.String, "at": UTC_MICROSECONDS}
    )

    joined = join_as_known(frame, changes(("a", 1, 2, "insert")), on="item", at="at").collect()

    assert joined["cents"].to_list() == [None, None]
    assert joined["item"].to_list() == [None, "a"]


def test_columns_of_one_name_are_refused() -> None:
    frame = pl.LazyFrame({"item": ["a"], "event_time": [START], "cents": [1]})

    with pytest.raises(ValueError, match="found cents in both"):
        join_as_known(frame, changes(("a", 1, 2, "insert")), on="item")


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a time with its zone"):
        as_known(changes(), key="item", at=datetime(2026, 1, 1))  # noqa: DTZ001


# --- through the stages ---


class Prices(dy.Schema):
    """Prices of items."""

    item = dy.String()
    cents = dy.Int64(min=0)
    land = dy.String(nullable=True)
    updated_at = utc_time()


def read_prices(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path)


def rename(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("item", "land", price="cents")


def priced(interval: Interval, sales: pl.LazyFrame, prices: pl.LazyFrame) -> pl.LazyFrame:
    """Each sale with the price that was known at its time."""
    inside = pl.col("at").is_between(interval.start, interval.end, closed="left")
    rows = sales.filter(inside).select(shop="shop", item="shop", event_time="at", known_time="at")
    return join_as_known(rows, prices, on="item", known_time="price_known")


SOURCE = Source("prices", PRICES, read_prices, Prices, rename, ("item",))
TABLE = FeatureTable(
    name="priced",
    keys=("shop",),
    inputs={"sales": Input("validated/sales"), "prices": Input("validated/prices")},
    transform=priced,
    features={"price": pl.Int64(), "price_known": UTC_MICROSECONDS},
    ttl=timedelta(days=2),
)
SALES_DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
DATASET = replace(minimal_dataset.DATASET, sources=(minimal_dataset.SALES, SOURCE), features=(TABLE,))


@dataclass
class Shop:
    """A database of prices, three days of sales at every sixth hour, and a workspace."""

    root: Path
    table_store: TableStore
    set_clock: Callable[[datetime], None]

    def run(self, statement: str) -> None:
        with closing(sqlite3.connect(self.root / "prices.db")) as connection, connection:
            connection.execute(statement)

    def ingest_at(self, hour: float, dataset: Dataset = DATASET) -> None:
        self.set_clock(START + hour * HOUR)
        ingest(dataset, self.table_store, Settings(), sources=["prices"])

    def build(self, dataset: Dataset = DATASET) -> Mapping[str, StageResult]:
        return minimal_dataset.run_all_stages(self.table_store, dataset)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return self.table_store.scan(table).collect().to_dicts()

    def prices(self) -> dict[tuple[str, datetime], int | None]:
        """Shop and time of each sale → price."""
        rows = self.table_store.scan("features/tiny/priced").select("shop", "event_time", "price").collect()
        return {(shop, time): price for shop, time, price in rows.iter_rows()}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("HEADRACE_DATABASE_URL", f"sqlite:///{tmp_path}/prices.db")
    table_store = minimal_dataset.create_table_store(tmp_path / "workspace")
    sales = {
        day: "".join(f"{day}T{hour:02}:00:00Z,{shop},1\n" for hour in range(0, 24, 6) for shop in "ab")
        for day in SALES_DAYS
    }
    minimal_dataset.write_raw_partitions(table_store, sales)

    def set_clock(time: datetime) -> None:
        monkeypatch.setattr(ReadTransaction, "current_time", lambda _self: time)

    found = Shop(tmp_path, table_store, set_clock)
    found.run("CREATE TABLE prices (item TEXT, cents INTEGER, land TEXT, updated_at TIMESTAMP)")
    found.run(
        "INSERT INTO prices VALUES ('a', 10, NULL, '2025-01-01T00:00:00Z'), ('b', 20, NULL, '2025-01-01T00:00:00Z')"
    )
    return found


def test_features_join_what_was_known_at_their_time(shop: Shop) -> None:
    shop.ingest_at(3)
    shop.run("UPDATE prices SET cents = 11, updated_at = '2026-01-01T12:00:00Z' WHERE item = 'a'")
    shop.ingest_at(27)
    shop.run("DELETE FROM prices WHERE item = 'b'")
    shop.ingest_at(50)

    shop.build()

    hours = range(0, 72, 6)
    assert [shop.prices()["a", START + hour * HOUR] for hour in hours] == [None, 10, *[11] * 10]
    assert [shop.prices()["b", START + hour * HOUR] for hour in hours] == [None, *[20] * 8, *[None] * 3]


def test_a_change_computes_the_partitions_from_its_time_on(shop: Shop) -> None:
    shop.ingest_at(3)
    assert [*shop.build()["features/tiny/priced"].computed] == [*SALES_DAYS]
    shop.run("UPDATE prices SET cents = 11, updated_at = '2026-01-02T12:00:00Z' WHERE item = 'a'")

    shop.ingest_at(37)

    assert [*shop.build()["features/tiny/priced"].computed] == ["2026-01-02", "2026-01-03"]
    shop.ingest_at(60)
    assert all(not result.computed for result in shop.build().values())


@pytest.mark.parametrize("cut", [Monthly(), None])
def test_a_kernel_gets_nothing_that_was_not_known_by_the_end_of_its_partition(
    shop: Shop, cut: Partitions | None
) -> None:
    def newest(interval: Interval, sales: pl.LazyFrame, prices: pl.LazyFrame) -> pl.LazyFrame:
        first = sales.filter(pl.col("at") >= interval.start).group_by("shop").agg(event_time=pl.col("at").min())
        price = prices.select(price_known=pl.col(KNOWN_TIME).max(), price=pl.len().cast(pl.Int64))
        return first.join(price, how="cross").with_columns(known_time="event_time")

    dataset = replace(
        DATASET,
        sources=(minimal_dataset.SALES, replace(SOURCE, partitions=cut)),
        features=(replace(TABLE, transform=newest),),
    )
    shop.ingest_at(3, dataset)
    shop.run("UPDATE prices SET cents = 11, updated_at = '2026-01-02T12:00:00Z'")
    shop.ingest_at(37, dataset)

    shop.build(dataset)

    assert set(shop.prices().values()) == {2, 4}
    rows = shop.table_store.scan("features/tiny/priced", ["2026-01-01"]).collect()
    assert rows["price_known"].max() == START + 3 * HOUR


def test_a_rejected_change_keeps_its_place_and_the_value_before_it_stays(shop: Shop) -> None:
    shop.ingest_at(3)
    shop.run("UPDATE prices SET cents = -1, updated_at = '2026-01-01T12:00:00Z' WHERE item = 'a'")
    shop.ingest_at(27)

    shop.build()

    rejected = shop.table_store.scan("rejected/tiny/prices").collect()
    assert rejected.select("item", "cents", KNOWN_TIME, OPERATION, "_failed_checks").rows() == [
        ("a", "-1", "2026-01-01 12:00:00.000000+00:00", "update", ["cents|min"])
    ]
    assert shop.prices()["a", START + 66 * HOUR] == 10
    validated = shop.table_store.scan("validated/tiny/prices").collect()
    assert validated.columns == ["item", "land", "price", "known_time", "seen_time", "operation"]


def test_a_partition_of_which_many_changes_are_rejected_is_refused(shop: Shop) -> None:
    shop.run("INSERT INTO prices VALUES ('c', -1, NULL, NULL), ('d', -1, NULL, NULL), ('e', -1, NULL, NULL)")
    shop.ingest_at(3)

    with pytest.raises(TooManyRejectedError, match=r"what was recorded stays: correct the contract, or declare a"):
        shop.build()


@pytest.mark.parametrize("read", [read_prices, read_parquet])
def test_a_column_that_the_table_did_not_have_is_null_in_earlier_rows(
    shop: Shop, read: Callable[[Path], pl.DataFrame]
) -> None:
    shop.run("ALTER TABLE prices DROP COLUMN land")
    shop.ingest_at(3)
    shop.run("ALTER TABLE prices ADD COLUMN land TEXT")
    shop.run("UPDATE prices SET land = 'AT', updated_at = '2026-01-02T12:00:00Z' WHERE item = 'a'")
    shop.ingest_at(40)

    shop.build(replace(DATASET, sources=(minimal_dataset.SALES, replace(SOURCE, read=read))))

    rows = shop.table_store.scan("validated/tiny/prices").sort(KNOWN_TIME, "item").collect()
    assert rows.select("item", "land").rows() == [("a", None), ("b", None), ("a", "AT")]


def test_a_reader_of_a_history_refuses_a_column_that_the_contract_does_not_have(shop: Shop) -> None:
    shop.run("ALTER TABLE prices ADD COLUMN unit TEXT")
    shop.ingest_at(3)
    with pytest.raises(SchemaChangedError, match="new unit"):
        shop.build(replace(DATASET, sources=(minimal_dataset.SALES, replace(SOURCE, read=read_parquet))))


def test_lineage_finds_the_change_that_was_known_at_a_time(shop: Shop) -> None:
    shop.ingest_at(3)
    shop.run("UPDATE prices SET cents = 11, updated_at = '2026-01-01T12:00:00Z' WHERE item = 'a'")
    shop.ingest_at(27)
    shop.build()
    manifest = shop.table_store.manifest("validated/tiny/prices")

    def price(time: str) -> tuple[Any, ...]:
        match = RowMatch.find(shop.table_store.cache, manifest, None, {"item": "a", "event_timestamp": time})
        (row,) = match.rows
        return row["price"], row[KNOWN_TIME], row["seen_time"]

    assert price("2026-01-01T11:59:59Z") == (10, START + 3 * HOUR, START + 3 * HOUR)
    assert price("2026-01-02T00:00:00Z") == (11, START + 12 * HOUR, START + 27 * HOUR)


# --- the check ---


def faults(dataset: Dataset) -> list[str]:
    return [found.problem for found in check_declaration(dataset, REPOSITORY) if found.level == "error"]


def with_input(prices: Input, source: Source = SOURCE) -> Dataset:
    table = replace(TABLE, inputs={**TABLE.inputs, "prices": prices})
    return replace(DATASET, sources=(minimal_dataset.SALES, source), features=(table,))


CURRENT = replace(SOURCE, location=replace(PRICES, history=False))


A_NUMBER: Any = 1
A_TEXT: Any = "yes"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (replace(SOURCE, location=replace(PRICES, partition_by="updated_at")), "not by a column of the table"),
        (
            replace(SOURCE, location=replace(PRICES, initial_known_time=A_NUMBER)),
            "expected the name of a column of times",
        ),
        (replace(SOURCE, location=replace(PRICES, history=A_TEXT)), "expected True or False, found 'yes'"),
        (
            replace(SOURCE, location=replace(PRICES, history=False, initial_known_time="updated_at")),
            "declare history=True, too",
        ),
        (replace(SOURCE, partitions=Unpartitioned()), "cut by the time when changes became known: declare Daily()"),
    ],
)
def test_what_does_not_fit_a_history_is_refused(source: Source, problem: str) -> None:
    dataset = replace(DATASET, sources=(minimal_dataset.SALES, source), features=())

    assert any(problem in fault for fault in faults(dataset)), faults(dataset)


def test_a_history_may_be_read() -> None:
    assert faults(with_input(Input("validated/prices"))) == []


def test_a_table_that_is_updated_in_place_is_refused() -> None:
    (fault,) = faults(with_input(Input("validated/prices"), CURRENT))

    assert "'validated/prices' is a database table that is updated in place" in fault
    assert "Declare `history=True` in its `TableSource`" in fault
    assert "`Input('validated/prices', as_of=\"now\")`" in fault


def test_a_table_that_is_updated_in_place_may_be_read_as_of_now() -> None:
    assert faults(with_input(Input("validated/prices", as_of="now"), CURRENT)) == []


def test_a_history_is_not_read_as_of_now() -> None:
    (fault,) = faults(with_input(Input("validated/prices", as_of="now")))

    assert "'validated/prices' records when each change was known" in fault


def test_a_partition_says_what_was_read_as_of_now(shop: Shop) -> None:
    def current(interval: Interval, sales: pl.LazyFrame, prices: pl.LazyFrame) -> pl.LazyFrame:
        inside = sales.filter(pl.col("at").is_between(interval.start, interval.end, closed="left"))
        rows = inside.select("shop", event_time="at", known_time="at", price_known="at")
        return rows.join(prices.select(shop="item", price="price"), on="shop")

    dataset = with_input(Input("validated/prices", as_of="now"), CURRENT)
    dataset = replace(dataset, features=(replace(dataset.features[0], transform=current),))
    shop.ingest_at(3, dataset)

    shop.build(dataset)

    entry = shop.table_store.manifest("features/tiny/priced").partitions["2026-01-01"]
    assert entry.metadata["as_of"] == {"validated/tiny/prices": "now"}


# --- other readers, and columns that change ---


class Fares(dy.Schema):
    """Prices that were called `cents` before."""

    item = dy.String()
    fare = evolving(dy.Int64(nullable=True), renamed_from="cents")
    land = dy.String(nullable=True)
    tip = dy.Int64(nullable=True)
    updated_at = utc_time()


@pytest.mark.parametrize("read", [read_prices, read_parquet])
def test_a_renamed_column_is_one_column_of_the_history_also_within_a_partition(
    shop: Shop, read: Callable[..., pl.DataFrame]
) -> None:
    source = replace(SOURCE, read=read, contract=Fares, transform=lambda rows: rows)
    dataset = replace(DATASET, sources=(minimal_dataset.SALES, source), features=())
    shop.ingest_at(3, dataset)
    shop.build(dataset)
    before = [(row["item"], row["fare"]) for row in shop.rows("validated/tiny/prices")]
    shop.run("ALTER TABLE prices RENAME COLUMN cents TO fare")
    shop.run("UPDATE prices SET fare = 11 WHERE item = 'a'")
    shop.ingest_at(4, dataset)

    shop.build(dataset)

    assert before == [("a", 10), ("b", 20)]
    assert [(row["item"], row["fare"]) for row in shop.rows("validated/tiny/prices")] == [*before, ("a", 11), ("b", 20)]


def test_a_row_that_is_deleted_when_a_column_is_renamed_is_deleted(shop: Shop) -> None:
    columns = {**Prices.columns(), "cents": evolving(dy.Int64(), aliases="fare")}
    source = replace(SOURCE, contract=type("Fares", (dy.Schema,), columns), transform=lambda rows: rows)
    dataset = replace(DATASET, sources=(minimal_dataset.SALES, source), features=())
    shop.ingest_at(3, dataset)
    shop.run("ALTER TABLE prices RENAME COLUMN cents TO fare")
    shop.run("DELETE FROM prices WHERE item = 'b'")
    shop.ingest_at(4, dataset)

    shop.build(dataset)

    changes = [(row["item"], row["cents"], row[OPERATION]) for row in shop.rows("validated/tiny/prices")]
    assert changes[2:] == [("a", 10, "update"), ("b", 20, "delete")]


class Tipped(Prices):
    """Prices with a tip that the table has not always had."""

    tip = evolving(dy.Decimal(10, 2), since="2026-01-02", default=Decimal(7))


def test_a_change_that_was_seen_before_a_column_came_keeps_its_default(shop: Shop) -> None:
    source = replace(SOURCE, contract=Tipped, transform=lambda rows: rows)
    dataset = replace(DATASET, sources=(minimal_dataset.SALES, source), features=())
    shop.ingest_at(3, dataset)
    shop.build(dataset)
    before = [(row["item"], row["tip"]) for row in shop.rows("validated/tiny/prices")]
    shop.run("ALTER TABLE prices ADD COLUMN tip INTEGER")
    shop.run("UPDATE prices SET tip = 1, cents = 11 WHERE item = 'a'")
    shop.ingest_at(4, dataset)

    shop.build(dataset)

    assert before == [("a", 7), ("b", 7)]
    assert [(row["item"], row["tip"]) for row in shop.rows("validated/tiny/prices")] == [*before, ("a", 1)]


def test_a_transform_of_a_history_that_sorts_its_rows_is_refused(shop: Shop) -> None:
    source = replace(SOURCE, transform=lambda rows: rows.sort("cents", descending=True))
    dataset = replace(DATASET, sources=(minimal_dataset.SALES, source), features=())
    shop.ingest_at(3, dataset)

    with pytest.raises(HeadraceError, match="gave the rows in another order"):
        shop.build(dataset)
