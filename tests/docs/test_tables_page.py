"""The recipes of `docs/tables.md` compute what the page says."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import minimal_dataset
from minimal_dataset import create_table_store, raw_day, run_all_stages, write_raw_partitions

from headrace.dataset import Input
from headrace.project.declaration_check import check_declaration

ROOT = Path(__file__).parents[2]


def test_the_recipe_of_a_derived_table_is_checked_and_computed(tmp_path: Path) -> None:
    table_store = create_table_store(tmp_path)
    names = recipe("Declare them")
    declared = replace(minimal_dataset.DATASET, derived=(names["SHOP_DAYS"],), features=(names["BEST_DAY"],))
    write_raw_partitions(table_store, {"2026-01-01": raw_day(1, 7), "2026-01-02": raw_day(2, 4)})

    run_all_stages(table_store, declared)

    assert check_declaration(declared, ROOT) == []
    assert table_store.scan("derived/tiny/shop_days").collect().sort("amount")["amount"].to_list() == [4, 4, 7, 7]
    best = table_store.scan("features/tiny/best_day").collect()
    assert best.select("shop", "most", "event_time").rows() == [
        (shop, 7, datetime(2026, 1, 2, tzinfo=UTC)) for shop in ("east", "west")
    ]


def test_the_inputs_of_other_datasets_are_kept_where_the_page_says() -> None:
    names = recipe("Tables of other datasets", Input=Input)

    assert names["DELAYS"].local_table == names["PINNED"].local_table == "raw/flights__features__carrier_delays"
    table = replace(minimal_dataset.FEATURES, inputs={"sales": names["DELAYS"]})
    assert check_declaration(replace(minimal_dataset.DATASET, features=(table,)), ROOT) == []


def recipe(section: str, **provided: object) -> dict[str, Any]:
    """What the Python of a section of the page defines."""
    text = (ROOT / "docs/tables.md").read_text("utf-8").split(f"\n## {section}\n", 1)[1].split("\n## ")[0]
    names: dict[str, Any] = {"__name__": "docs.tables", **provided}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), names)  # noqa: S102  our own page
    return names
