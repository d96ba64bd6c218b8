"""Views of feature tables that are not declared any more go with their values, once no service shows them."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import feature_workspace
import pytest
from feature_workspace import AIRCRAFT, AIRCRAFT_ROWS, DATASET, ROUTES, WEATHER, settings
from online_stores import STORE_TYPES, OnlineStore, new_store, redis_port

from headrace.feast.retired_views import RetiredViews, move_views, retire_views
from headrace.publish.publish import PublishOptions, publish
from headrace.retrieve.errors import NameConflictError
from headrace.storage.table_store import TableStore

__all__ = ["new_store", "redis_port"]

pytestmark = pytest.mark.slow
WITHOUT = replace(DATASET, features=(AIRCRAFT, ROUTES))
SLOTS = ["origin_weather__a", "origin_weather__b"]


@pytest.fixture(params=STORE_TYPES)
def table_store(
    request: pytest.FixtureRequest, new_store: Callable[[str], OnlineStore], tmp_path: Path
) -> Iterator[TableStore]:
    """A workspace whose tables are published, in both slots."""
    found = feature_workspace.create_workspace(tmp_path / "workspace")
    new_store(request.param).configure(found.root)
    feature_workspace.write_all_tables(found)
    publish(DATASET, found, settings(found.root))
    feature_workspace.write_table(found, AIRCRAFT, AIRCRAFT_ROWS)
    publish(DATASET, found, settings(found.root))
    yield found
    feature_workspace.close_all()


def retire(table_store: TableStore, *tables: str, dry_run: bool = False) -> RetiredViews:
    repo = table_store.root / "feature_repo"
    return retire_views("little", tables or None, repo, settings(table_store.root), dry_run=dry_run)


def publish_without_weather(table_store: TableStore) -> None:
    publish(WITHOUT, table_store, settings(table_store.root), how=PublishOptions(allow_breaking_changes=True))


def let_readers_go(table_store: TableStore) -> None:
    """Date the last switch back: no server can still have a registry from before it."""
    with closing(sqlite3.connect(table_store.root / "feast/registry.db.headrace")) as database, database:
        database.execute("UPDATE headrace_publications SET switched_at = '2020-01-01T00:00:00+00:00'")


def registered(table_store: TableStore) -> tuple[list[str], list[str], list[str]]:
    """Names of views, services and entities, as the registry has them."""
    store = feature_workspace.open_workspace_store(table_store)
    lists = (store.registry.list_feature_views, store.registry.list_feature_services, store.registry.list_entities)
    views, services, entities = (
        sorted(one.name for one in listed(store.project, allow_cache=False) if one.name != "__dummy")
        for listed in lists
    )
    return views, services, entities


def test_a_view_stays_while_a_service_shows_it_and_while_a_server_may_read_it(table_store: TableStore) -> None:
    before = registered(table_store)

    shown = retire(table_store, "origin_weather")
    assert (len(shown.served), len(shown.removed), registered(table_store)) == (1, 1, before)
    publish_without_weather(table_store)
    soon = retire(table_store, "origin_weather")

    assert (list(soon.removed), soon.served) == (SLOTS, [])
    assert 0 < soon.wait_s <= 10
    assert registered(table_store) == before


def test_both_slots_go_with_their_values_and_what_is_served_is_served_on(table_store: TableStore) -> None:
    publish_without_weather(table_store)
    let_readers_go(table_store)

    shown = retire(table_store, "origin_weather", dry_run=True)
    assert (list(shown.removed), SLOTS[0] in registered(table_store)[0]) == (SLOTS, True)
    retire(table_store, "origin_weather")

    views, services, entities = registered(table_store)
    assert not set(views) & set(SLOTS)
    assert (len(views), services, entities) == (4, ["little_service"], ["carrier_id", "origin", "tailnum"])
    assert feature_workspace.online_delays(table_store, ["N2"]) == [-4.0]
    assert retire(table_store, "origin_weather") == RetiredViews([], [], [])
    publish_without_weather(table_store)


def test_values_of_a_view_that_is_declared_again_are_not_those_that_were_dropped(table_store: TableStore) -> None:
    publish_without_weather(table_store)
    let_readers_go(table_store)
    retire(table_store, "origin_weather")

    done = publish(DATASET, table_store, settings(table_store.root))

    assert (done.loads["origin_weather"].written, done.loads["origin_weather"].unchanged) == (2, 0)


def test_a_dropped_dataset_takes_its_service_along_and_no_other(table_store: TableStore) -> None:
    other = feature_workspace.add_second_dataset(table_store)
    publish(other, table_store, settings(table_store.root))

    done = retire(table_store)

    assert (done.services, len(done.removed)) == (["little_service"], 6)
    views, services, _ = registered(table_store)
    assert (services, {view.split("_")[0] for view in views}) == (["other_service"], {"other"})
    assert not publish(other, table_store, settings(table_store.root)).switched


def test_a_renamed_dataset_publishes_on_with_the_views_of_the_old_one(table_store: TableStore) -> None:
    small = replace(DATASET, name="small")
    for table in (WEATHER, AIRCRAFT, ROUTES):
        made = table_store.manifest(f"features/little/{table.name}")
        table_store.checkout(replace(made, table=f"features/small/{table.name}"))
    with pytest.raises(NameConflictError):
        publish(small, table_store, settings(table_store.root))

    names = move_views("little", "small", table_store.root / "feature_repo", settings(table_store.root), dry_run=False)

    assert len(names) == 6
    assert feature_workspace.online_delays(table_store, ["N2"]) == [-4.0]
    assert publish(small, table_store, settings(table_store.root)).switched
    assert feature_workspace.online_delays(table_store, ["N2"]) == [-4.0]
