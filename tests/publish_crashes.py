"""Lets a publish die, at its n-th side effect or at any moment, and checks what readers see and what the next one does.

A process of its own, because it forks for every case: `python publish_crashes.py FOLDER STORE.json HOW EVERY` prints a
line of JSON a case. HOW is `before` (a side effect), `half` (of it is done), or `kill` (-9, at EVERY seeded moments).
The parent never computes: Polars' threads do not survive a fork.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import feature_lake
from feature_lake import AIRCRAFT, FLOWN, NOON, WEATHER, fill, fill_all, put, served
from online_stores import OnlineStore, empty

from pipelines import faults
from pipelines.engine.lake import Lake
from pipelines.systems.feature_store.online import Shelf

KEYS = ["N2", "N3", "N4"]
OLD = [-4.0, 3.0, None]
NEW = [10.0, None, 1.0]
LONGEST_S = 1.5
"""A publish takes about as long here when nothing else runs."""


def in_child(work: Callable[[], object]) -> int:
    """Exit code of a process that does `work`."""
    return wait(start(work))


def start(work: Callable[[], object]) -> int:
    process = os.fork()
    if not process:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  whatever it was, the parent is told
            traceback.print_exc()
            os._exit(1)
    return process


def wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def prepare(root: Path, store: OnlineStore) -> None:
    """Release 1 is live, release 2 is there."""
    lake = feature_lake.workspace(root)
    store.serve(root)
    fill_all(lake)
    fill(lake, AIRCRAFT, FLOWN)
    feature_lake.release(lake, 1)
    fill(lake, AIRCRAFT, [{**FLOWN[0], "delay_min": 10.0}, {**FLOWN[0], "tailnum": "N4", "delay_min": 1.0}])
    fill(lake, WEATHER, [{"origin": "EWR", "event_time": NOON, "temp_c": 30.0}])
    feature_lake.release(lake, 2)


def live(root: Path, store: OnlineStore) -> None:
    """Bring the online store to release 1."""
    forget(root, store)
    put(Lake.at(root), "little/1")


def forget(root: Path, store: OnlineStore) -> None:
    shutil.rmtree(root / "feast", ignore_errors=True)
    if store.kind == "redis":
        empty(int(store.options["connection_string"].rpartition(":")[2]))


def dies(root: Path, at: int, *, half: bool) -> None:
    """Publish release 2 until the n-th point."""
    faults.arm(at, half=half)
    try:
        put(Lake.at(root), "little/2")
    finally:
        faults.arm(0)


def whole(root: Path) -> None:
    """Readers see one release, in every view."""
    lake = Lake.at(root)
    seen = served(lake, KEYS)
    store = feature_lake.opened(lake)
    service = store.get_feature_service("little_service")
    keys = [{"tailnum": "N2", "origin": "EWR", "carrier_id": 1}]
    temperature = store.get_online_features(service, keys, full_feature_names=True).to_dict()["origin_weather__temp_c"]
    assert (seen, temperature) in ((OLD, [2.5]), (NEW, [30.0])), f"readers see a mixture: {seen} {temperature}"


def heals(root: Path) -> None:
    """The next publish brings release 2, and has nothing to do when run again; the standby is what its tags say."""
    lake = Lake.at(root)
    put(lake, "little/2")
    assert served(lake, KEYS) == NEW
    again = put(lake, "little/2")
    assert not again.switched
    store = feature_lake.opened(lake)
    shelf = Shelf.of(store, AIRCRAFT, again.side)
    assert shelf.online.rows(shelf.view).height == 2
    put(lake, "little/1")
    assert served(lake, KEYS) == OLD


def outcome(root: Path, died: object, at: object) -> dict[str, object]:
    seen = in_child(lambda: whole(root))
    healed = in_child(lambda: heals(root))
    return {"at": at, "died": died, "whole": seen == 0, "healed": healed == 0}


def at_points(root: Path, store: OnlineStore, *, half: bool, every: int) -> Iterator[dict[str, object]]:
    for at in count(1, every):
        assert in_child(lambda: live(root, store)) == 0
        code = in_child(lambda at=at: dies(root, at, half=half))  # type: ignore[misc]
        if code == 0:
            return
        yield outcome(root, code == faults.KILLED, at)


def at_moments(root: Path, store: OnlineStore, moments: int) -> Iterator[dict[str, object]]:
    chance = random.Random(7)  # noqa: S311  a moment, no secret
    for _ in range(moments):
        assert in_child(lambda: live(root, store)) == 0
        process = start(lambda: put(Lake.at(root), "little/2"))
        moment = chance.uniform(0.02, LONGEST_S)
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
        yield outcome(root, wait(process) == -signal.SIGKILL, round(moment, 3))


def main(folder: str, store: str, how: str, every: str) -> None:
    """Print a line for each case."""
    online, root = OnlineStore(**json.loads(Path(store).read_text())), Path(folder) / "workspace"
    assert in_child(lambda: prepare(root, online)) == 0
    cases = (
        at_moments(root, online, int(every))
        if how == "kill"
        else at_points(root, online, half=how == "half", every=int(every))
    )
    for found in cases:
        print(json.dumps(found), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
