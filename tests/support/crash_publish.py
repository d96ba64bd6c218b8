"""Crash cases of `publish`: a release with changes in two views, and a real online store."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import feature_workspace
from crash_harness import State
from feature_workspace import (
    AIRCRAFT,
    AIRCRAFT_ROWS,
    DATASET,
    NOON,
    WEATHER,
    online_delays,
    publish_release,
    write_all_tables,
    write_table,
)
from online_stores import OnlineStore, flush_redis, reset_postgresql

from headrace.feast.online_stores.writer import OnlineTable
from headrace.publish.publish import REPORTS, publish
from headrace.storage.table_store import TableStore

KEYS = ["N2", "N3", "N4"]
RELEASE_2 = ([10.0, None, 1.0], [30.0])
RELEASE_3 = ([20.0, None, None], [31.0])


@dataclass(frozen=True)
class PublishCase:
    """Release 1 is live; the run publishes release 2."""

    root: Path

    def run(self) -> None:
        publish_release(TableStore.at(self.root), "little/2")

    def read_visible_state(self) -> State:
        """Readers see one release, in every view."""
        table_store = TableStore.at(self.root)
        store = feature_workspace.open_workspace_store(table_store)
        keys = [{"tailnum": "N2", "origin": "EWR", "carrier_id": 1}]
        answer = store.get_online_features(store.get_feature_service(DATASET.service), keys, full_feature_names=True)
        return {"online": (online_delays(table_store, KEYS), answer.to_dict()["origin_weather__temp_c"])}

    def run_concurrent_writer(self) -> None:
        """Release 3 is published from another clone."""
        publish(DATASET, TableStore.at(self.other_clone), feature_workspace.settings(self.root), "little/3")

    def check_consistent(self, *, paused_succeeded: bool, concurrent_succeeded: bool) -> None:
        """The live release is that of a writer that succeeded."""
        served_values = self.read_visible_state()["online"]
        assert served_values in [RELEASE_2] * paused_succeeded + [RELEASE_3] * concurrent_succeeded, served_values
        self.run_concurrent_writer()
        assert self.read_visible_state()["online"] == RELEASE_3

    @property
    def other_clone(self) -> Path:
        """Another clone with the same registry and online store."""
        return self.root.with_name("other_clone")

    def read_final_state(self) -> State:
        """The verification report is written, and the standby slot is as its tags say: a rollback works."""
        table_store, visible = TableStore.at(self.root), self.read_visible_state()
        report = json.loads((self.root / REPORTS / DATASET.name / "online.json").read_text())
        # The slot, and the number of compared keys, depend on when the earlier run crashed.
        verification = [report[name] for name in ("release", "digest", "as_of", "newest_times")]
        rollback = publish_release(table_store, "little/1")
        assert rollback.switched
        online_table = OnlineTable.open(
            feature_workspace.open_workspace_store(table_store), DATASET, AIRCRAFT, "b" if rollback.slot == "a" else "a"
        )
        return {
            **visible,
            "keys": online_table.online.rows(online_table.view).height,
            "verification": verification,
            "after_rollback": self.read_visible_state(),
        }


@dataclass(frozen=True)
class PublishScenario:
    """One workspace and one online store, reset to release 1 for each case."""

    root: Path
    store: OnlineStore

    def prepare(self) -> None:
        table_store = feature_workspace.create_workspace(self.root)
        self.store.configure(self.root)
        write_all_tables(table_store)
        write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS)
        feature_workspace.tag_release(table_store, 1)
        write_table(
            table_store,
            AIRCRAFT,
            [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}, {**AIRCRAFT_ROWS[0], "tailnum": "N4", "delay_min": 1.0}],
        )
        write_table(table_store, WEATHER, [{"origin": "EWR", "event_time": NOON, "temp_c": 30.0}])
        feature_workspace.tag_release(table_store, 2)
        shutil.copytree(self.root, self.root.with_name("other_clone"))
        other_clone = TableStore.at(self.root.with_name("other_clone"))
        write_table(other_clone, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 20.0}])
        write_table(other_clone, WEATHER, [{"origin": "EWR", "event_time": NOON, "temp_c": 31.0}])
        feature_workspace.tag_release(other_clone, 3)

    def new_case(self, name: str) -> PublishCase:
        self.remove_case(name)
        publish_release(TableStore.at(self.root), "little/1")
        return PublishCase(self.root)

    def remove_case(self, name: str) -> None:  # noqa: ARG002
        for folder in ("feast", REPORTS):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        if self.store.kind == "redis":
            flush_redis(int(self.store.options["connection_string"].rpartition(":")[2]))
        elif self.store.kind == "postgres":
            reset_postgresql(self.store.options)


def scenario(folder: Path, kind: str, options: dict[str, Any]) -> PublishScenario:
    """The crash scenario of a publish."""
    return PublishScenario(folder / "workspace", OnlineStore(kind, options))
