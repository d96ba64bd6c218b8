"""publish, of a release with changes in two views, to a real online store; rehearsed by `crashes.py`."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import feature_workspace
from crash_harness import Seen
from feature_workspace import AIRCRAFT, DATASET, FLOWN, NOON, WEATHER, fill, fill_all, put, served
from online_stores import OnlineStore, empty, empty_postgresql

from headrace.feast.online_stores.writer import Shelf
from headrace.publish.publish import REPORTS, publish
from headrace.storage.table_store import Lake

KEYS = ["N2", "N3", "N4"]
RELEASE_2 = ([10.0, None, 1.0], [30.0])
RELEASE_3 = ([20.0, None, None], [31.0])


@dataclass(frozen=True)
class Publish:
    """Release 1 is live, release 2 is there."""

    root: Path

    def run(self) -> None:
        """As `Case`."""
        put(Lake.at(self.root), "little/2")

    def seen(self) -> Seen:
        """As `Case`: readers see one release, in every view."""
        lake = Lake.at(self.root)
        store = feature_workspace.opened(lake)
        keys = [{"tailnum": "N2", "origin": "EWR", "carrier_id": 1}]
        answer = store.get_online_features(store.get_feature_service(DATASET.service), keys, full_feature_names=True)
        return {"online": (served(lake, KEYS), answer.to_dict()["origin_weather__temp_c"])}

    def rival(self) -> None:
        """As `Contested`: release 3 is published from another clone."""
        publish(DATASET, Lake.at(self.theirs), feature_workspace.settings(self.root), "little/3")

    def settled(self, *, first: bool, second: bool) -> None:
        """As `Contested`: what is served is one release, of one who was not refused."""
        served_now = self.seen()["online"]
        assert served_now in [RELEASE_2] * first + [RELEASE_3] * second, served_now
        self.rival()
        assert self.seen()["online"] == RELEASE_3

    @property
    def theirs(self) -> Path:
        """The other clone; registry and online store are the same."""
        return self.root.with_name("theirs")

    def shown(self) -> Seen:
        """As `Case`: the proof is written down, and the other side is as its tags say: one can go back to it."""
        lake, found = Lake.at(self.root), self.seen()
        report = json.loads((self.root / REPORTS / DATASET.name / "online.json").read_text())
        # Which side it is, and how many keys had to be compared, depends on when the run before died.
        proof = [report[name] for name in ("release", "digest", "as_of", "newest_times")]
        back = put(lake, "little/1")
        assert back.switched
        shelf = Shelf.of(feature_workspace.opened(lake), DATASET, AIRCRAFT, "b" if back.slot == "a" else "a")
        return {**found, "keys": shelf.online.rows(shelf.view).height, "proof": proof, "back": self.seen()}


@dataclass(frozen=True)
class Publishes:
    """One workspace and one online store, brought back to release 1 for each case."""

    root: Path
    store: OnlineStore

    def prepare(self) -> None:
        """As `Scenario`."""
        lake = feature_workspace.workspace(self.root)
        self.store.serve(self.root)
        fill_all(lake)
        fill(lake, AIRCRAFT, FLOWN)
        feature_workspace.release(lake, 1)
        fill(lake, AIRCRAFT, [{**FLOWN[0], "delay_min": 10.0}, {**FLOWN[0], "tailnum": "N4", "delay_min": 1.0}])
        fill(lake, WEATHER, [{"origin": "EWR", "event_time": NOON, "temp_c": 30.0}])
        feature_workspace.release(lake, 2)
        shutil.copytree(self.root, self.root.with_name("theirs"))
        theirs = Lake.at(self.root.with_name("theirs"))
        fill(theirs, AIRCRAFT, [{**FLOWN[0], "delay_min": 20.0}])
        fill(theirs, WEATHER, [{"origin": "EWR", "event_time": NOON, "temp_c": 31.0}])
        feature_workspace.release(theirs, 3)

    def case(self, name: str) -> Publish:  # noqa: ARG002  there is one place only
        """As `Scenario`."""
        self.over("what was")
        put(Lake.at(self.root), "little/1")
        return Publish(self.root)

    def over(self, name: str) -> None:  # noqa: ARG002
        """As `Scenario`."""
        for folder in ("feast", REPORTS):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        if self.store.kind == "redis":
            empty(int(self.store.options["connection_string"].rpartition(":")[2]))
        elif self.store.kind == "postgres":
            empty_postgresql(self.store.options)


def scenario(folder: Path, kind: str, options: dict[str, Any]) -> Publishes:
    """The rehearsal of a publish."""
    return Publishes(folder / "workspace", OnlineStore(kind, options))
