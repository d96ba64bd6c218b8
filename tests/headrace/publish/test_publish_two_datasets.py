"""Two datasets with one registry and one online store are published side by side: neither overtakes the other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import feature_workspace
import pytest
from feature_workspace import (
    AIRCRAFT,
    AIRCRAFT_ROWS,
    DATASET,
    add_second_dataset,
    settings,
    write_all_tables,
    write_table,
)
from online_stores import STORE_TYPES, OnlineStore, new_store, redis_port
from outages import run_at_failpoint, run_before_call

from headrace.publish.blue_green import PublishAttempt
from headrace.publish.publish import PublishResult, publish
from headrace.storage.table_store import TableStore

__all__ = ["new_store", "redis_port"]


@pytest.fixture(params=STORE_TYPES)
def table_store(
    request: pytest.FixtureRequest, new_store: Callable[[str], OnlineStore], tmp_path: Path
) -> Iterator[TableStore]:
    """A workspace with the tables of two datasets."""
    found = feature_workspace.create_workspace(tmp_path / "workspace")
    new_store(request.param).configure(found.root)
    write_all_tables(found)
    yield found
    feature_workspace.close_all()


MOMENTS: dict[str, Callable[[pytest.MonkeyPatch, Callable[[], object]], None]] = {
    "within the load": lambda patch, do: run_at_failpoint(patch, "online values", do, 2),
    "before the switch": lambda patch, do: run_before_call(patch, PublishAttempt, "switch", do),
}


@pytest.mark.slow
@pytest.mark.parametrize("when", MOMENTS)
def test_a_publish_goes_on_where_another_dataset_was_published_meanwhile(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    other, meanwhile = add_second_dataset(table_store), list[PublishResult]()
    publish(DATASET, table_store, settings(table_store.root))
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS)
    with monkeypatch.context() as patch:
        MOMENTS[when](patch, lambda: meanwhile.append(publish(other, table_store, settings(table_store.root))))

        mine = publish(DATASET, table_store, settings(table_store.root))

    assert (mine.switched, [done.switched for done in meanwhile]) == (True, [True])
    assert not publish(DATASET, table_store, settings(table_store.root)).switched
    assert not publish(other, table_store, settings(table_store.root)).switched
    assert feature_workspace.online_delays(table_store, ["N2"]) == [-4.0]
