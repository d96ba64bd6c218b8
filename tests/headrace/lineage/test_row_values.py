"""A row is looked up by values of any simple type, and a text that is none of the type is refused by name."""

from pathlib import Path

import dataframely as dy
import pytest
from changing_source import VALIDATED, ChangingSource, day, schema

from headrace.lineage.row_lookup import RowMatch, UnknownRowError


@pytest.fixture
def rides(tmp_path: Path) -> ChangingSource:
    """Two rides, with a fare and the time of day at which each began."""
    source = ChangingSource.at(tmp_path)
    source.declare(schema(fare=dy.Decimal(10, 2), began=dy.Time()))
    source.deliver(day(0), "id,fare,began\n1,1.50,05:00:00\n2,7,06:30:00\n")
    source.run()
    return source


def find(rides: ChangingSource, **values: str) -> list[int]:
    manifest = rides.table_store.manifest(VALIDATED)
    return [row["id"] for row in RowMatch.find(rides.table_store.cache, manifest, None, values).rows]


@pytest.mark.parametrize("fare", ["1.5", "1.50", "1.500"])
def test_a_decimal_is_found_by_its_value(rides: ChangingSource, fare: str) -> None:
    assert find(rides, fare=fare) == [1]


def test_a_time_of_day_is_found(rides: ChangingSource) -> None:
    assert find(rides, began="06:30") == [2]


@pytest.mark.parametrize("fare", ["1.501", "one", "", "1e400", "NaN"])
def test_a_text_that_is_no_decimal_of_the_type_is_refused(rides: ChangingSource, fare: str) -> None:
    with pytest.raises(UnknownRowError, match=r"fare is Decimal.* is not a value of that type"):
        find(rides, fare=fare)
