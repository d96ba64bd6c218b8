"""`headrace runs exec`: any command works in a run, on the tables of the release, and not on those of the clone."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
from minimal_dataset import RAW, TOTALS
from release_clones import Clone, Origin, dataset
from run_clones import RunOfClone, run_refs

from headrace.errors import HeadraceError
from headrace.maintenance.references import ReferencedObjects
from headrace.runs.command import run_command
from headrace.runs.task import RunMovedError, save_task
from headrace.storage.dvc.lock import recorded_outs

TINY = dataset("tiny")
HEAD = f"data/{TOTALS}/_manifest/head.json"
TRAIN = f"""stages:
  train:
    cmd: {Path(sys.executable).as_posix()} train.py
    deps: [{HEAD}, train.py]
    metrics:
    - metrics.json:
        cache: false
"""
TRAIN_PY = f"""import hashlib, json, pathlib
table = hashlib.md5(pathlib.Path("{HEAD}").read_bytes()).hexdigest()
pathlib.Path("metrics.json").write_text(json.dumps({{"table": table}}))
"""
REPRO = [str(Path(sys.executable).with_name("dvc")), "repro", "--single-item", "train"]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def released(origin: Origin) -> Origin:
    """An origin with a release, and a stage that trains on it."""
    writer = origin.clone("writer")
    writer.push_file("train.py", TRAIN_PY)
    writer.push_file("dvc.yaml", TRAIN)
    writer.release(TINY, 5)
    return origin


def test_a_stage_of_dvc_yaml_trains_on_the_release_and_the_release_branch_records_its_metrics(
    released: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    clone = released.clone("trainer")
    first, again = (RunOfClone(clone, TINY, name) for name in ("r1", "r2"))

    task = first.open()
    run_command(task, TINY, REPRO)
    save_task(task)
    assert not first.release().created, "the tables are as they were"
    metrics = released.git("show", "main:metrics.json")
    tip = released.git("rev-parse", "main")

    task = again.open()
    run_command(task, TINY, REPRO)
    again.release()

    assert json.loads(metrics)["table"] in clone.git("show", "origin/main:dvc.lock")
    assert released.git("rev-parse", "main") == tip, "the second run found nothing to do"
    assert run_refs(released) == []
    assert clone.git("status", "--porcelain") == ""
    assert (clone.root / "metrics.json").read_text() == metrics, "the clone follows"
    outs = recorded_outs(clone.root, "origin/main")
    referenced = ReferencedObjects.collect(clone.table_store, {"main": clone.git("rev-parse", "origin/main")})
    assert outs[f"data/{TOTALS}"]["md5"] in referenced.released
    assert outs["metrics.json"]["md5"] not in referenced.released, "git has it, not the DVC remote"


def test_a_training_that_a_release_overtakes_is_tried_again_and_trains_on_that_release(released: Origin) -> None:
    run = RunOfClone(released.clone("trainer"), TINY, "r1")
    run_command(run.open(), TINY, python(TRAIN_PY))
    writer = Clone(released.folder / "writer")
    writer.run(TINY, {1: 5, 2: 6})
    writer.release(TINY)

    with pytest.raises(RunMovedError):
        run.release()
    task = run.open()
    assert not (task.table_store.root / "metrics.json").exists()
    run_command(task, TINY, python(TRAIN_PY))

    table = json.loads((task.table_store.root / "metrics.json").read_text())["table"]
    assert table == md5(writer.tables(TINY)[TOTALS])


def test_what_a_clone_has_changed_is_neither_used_nor_touched(released: Origin) -> None:
    clone = released.clone("person")
    clone.run(TINY, {1: 7})
    (clone.root / "train.py").write_text("raise SystemExit('mine')\n")
    mine, run = clone.tables(TINY), RunOfClone(clone, TINY, "r1")

    run_command(task := run.open(), TINY, python(TRAIN_PY))
    save_task(task)

    table = json.loads((task.table_store.root / "metrics.json").read_text())["table"]
    assert table == md5(released.clone("reader").table_store.manifest(TOTALS).to_files().head)
    assert table != md5(mine[TOTALS])
    assert clone.tables(TINY) == mine
    assert (clone.root / "train.py").read_text() == "raise SystemExit('mine')\n"
    assert run_refs(released) == ["tiny/r1/start"], "no table was written"


def test_tables_that_a_command_writes_are_added_to_the_run(released: Origin) -> None:
    run = RunOfClone(released.clone("a"), TINY, "r1")
    task = run.open()
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from run_clones import days, write_raw\n"
        "from release_clones import dataset\n"
        "from headrace.storage.table_store import TableStore\n"
        "write_raw(TableStore.at(Path()), dataset('tiny'), days(3))\n"
    )

    run_command(task, TINY, python(code))
    save_task(task)

    other = RunOfClone(released.clone("b"), TINY, "r1").open()
    assert run_refs(released) == [f"tiny/r1/{RAW}", "tiny/r1/start"]
    assert sorted(other.table_store.manifest(RAW).partitions) == ["2026-01-01", "2026-01-03"]


@pytest.mark.parametrize(
    ("code", "how", "exit_code"),
    [
        ("exit(3)", "exited with 3", 1),
        ("exit(75)", "exited with 75", 75),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL", 75),
    ],
)
def test_a_command_that_fails_adds_nothing_and_says_whether_to_try_again(
    released: Origin, code: str, how: str, exit_code: int
) -> None:
    run = RunOfClone(released.clone("a"), TINY, "r1")

    with pytest.raises(HeadraceError, match=rf"tiny: `.*` {how} in the run r1") as failed:
        run_command(run.open(), TINY, python(code))

    assert failed.value.exit_code == exit_code
    assert run_refs(released) == ["tiny/r1/start"]


def test_a_command_that_does_not_exist_is_named(released: Origin) -> None:
    run = RunOfClone(released.clone("a"), TINY, "r1")

    with pytest.raises(HeadraceError, match=r"`nosuch --all` cannot be run in .*No such file"):
        run_command(run.open(), TINY, ["nosuch", "--all"])


def test_the_worktree_stays_while_a_command_works_in_it(released: Origin) -> None:
    run = RunOfClone(released.clone("a"), TINY, "r1")
    task = run.open()

    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from headrace.errors import TableLockedError\n"
        "from headrace.runs.worktree import remove_worktree\n"
        f"try:\n    remove_worktree(Path({str(run.clone.root)!r}), Path())\n"
        "except TableLockedError:\n    exit(0)\n"
        "exit(1)\n"
    )
    run_command(task, TINY, python(code))

    assert task.table_store.root.exists()
