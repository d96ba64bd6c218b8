"""Crash cases of `publish`: a release with changes in two views, and a real online store."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import feature_workspace
from crash_harness import State
from feature_workspace import AIRCRAFT, DATASET, FLOWN, NOON, WEATHER, fill, fill_all, put, served
from online_stores import OnlineStore, empty, empty_postgresql

from headrace.feast.online_stores.writer import Shelf
from headrace.publish.publish import REPORTS, publish
from headrace.storage.table_store import Lake

KEYS = ["N2", "N3", "N4"]
RELEASE_2 = ([10.0, None, 1.0], [30.0])
RELEASE_3 = ([20.0, None, None], [31.0])


@dataclass(frozen=True)
class PublishCase:
    """Release 1 is live; the run publishes release 2."""

    root: Path

    def run(self) -> None:
        put(Lake.at(self.root), "little/2")

    def read_visible_state(self) -> State:
        """Readers see one release, in every view."""
        lake = Lake.at(self.root)
        store = feature_workspace.opened(lake)
        keys = [{"tailnum": "N2", "origin": "EWR", "carrier_id": 1}]
        answer = store.get_online_features(store.get_feature_service(DATASET.service), keys, full_feature_names=True)
        return {"online": (served(lake, KEYS), answer.to_dict()["origin_weather__temp_c"])}

    def run_concurrent_writer(self) -> None:
        """Release 3 is published from another clone."""
        publish(DATASET, Lake.at(self.other_clone), feature_workspace.settings(self.root), "little/3")

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
        lake, visible = Lake.at(self.root), self.read_visible_state()
        report = json.loads((self.root / REPORTS / DATASET.name / "online.json").read_text())
        # The slot, and the number of compared keys, depend on when the earlier run crashed.
        verification = [report[name] for name in ("release", "digest", "as_of", "newest_times")]
        rollback = put(lake, "little/1")
        assert rollback.switched
        shelf = Shelf.of(feature_workspace.opened(lake), DATASET, AIRCRAFT, "b" if rollback.slot == "a" else "a")
        return {
            **visible,
            "keys": shelf.online.rows(shelf.view).height,
            "verification": verification,
            "after_rollback": self.read_visible_state(),
        }


@dataclass(frozen=True)
class PublishScenario:
    """One workspace and one online store, reset to release 1 for each case."""

    root: Path
    store: OnlineStore

    def prepare(self) -> None:
        lake = feature_workspace.workspace(self.root)
        self.store.serve(self.root)
        fill_all(lake)
        fill(lake, AIRCRAFT, FLOWN)
        feature_workspace.release(lake, 1)
        fill(lake, AIRCRAFT, [{**FLOWN[0], "delay_min": 10.0}, {**FLOWN[0], "tailnum": "N4", "delay_min": 1.0}])
        fill(lake, WEATHER, [{"origin": "EWR", "event_time": NOON, "temp_c": 30.0}])
        feature_workspace.release(lake, 2)
        shutil.copytree(self.root, self.root.with_name("other_clone"))
        other_clone = Lake.at(self.root.with_name("other_clone"))
        fill(other_clone, AIRCRAFT, [{**FLOWN[0], "delay_min": 20.0}])
        fill(other_clone, WEATHER, [{"origin": "EWR", "event_time": NOON, "temp_c": 31.0}])
        feature_workspace.release(other_clone, 3)

    def new_case(self, name: str) -> PublishCase:
        self.remove_case(name)
        put(Lake.at(self.root), "little/1")
        return PublishCase(self.root)

    def remove_case(self, name: str) -> None:  # noqa: ARG002
        for folder in ("feast", REPORTS):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        if self.store.kind == "redis":
            empty(int(self.store.options["connection_string"].rpartition(":")[2]))
        elif self.store.kind == "postgres":
            empty_postgresql(self.store.options)


def scenario(folder: Path, kind: str, options: dict[str, Any]) -> PublishScenario:
    """The crash scenario of a publish."""
    return PublishScenario(folder / "workspace", OnlineStore(kind, options))
