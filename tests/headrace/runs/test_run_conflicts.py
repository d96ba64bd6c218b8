"""Run refs change by compare-and-swap: a task never overwrites what another wrote; the later one gets an error."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from minimal_dataset import RAW
from release_clones import Origin, dataset
from run_clones import RunOfClone, days, run_refs, write_raw

from headrace.release.release import RunChangedError
from headrace.runs.task import RunConflictError, release_task, save_task
from headrace.storage.git_refs import LocalRefs, RefChange, RefMovedError, RefsRefusedError, RefStore, RemoteRefs

TINY = dataset("tiny")


@pytest.fixture(params=["pushed", "local"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run refs on the git remote, and in the clone alone."""
    if request.param == "local":
        monkeypatch.setenv("HEADRACE_PUSH_RUNS", "0")
    return str(request.param)


def test_of_two_tasks_that_write_one_table_the_second_is_told_and_continues_from_there(
    origin: Origin, mode: str
) -> None:
    places = [origin.first, origin.clone("other") if mode == "pushed" else origin.first]
    ours, theirs = (RunOfClone(place, TINY, "r1") for place in places)
    first, second = ours.open(), theirs.open()
    write_raw(first.table_store, TINY, days(1))
    saved = save_task(first)
    write_raw(second.table_store, TINY, days(2))

    with pytest.raises(RunConflictError, match=RAW) as refused:
        save_task(second)

    assert refused.value.is_transient
    assert ours.state == saved
    again = theirs.ingest(days(2))
    assert sorted(again.table_store.manifest(RAW).partitions) == ["2026-01-01", "2026-01-02"]


def test_tasks_that_write_different_tables_do_not_meet(origin: Origin) -> None:
    ours, theirs = (RunOfClone(place, TINY, "r1") for place in (origin.first, origin.clone("other")))
    ours.ingest(days(1))
    computing = theirs.open()
    ours.ingest(days(2))

    write_annotations = computing.table_store.manifest(RAW)
    computing.table_store.checkout(type(write_annotations)("annotations/tiny/people"))
    save_task(computing)

    assert run_refs(origin) == ["tiny/r1/annotations/tiny/people", f"tiny/r1/{RAW}", "tiny/r1/start"]


def test_a_run_that_several_machines_start_at_once_starts_once(origin: Origin) -> None:
    places = [origin.first, *(origin.clone(f"clone-{number}") for number in range(3))]

    with ThreadPoolExecutor(4) as pool:
        tasks = list(pool.map(lambda place: RunOfClone(place, TINY, "r1").open(), places))

    assert len({task.state.start for task in tasks}) == 1
    assert run_refs(origin) == ["tiny/r1/start"]


def test_a_table_that_is_written_while_the_run_is_released_refuses_the_release(origin: Origin) -> None:
    run = RunOfClone(origin.first, TINY, "r1")
    run.ingest(days(1))
    run.compute("validate", "transform")
    releasing = run.open()
    RunOfClone(origin.clone("other"), TINY, "r1").ingest(days(2))

    with pytest.raises(RunChangedError, match="Run the same command again"):
        release_task(releasing, TINY)

    assert origin.tags() == []
    assert f"tiny/r1/{RAW}" in run_refs(origin)
    run.compute("validate", "transform")
    assert run.release().created
    assert run_refs(origin) == []


def test_a_run_on_one_machine_leaves_nothing_on_the_git_remote_but_its_release(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_PUSH_RUNS", "0")
    run = RunOfClone(origin.first, TINY, "r1")
    run.ingest(days(1))
    run.compute("validate", "transform")

    assert run_refs(origin) == []
    assert len(origin.first.git("for-each-ref", "refs/headrace/runs").splitlines()) == 5
    assert run.release().created
    assert origin.first.git("for-each-ref", "refs/headrace/runs") == ""
    assert origin.tags() == ["tiny/1"]


@pytest.mark.parametrize("kind", [RemoteRefs, LocalRefs])
def test_refs_are_swapped_all_or_none(origin: Origin, kind: type[RemoteRefs | LocalRefs]) -> None:
    store: RefStore = kind(origin.first.root)
    one = origin.first.git("rev-parse", "HEAD")
    two = origin.first.git("commit-tree", "-p", one, "-m", "Two", f"{one}^{{tree}}")
    a, b, c = (f"refs/headrace/runs/{name}/r/start" for name in "abc")
    store.swap({a: RefChange("", one), b: RefChange("", one)})

    for wrong in (
        {a: RefChange("", two), c: RefChange("", two)},
        {a: RefChange(one, two), b: RefChange(two, "")},
        {c: RefChange("", two), a: RefChange(two, two)},
        {c: RefChange(one, two), b: RefChange(one, "")},
    ):
        with pytest.raises(RefMovedError):
            store.swap(wrong)
        assert store.read("refs/headrace/runs") == {a: one, b: one}

    store.swap({a: RefChange(one, two), b: RefChange(one, ""), c: RefChange("", two)})
    assert store.read("refs/headrace/runs") == {a: two, c: two}
    assert store.read("refs/headrace/runs/a") == {a: two}


def test_runs_may_be_kept_below_branches(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_RUN_REFS", "refs/heads/headrace-runs")
    RunOfClone(origin.first, TINY, "r1").ingest(days(1))
    run = RunOfClone(origin.clone("other"), TINY, "r1")

    assert run_refs(origin, "refs/heads/headrace-runs") == [f"tiny/r1/{RAW}", "tiny/r1/start"]
    run.compute("validate", "transform")
    run.release()
    assert origin.git("for-each-ref", "--format=%(refname)", "refs/heads") == "refs/heads/main"
    assert "headrace-runs/tiny/r2" not in origin.first.git("branch", "--remotes")


def refuse(origin: Origin, prefix: str) -> None:
    """Refuse pushes to refs with this prefix, as a host does that takes branches and tags only."""
    hook = origin.folder / "origin.git/hooks/pre-receive"
    hook.write_text(f'#!/bin/sh\nwhile read -r old new ref; do case "$ref" in {prefix}*) exit 1;; esac; done\n')
    hook.chmod(0o755)


def test_a_host_that_refuses_run_refs_is_an_error_that_names_the_setting(origin: Origin) -> None:
    refuse(origin, "refs/headrace/")

    with pytest.raises(RefsRefusedError, match=r"HEADRACE_RUN_REFS.*refs/heads/headrace-runs") as refused:
        RunOfClone(origin.first, TINY, "r1").open()

    assert not refused.value.is_transient
    assert not list((origin.first.root / ".headrace/runs").glob("*/*"))


def test_a_worktree_of_which_a_part_is_there_is_created_again(origin: Origin) -> None:
    run = RunOfClone(origin.first, TINY, "r1")
    root = run.ingest(days(1)).table_store.root
    for broken in (".git", ".headrace/run.json"):
        (root / broken).unlink()
        (root / "left over").touch()

        task = run.open()

        assert task.table_store.root == root
        assert not (root / "left over").exists()
        assert sorted(task.table_store.manifest(RAW).partitions) == ["2026-01-01"]
    assert origin.first.git("worktree", "list").count("detached") == 1


def test_what_a_killed_task_had_shown_is_kept_here_and_is_computed_again_elsewhere(origin: Origin) -> None:
    here, there = (RunOfClone(place, TINY, "r1") for place in (origin.first, origin.clone("other")))
    killed = here.open()
    write_raw(killed.table_store, TINY, days(1))  # and not saved

    assert sorted(here.open().table_store.manifest(RAW).partitions) == ["2026-01-01"]
    assert there.open().table_store.manifest(RAW).partitions == {}
    there.ingest(days(2))
    assert sorted(here.open().table_store.manifest(RAW).partitions) == ["2026-01-02"], "what the run has counts"
