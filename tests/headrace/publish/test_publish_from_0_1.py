"""An online store and a registry that Headrace 0.1 wrote are read whole, and the next publish brings them up to date.

The forms of 0.1: columns `entity key` and `event time`, sources registered under the class path of 0.1, a report with
`side`, `proofs` and `newest`. `published_by_0_1.tar.gz` is what 0.1 made of the rows below: cache, git, registry and an
SQLite online store. For PostgreSQL they are made out of what this version publishes, with the server's own client.
"""

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import feature_workspace
import psycopg
import pytest
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.core.FeatureService_pb2 import FeatureService as FeatureServiceProto
from feast.protos.feast.core.FeatureView_pb2 import FeatureView as FeatureViewProto
from feature_workspace import (
    AIRCRAFT,
    AIRCRAFT_ROWS,
    DATASET,
    HOUR,
    NOON,
    offline_delays,
    online_delays,
    open_workspace_store,
    publish_release,
    settings,
    write_all_tables,
    write_table,
)
from online_stores import OnlineStore, new_store, redis_port

from headrace.feast.data_source import CLASS_PATH, CLASS_PATH_0_1
from headrace.feast.definitions import DeploymentState, SlotState, feature_view
from headrace.lineage.freshness import read_freshness
from headrace.retrieve.errors import ReservedNameError
from headrace.storage.table_store import TableStore

pytestmark = pytest.mark.slow

__all__ = ["new_store", "redis_port"]

ARCHIVE = Path(__file__).with_name("published_by_0_1.tar.gz")
TABLES = [f"headrace_{table.name}__{slot}" for table in DATASET.features for slot in "ab"]
COLUMNS = {"entity_key": "entity key", "event_timestamp": "event time"}
REGISTRY: dict[str, tuple[str, Any]] = {
    "feature_views": ("feature_view_proto", FeatureViewProto),
    "data_sources": ("data_source_proto", DataSourceProto),
    "feature_services": ("feature_service_proto", FeatureServiceProto),
}


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, new_store: Callable[[str], OnlineStore]) -> OnlineStore:
    return new_store(request.param)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases: in the second one N3's delay was corrected."""
    table_store = feature_workspace.create_workspace(tmp_path_factory.mktemp("template"))
    write_all_tables(table_store)
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS)
    feature_workspace.tag_release(table_store, 1)
    write_table(table_store, AIRCRAFT, [AIRCRAFT_ROWS[0], {**AIRCRAFT_ROWS[1], "delay_min": 99.0}])
    feature_workspace.tag_release(table_store, 2)
    return table_store.root


@pytest.fixture
def table_store(template: Path, tmp_path: Path, store: OnlineStore) -> Iterator[TableStore]:
    """A workspace with release 1 live, in the forms of 0.1 throughout."""
    root = tmp_path / "workspace"
    table_store = TableStore.at(root)
    if store.kind == "sqlite":
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(root, filter="data")
        shutil.copytree(template / "feature_repo", root / "feature_repo")
    else:
        shutil.copytree(template, root)
        _publish_as_0_1(table_store, store)
    yield table_store
    feature_workspace.close_all()


def _publish_as_0_1(table_store: TableStore, store: OnlineStore) -> None:
    store.configure(table_store.root)
    publish_release(table_store, "little/2")
    publish_release(table_store, "little/1")
    feature_workspace.close_all()
    for table in TABLES:
        for name, old in COLUMNS.items():
            execute(store, table_store, f'ALTER TABLE {table} RENAME COLUMN "{name}" TO "{old}"')
    age_registry(table_store.root)


def execute(store: OnlineStore, table_store: TableStore, statement: str) -> None:
    if store.kind == "sqlite":
        feature_workspace.execute_on_sqlite(table_store, statement)
        return
    where = {"dbname" if name == "database" else name: value for name, value in store.options.items()}
    with psycopg.connect(**where, autocommit=True) as connection:
        connection.execute(statement)


def columns(store: OnlineStore, table_store: TableStore, table: str) -> list[str]:
    if store.kind == "sqlite":
        with closing(sqlite3.connect(table_store.root / "feast" / "online.db")) as database:
            return [row[1] for row in database.execute(f"PRAGMA table_info({table})")][:2]
    where = {"dbname" if name == "database" else name: value for name, value in store.options.items()}
    with psycopg.connect(**where, autocommit=True) as connection:
        query = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 ORDER BY attnum"
        return [row[0] for row in connection.execute(query, (table,)).fetchall()][:2]


def age_registry(root: Path) -> None:
    """Give the registry's objects and the report of the last publish the form of 0.1."""
    with closing(sqlite3.connect(root / "feast" / "registry.db")) as database, database:
        for table, (column, message) in REGISTRY.items():
            for number, content in database.execute(f"SELECT rowid, {column} FROM {table}").fetchall():  # noqa: S608
                aged = message.FromString(content)
                for source in sources(aged):
                    source.data_source_class_type = CLASS_PATH_0_1
                database.execute(
                    f"UPDATE {table} SET {column} = ? WHERE rowid = ?",  # noqa: S608
                    (aged.SerializeToString(), number),
                )
    with closing(sqlite3.connect(root / "feast" / "registry.db.headrace")) as database, database:
        report = json.loads(database.execute("SELECT proof FROM headrace_publications").fetchone()[0])
        report["side"], report["proofs"] = report.pop("slot"), report.pop("verifications")
        report["newest"] = {
            table: {"event": times["event_time"], "known": times["known_time"]}
            for table, times in report.pop("newest_times").items()
        }
        database.execute("UPDATE headrace_publications SET proof = ?", (json.dumps(report),))


def sources(message: Any) -> list[Any]:  # noqa: ANN401  one of three messages
    """The custom sources in an object of the registry."""
    if isinstance(message, DataSourceProto):
        found = [message]
    elif isinstance(message, FeatureViewProto):
        found = [message.spec.batch_source]
    else:
        found = [projection.batch_source for projection in message.spec.features]
    return [source for source in found if source.data_source_class_type]


def class_paths(root: Path) -> set[str]:
    """The class paths that the registry's views, sources and service name."""
    with closing(sqlite3.connect(root / "feast" / "registry.db")) as database:
        return {
            source.data_source_class_type
            for table, (column, message) in REGISTRY.items()
            for (content,) in database.execute(f"SELECT {column} FROM {table}")  # noqa: S608
            for source in sources(message.FromString(content))
        }


def test_what_0_1_published_is_read_whole_and_publishing_it_again_brings_it_up_to_date(
    table_store: TableStore, store: OnlineStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert class_paths(table_store.root) == {CLASS_PATH_0_1}
    assert {tuple(columns(store, table_store, table)) for table in TABLES} == {tuple(COLUMNS.values())}
    assert online_delays(table_store, ["N2", "N3", "N9"]) == [-4.0, 3.0, None]
    feast, row = open_workspace_store(table_store), {"tailnum": "N3", "origin": "EWR", "carrier_id": 1}
    standby = DeploymentState.read(feast, DATASET).standby.side
    answer = feast.get_online_features([f"aircraft_history__{standby}:delay_min"], [row])
    timed = answer.to_dict(include_event_timestamps=True)
    assert (timed["delay_min"], timed["delay_min__ts"]) == ([99.0], [int((NOON - HOUR).timestamp())])
    online = read_freshness(settings(table_store.root), DATASET.name, NOON)
    assert online is not None
    assert (online.release, online.slot) == ("little/1", DeploymentState.read(feast, DATASET).live.side)
    assert online.views["aircraft_history"].event_time == NOON - HOUR

    with caplog.at_level("INFO", logger="headrace"):
        done = publish_release(table_store, "little/1")
    lines = [record.getMessage() for record in caplog.records]

    assert (done.switched, done.loads) == (False, {})
    assert not any(view.mismatches for view in done.verifications)
    assert {tuple(columns(store, table_store, table)) for table in TABLES} == {tuple(COLUMNS)}
    assert class_paths(table_store.root) == {CLASS_PATH}
    assert sum("columns of Headrace 0.1 were renamed" in line for line in lines) == len(TABLES)
    assert sum("registered by Headrace 0.1, now registered again" in line for line in lines) == 1
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]
    caplog.clear()
    with caplog.at_level("INFO", logger="headrace"):
        publish_release(table_store, "little/1")
    assert not [line for line in caplog.messages if "0.1" in line], "a second publish finds nothing of 0.1"


def test_another_release_is_loaded_into_a_slot_of_0_1_by_the_difference(
    table_store: TableStore, store: OnlineStore
) -> None:
    done = publish_release(table_store, "little/2")

    assert done.switched
    assert sum(load.written + load.deleted for load in done.loads.values()) == 0, "the slot held it already"
    assert online_delays(table_store, ["N2", "N3"]) == offline_delays(table_store, ["N2", "N3"], done) == [-4.0, 99.0]
    assert {tuple(columns(store, table_store, table)) for table in TABLES} == {tuple(COLUMNS)}
    assert class_paths(table_store.root) == {CLASS_PATH}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_feature_named_like_a_column_of_the_store_is_refused_by_name(name: str) -> None:
    table = replace(AIRCRAFT, features={**AIRCRAFT.features, name: AIRCRAFT.features["flights_7d"]})

    with pytest.raises(ReservedNameError, match=rf"aircraft_history.{name} has the name of a column.*Rename it"):
        feature_view(DATASET, table, SlotState("a"))
