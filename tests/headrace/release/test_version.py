"""Version: a release is whole or absent, its bytes are on the remote before git names them, and DVC agrees with it.

`dvc` itself is the judge: what we write to `dvc.lock`, the `.dvc` files and the remote is what its own commands write.
"""

import json
import subprocess
from typing import Any

import pytest
from raw_data import days
from workspaces import DAYS, Workspace, git

from headrace.cli import build
from headrace.errors import TableLockedError
from headrace.release.audit import AuditError
from headrace.release.branches import latest_local_release, list_releases
from headrace.release.release import create_release
from headrace.storage.dvc.lock import read_lock, recorded_outs
from headrace.storage.dvc.remote import NotOnRemoteError
from headrace.storage.manifest import HEAD_FILE
from headrace.storage.s3.bucket import Bucket
from headrace.storage.s3.objects import ObjectMeta


def test_the_lock_is_what_dvc_itself_would_write(released: Workspace) -> None:
    ours = read_lock(released.root)

    released.dvc("commit", "--force", *released.stages(), *map(str, released.root.glob("data/*/*/*.dvc")))

    assert read_lock(released.root) == ours
    assert git(released.root, "status", "--porcelain") == ""


def test_run_makes_the_release_too_where_it_is_told_to(
    released: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    released.raw.add_days("2013-01-04")
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(released.root))
    monkeypatch.setattr(build, "_ingest", lambda *_arguments, **_options: [])  # the day has arrived already

    build.run("flights", release=True, as_json=True)

    said = json.loads(capsys.readouterr().out)
    assert {name for stage in said["stages"] for name in stage["computed"]} == {"2013-01-04"}
    assert said["release"]["name"] == latest_local_release(released.table_store, "flights") == "flights/2"
    assert create_release(released.dataset, released.table_store).created is False


def test_dvc_finds_nothing_changed_after_a_release(released: Workspace) -> None:
    assert not released.stale_stages()
    assert "in sync" in released.dvc("status", "--cloud")


def test_a_fresh_clone_pulls_the_release_and_repro_does_nothing(released: Workspace) -> None:
    clone = released.clone("colleague")

    clone.dvc("pull")
    said = clone.dvc("repro", *clone.stages())

    assert "Running stage" not in said
    assert git(clone.root, "status", "--porcelain") == ""
    for table in released.table_store.tables("flights"):
        assert clone.table_store.manifest(table) == released.table_store.manifest(table)
        for path in clone.table_store.folder(table).rglob("*.*"):
            own = released.table_store.folder(table) / path.relative_to(clone.table_store.folder(table))
            assert path.read_bytes() == own.read_bytes()


@pytest.mark.slow_lane
def test_a_change_to_one_contract_reruns_that_stage_and_what_depends_on_it(released: Workspace) -> None:
    clone = released.clone("colleague")
    clone.dvc("pull")
    clone.edit("pipelines/flights/sources/weather.py", "_measured(0, 200)", "_measured(0, 201)")

    said = clone.dvc("repro", *clone.stages())

    ran = {line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")}
    assert ran == {"flights-validate-weather", "flights-transform-origin_weather"}


def test_what_repro_makes_after_a_change_is_what_the_command_line_makes(released: Workspace) -> None:
    clone = released.clone("colleague")
    clone.dvc("pull")
    for place in (clone, released):
        place.edit("pipelines/flights/sources/weather.py", "_measured(0, 200)", "_measured(0, 24)")
    released.publish_code("Expect colder weather")

    clone.dvc("repro", *clone.stages())
    for verb in ("validate", "transform", "release"):
        released.command("headrace", verb, "flights")

    assert read_lock(clone.root) == read_lock(released.root)
    assert clone.table_store.manifest("rejected/flights/weather").rows == 1


@pytest.mark.slow_lane
def test_repro_keeps_old_partitions_that_the_checkout_never_had_whole(released: Workspace) -> None:
    clone = released.clone("colleague")
    clone.dvc("pull")
    before = clone.table_store.manifest("features/flights/carrier_delays").partitions
    clone.raw.add_days("2013-01-04")
    clone.dvc("commit", "--force", "data/raw/flights/flights.dvc", "data/raw/flights/weather.dvc")

    clone.dvc("repro", *clone.stages())

    after = clone.table_store.manifest("features/flights/carrier_delays").partitions
    assert {name: after[name] for name in before} == dict(before)
    assert set(after) - set(before) == {"2013-01-04"}


@pytest.mark.slow_lane
def test_metrics_are_recorded_without_a_new_release_and_then_a_fresh_clone_has_no_work_at_all(
    workspace: Workspace,
) -> None:
    workspace.raw.add_days(*days(1, 6))
    workspace.refresh()
    create_release(workspace.dataset, workspace.table_store)
    workspace.dvc("repro", "flights-train")

    recorded = create_release(workspace.dataset, workspace.table_store)

    clone = workspace.clone("colleague")
    clone.dvc("pull")
    assert (recorded.name, recorded.created) == ("flights/1", False)
    assert "Running stage" not in clone.dvc("repro")
    assert json.loads((clone.root / "metrics/flights.json").read_text())["gain"]["log_loss"] > 0
    assert "metrics/flights.json" in clone.dvc("metrics", "show")
    assert git(clone.root, "status", "--porcelain") == ""


def test_a_second_run_releases_nothing(released: Workspace) -> None:
    head = git(released.root, "rev-parse", "HEAD")

    again = create_release(released.dataset, released.table_store)

    assert (again.name, again.created, again.pushed.objects) == ("flights/1", False, 0)
    assert git(released.root, "rev-parse", "HEAD") == head


def test_the_next_release_says_which_partitions_changed_and_pushes_only_those(released: Workspace) -> None:
    released.raw.edit_day("2013-01-02", lambda rows: rows.head(600))
    released.refresh()

    made = create_release(released.dataset, released.table_store)

    assert (made.name, made.created) == ("flights/2", True)
    assert str(made.changes["raw/flights/flights"]) == "+0 ~1 -0"
    assert list(made.changes["features/flights/carrier_delays"].changed) == ["2013-01-02", "2013-01-03"]
    assert "validated/flights/weather" not in made.changes
    changed = sum(len(found.changed) for found in made.changes.values())
    per_table = ("head of the manifest", "chunk of January", "list of files")
    assert made.pushed.objects == changed + len(per_table) * len(made.changes)


def test_an_audit_refuses_tables_that_are_behind_their_inputs(built: Workspace) -> None:
    built.raw.add_days("2013-01-04")

    with pytest.raises(
        AuditError, match=r"validated/flights/flights: .* 1 that are not, 2013-01-04 .*headrace run flights"
    ):
        create_release(built.dataset, built.table_store)

    assert not git(built.root, "tag")


def test_a_table_that_is_being_written_is_not_released(built: Workspace) -> None:
    with (
        built.table_store.lock_table("raw/flights/weather"),
        pytest.raises(TableLockedError, match="raw/flights/weather is being"),
    ):
        create_release(built.dataset, built.table_store)

    assert not git(built.root, "tag")


def test_a_crash_before_the_push_leaves_nothing_and_the_next_run_releases(
    built: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("headrace.storage.git_remote.push", die)
        with pytest.raises(KeyboardInterrupt):
            create_release(built.dataset, built.table_store)
    assert not git(built.root, "ls-remote", "--tags", "origin")
    assert not git(built.root, "tag")
    assert git(built.root, "rev-parse", "HEAD") == git(built.root, "rev-parse", "origin/main")

    made = create_release(built.dataset, built.table_store)

    assert (made.name, made.created) == ("flights/1", True)
    assert made.commit == git(built.root, "ls-remote", "origin", "refs/heads/main").split()[0]


def test_git_names_nothing_while_an_object_is_not_on_the_remote(
    built: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Bucket.write

    def write_and_lose(bucket: Bucket, key: str, *content: Any) -> ObjectMeta:  # noqa: ANN401  as `Bucket.write`
        """A server that accepts an object and loses it."""
        accepted = write(bucket, key, *content)
        bucket.delete(key)
        return accepted

    monkeypatch.setattr(Bucket, "write", write_and_lose)

    with pytest.raises(NotOnRemoteError, match=r"s3://.* expected .* bytes with md5"):
        create_release(built.dataset, built.table_store)

    assert not git(built.root, "tag")
    assert not (built.root / "dvc.lock").exists()


def test_a_manifest_holds_no_clock_so_two_workspaces_record_the_same(built: Workspace) -> None:
    other = built.clone("colleague")
    other.raw.add_days(*reversed(DAYS))
    other.refresh()

    create_release(built.dataset, built.table_store)
    git(other.root, "pull", "--quiet", "origin", "main")
    create_release(other.dataset, other.table_store)

    assert recorded_outs(other.root) == recorded_outs(built.root)


def test_the_command_line_releases_and_answers_in_json(built: Workspace) -> None:
    origin = git(built.root, "config", "remote.origin.url")

    said = json.loads(built.command("headrace", "release", "flights", "--json"))

    assert said["name"] == "flights/1"
    assert said["pushed_to"] == {"remote": origin, "branch": "main"}
    assert len(said["changes"]["raw/flights/flights"]["added"]) == len(DAYS)
    shown = subprocess.run(["git", "show", "flights/1"], cwd=built.root, capture_output=True, text=True, check=True)
    assert "features/flights/carrier_delays: +3 ~0 -0" in shown.stdout


def test_a_release_says_where_it_is_and_that_the_stack_of_the_clone_has_an_origin_of_its_own(built: Workspace) -> None:
    (built.root / ".headrace/origin.git").mkdir(parents=True)

    head, *lines = built.command("headrace", "release", "flights").splitlines()

    assert head.startswith("flights/1 released")
    assert lines[0] == f"  on main of {git(built.root, 'config', 'remote.origin.url')}"
    assert lines[-1].startswith(f"  not on {built.root.resolve()}/.headrace/origin.git, the origin of the stack")


def test_a_manifest_is_the_last_file_of_a_table(built: Workspace) -> None:
    folder = built.table_store.folder("validated/flights/flights")

    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}

    assert max(times, key=lambda path: times[path]) == folder / HEAD_FILE
    assert list_releases(built.table_store, "flights") == []
