"""What the page about contracts says of a source whose columns change is what happens."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import dataframely as dy
import pytest
from changing_source import ChangingSource

from headrace.errors import HeadraceError

SECTION = (
    (Path(__file__).parents[2] / "docs/contracts.md")
    .read_text("utf-8")
    .split("## When a source's columns change\n", 1)[1]
    .split("\n## ", 1)[0]
)
WINTER, MARCH, JUNE = "2013-02-28", "2013-03-01", "2013-06-01"
OLD = "trip_id,price,tax,meters,riders\nt1,10.50,0.50,900,2 riders\n"


def block(language: str) -> str:
    """The first block of code of a language."""
    return SECTION.split(f"```{language}\n", 1)[1].split("```", 1)[0]


def documented_contract() -> type[dy.Schema]:
    """The contract of the example."""
    names: dict[str, Any] = {}
    exec(block("python"), names)  # noqa: S102  it is our own page
    return names["Trips"]  # type: ignore[no-any-return]


def test_the_documented_contract_reads_files_of_before_and_after_each_change(tmp_path: Path) -> None:
    trips = ChangingSource.at(tmp_path, key="trip_id")
    trips.declare(documented_contract())
    trips.deliver(WINTER, OLD)
    trips.deliver(MARCH, "trip_id,fare,tip,tax,meters,riders\nt2,20.00,1.00,0.75,3000000000,3\n")
    trips.deliver(JUNE, "trip_id,fare,tip,meters,riders\nt3,30.00,2.00,5,1\n")

    trips.run()

    columns = ["trip_id", "fare", "tip", "tax", "meters", "riders"]
    assert [tuple(row[name] for name in columns) for row in trips.rows()] == [
        ("t1", Decimal("10.50"), Decimal(0), Decimal("0.50"), 900, 2),
        ("t2", Decimal("20.00"), Decimal("1.00"), Decimal("0.75"), 3_000_000_000, 3),
        ("t3", Decimal("30.00"), Decimal("2.00"), None, 5, 1),
    ]


def test_an_undeclared_change_is_refused_with_the_documented_message(tmp_path: Path) -> None:
    trips = ChangingSource.at(tmp_path, key="trip_id")
    trips.declare(type("Trips", (dy.Schema,), {"trip_id": dy.String(), "price": dy.Decimal(10, 2)}))
    trips.deliver(MARCH, "trip_id,fare,tip\nt1,10.50,1\nt2,3,\n")

    with pytest.raises(HeadraceError) as refused:
        trips.run()

    documented = re.sub(r"\s+", " ", block("text")).strip()
    assert documented.split("): ", 1)[1] in str(refused.value)
