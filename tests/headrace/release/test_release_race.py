"""Many datasets, many clones, one branch: each tag holds exactly what was audited, and nobody's entries are lost.

What a tag holds is read with `git show` and plain YAML and JSON, by nothing of Headrace.
"""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from release_clones import Clone, Origin, dataset
from servers import S3

NAMES = ("flights", "flights_eu", "digits", "flights_like")


def tables_at(origin: Origin, clone: Clone, revision: str, name: str) -> dict[str, bytes]:
    """Table → manifest of a dataset at a revision: what an independent reader of git and the cache finds."""
    lock = yaml.safe_load(origin.git("show", f"{revision}:dvc.lock"))
    outs = {out["path"]: out["md5"] for entry in lock["stages"].values() for out in entry["outs"]}
    paths = origin.git("ls-tree", "-r", "--name-only", revision, "data").split()
    for path in paths:
        (out,) = yaml.safe_load(origin.git("show", f"{revision}:{path}"))["outs"]
        outs[f"{Path(path).parent}/{out['path']}"] = out["md5"]
    cache = clone.root / ".dvc/cache/files/md5"
    tables = {}
    for path, md5 in outs.items():
        if path.split("/")[2] == name:
            listed = json.loads((cache / md5[:2] / md5[2:]).read_text())
            (manifest,) = (item["md5"] for item in listed if item["relpath"] == "manifest.json")
            tables[path.removeprefix("data/")] = (cache / manifest[:2] / manifest[2:]).read_bytes()
    return tables


@pytest.mark.parametrize(
    ("datasets", "clones", "rounds"),
    [
        pytest.param(4, 2, 4, id="small"),
        pytest.param(10, 3, 20, id="full", marks=[pytest.mark.slow_lane, pytest.mark.timeout(1800)]),
    ],
)
def test_releases_of_many_datasets_at_once_hold_their_audited_bytes_and_lose_nothing(
    tmp_path: Path, s3: S3, datasets: int, clones: int, rounds: int
) -> None:
    origin = Origin.begin(tmp_path, s3)
    places = [origin.clone(f"clone-{number}") for number in range(clones)]
    writer = origin.clone("writer")
    every = [dataset(name) for name in [*NAMES, *(f"set_{number}" for number in range(datasets))][:datasets]]
    audited: dict[str, tuple[Clone, dict[str, bytes]]] = {}
    is_over = threading.Event()

    def write_readme() -> int:
        written = 0
        while not is_over.wait(0.3):
            try:
                writer.push_file("README.md", f"Version {written}\n")
                written += 1
            except Exception:  # noqa: BLE001, S112  a push that lost the race is tried again
                continue
        return written

    def release(number: int, turn: int) -> None:
        place, one = places[number % clones], every[number]
        made = place.release(one, amount=100 * number + turn + 1)
        audited[made.name] = place, place.tables(one)

    with ThreadPoolExecutor(datasets + 1) as pool:
        writing = pool.submit(write_readme)
        try:
            for turn in range(rounds):
                list(pool.map(lambda number, turn=turn: release(number, turn), range(datasets)))
        finally:
            is_over.set()  # the pool waits for the writer, also if a release failed
        assert writing.result()

    assert sorted(origin.tags()) == sorted(f"{one.name}/{turn + 1}" for one in every for turn in range(rounds))
    for tag, (place, tables) in audited.items():
        assert tables_at(origin, place, tag, tag.partition("/")[0]) == tables
    for number, one in enumerate(every):
        place = places[number % clones]
        assert tables_at(origin, place, "main", one.name) == audited[f"{one.name}/{rounds}"][1]
    assert not origin.git("rev-list", "--merges", "main"), "the history is linear"
    for place in places:
        assert place.git("rev-list", "--count", "HEAD", "--not", "origin/main") == "0"
        assert place.git("status", "--porcelain") == ""


def test_a_dataset_whose_name_begins_like_anothers_keeps_its_entries(tmp_path: Path, s3: S3) -> None:
    origin = Origin.begin(tmp_path, s3)
    place, flights, europe = origin.first, dataset("flights"), dataset("flights_eu")
    place.release(europe, 1)
    before = tables_at(origin, place, "main", "flights_eu")

    place.release(flights, 2)
    place.release(flights, 3)

    assert tables_at(origin, place, "main", "flights_eu") == before
    assert sorted(origin.tags()) == ["flights/1", "flights/2", "flights_eu/1"]


def test_of_two_runs_of_one_dataset_the_later_is_refused_with_the_command_to_run(tmp_path: Path, s3: S3) -> None:
    from headrace.release.build import ReleasedMeanwhileError  # noqa: PLC0415

    origin = Origin.begin(tmp_path, s3)
    ours, theirs, flights = origin.first, origin.clone("colleague"), dataset("flights")
    theirs.release(flights, 2)
    ours.build(flights, 1)

    with pytest.raises(ReleasedMeanwhileError, match=r"git pull --rebase.*headrace run flights --release"):
        ours.release(flights)

    assert origin.tags() == ["flights/1"]
    assert ours.git("tag") in ("", "flights/1")
    assert ours.git("rev-list", "--count", "HEAD") == "1", "no local commit is left"
    ours.git("pull", "--quiet", "--rebase", "origin", "main")
    assert ours.release(flights).name == "flights/2"
