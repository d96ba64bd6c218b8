"""Pruning: the policy decides, what somebody needs is kept, a tombstone stays, and numbers are never given twice."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest
from release_clones import Clone, Origin, dataset
from workspaces import Workspace, git

from headrace.catalog.open import open_dataset
from headrace.dataset import Dataset, Retention
from headrace.errors import HeadraceError
from headrace.feast.publish_log import PublishLog
from headrace.lineage.diff import diff_releases
from headrace.lineage.history import DatasetRevision
from headrace.maintenance.doctor import check_integrity
from headrace.maintenance.gc import collect_garbage
from headrace.maintenance.prune import PruneRefusedError, PruneResult
from headrace.maintenance.prune import prune as prune_releases
from headrace.maintenance.release_summaries import list_release_summaries
from headrace.release.branches import list_releases
from headrace.release.release import create_release
from headrace.retrieve.partition_reader import read_manifest
from headrace.retrieve.retrieve import FeatureRequest, retrieve
from headrace.retrieve.training_set import TrainingSet, TrainingSetSpec
from headrace.settings import Settings
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.pruned_releases import PrunedReleaseError, find_tombstone, read_tombstones

FLIGHTS = dataset("flights")
TOTALS = "features/flights/totals"


def keeping(last: int, **pinned: str) -> Dataset:
    """The dataset, with a policy that keeps the last releases; `n3` pins `flights/3`."""
    pins = {f"flights/{name[1:]}": reason for name, reason in pinned.items()}
    return replace(FLIGHTS, retention=Retention(keep_last=last, pinned=pins))


def prune(clone: Clone, flights: Dataset, *, dry_run: bool = False, registry: str | None = None) -> PruneResult:
    settings = Settings(workspace=clone.root, feast_registry_url=registry)
    return prune_releases(flights, clone.table_store, settings, dry_run=dry_run)


def release(clone: Clone, *amounts: int) -> None:
    for amount in amounts:
        clone.release(FLIGHTS, amount)


def write_lock(folder: Path, name: str, number: int) -> None:
    content = {"format": 2, "id": "x", "spec": {"dataset": "flights", "release": f"flights/{number}"}}
    (folder / name).write_text(json.dumps(content, indent=2))


def test_a_dry_run_names_what_would_go_and_the_bytes_that_nothing_else_references(origin: Origin) -> None:
    place = origin.first
    release(place, 1, 2, 3)
    only = place.table_store.recorded_manifest(TOTALS, "flights/1")
    before = origin.git("for-each-ref")

    done = prune(place, keeping(1), dry_run=True)

    assert only is not None
    assert (done.pruned, done.dry_run) == (["flights/1", "flights/2"], True)
    assert done.kept_by == {"flights/3": ["latest", "keep_last"]}
    assert origin.git("for-each-ref") == before
    assert done.freed_bytes > sum(only.objects.values())
    prune(place, keeping(1))
    garbage = collect_garbage(place.table_store, min_age_hours=0, remote=True)
    assert (len(garbage.remote), sum(garbage.remote.values())) == (done.freed_objects, done.freed_bytes)


def test_a_pruned_release_leaves_a_tombstone_that_every_clone_sees_and_its_bytes_go(origin: Origin) -> None:
    place, other = origin.first, origin.clone("other")
    release(place, 1, 2, 3)
    other.git("fetch", "--quiet", "--tags")
    was, tables = place.table_store.recorded_manifest(TOTALS, "flights/1"), place.table_store.tables("flights")
    commit = origin.git("rev-parse", "flights/1^{commit}")

    done = prune(place, keeping(2))

    assert was is not None
    assert (done.pruned, done.dry_run) == (["flights/1"], False)
    assert origin.tags() == ["flights/2", "flights/3"]
    assert place.git("tag").split() == ["flights/2", "flights/3"]
    assert place.git("rev-parse", "HEAD") == origin.git("rev-parse", "main")
    assert place.git("status", "--porcelain") == ""
    tombstone = find_tombstone(place.root, "flights/1")
    assert tombstone is not None
    assert (tombstone.commit, tuple(tombstone.tables)) == (commit, tables)
    assert tombstone.tables[TOTALS].rows == was.rows == 2
    assert "keep_last=2" in tombstone.reason
    assert json.loads((place.root / "releases/flights/pruned.json").read_text()) == {"format": 1, "pruned": [[1, 1]]}

    garbage = collect_garbage(place.table_store, min_age_hours=0, remote=True, dry_run=False)
    assert garbage.remote
    assert check_integrity(place.table_store, deep=True).ok
    for name in ("flights/2", "flights/3"):
        assert read_manifest(place.table_store, TOTALS, name).rows == 2
    other.git("pull", "--quiet", "--rebase")
    assert "flights/1" in other.git("tag").split(), "git never deletes a tag by itself"
    assert list_releases(other.table_store, "flights") == ["flights/2", "flights/3"]
    assert check_integrity(other.table_store).ok


def test_whatever_asks_for_a_pruned_release_is_told_so_with_what_to_use(origin: Origin) -> None:
    place, other = origin.first, origin.clone("other")
    release(place, 1, 2, 3)
    other.git("fetch", "--quiet", "--tags")
    prune(place, keeping(2))
    other.git("fetch", "--quiet")

    for clone in (place, other):
        for ask in (
            lambda table_store: read_manifest(table_store, TOTALS, "flights/1"),
            lambda table_store: DatasetRevision.open(table_store, "flights", "flights/1"),
            lambda table_store: diff_releases(table_store, "flights/1", "flights/3"),
            lambda table_store: open_dataset("flights", release="flights/1", workspace=table_store.root),
        ):
            with pytest.raises(PrunedReleaseError, match=r"flights/1 was pruned on .* Use .*flights/2\."):
                ask(clone.table_store)


def test_a_lock_file_of_a_pruned_release_is_refused_with_its_name(origin: Origin) -> None:
    place = origin.first
    release(place, 1, 2)
    prune(place, keeping(1))
    path = place.root / "model.lock.json"
    TrainingSet(TrainingSetSpec("flights", "flights/1", [], True, {}, {}), {}, {}, {}).write(path)

    with pytest.raises(PrunedReleaseError, match=r"model\.lock\.json: .*flights/1 was pruned .*Use .*flights/2"):
        retrieve(FLIGHTS, place.table_store, cannot_answer, path, place.root / "out", FeatureRequest(lock_file=path))


def cannot_answer(*_: object) -> NoReturn:
    raise AssertionError


def test_the_commands_list_releases_and_what_would_be_pruned(released: Workspace) -> None:
    registry = f"sqlite:///{released.root}/.headrace/registry.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEAST_REGISTRY_URL", registry)
        (listed,) = json.loads(released.command("headrace", "releases", "flights", "--all", "--json"))["releases"]
        text = released.command("headrace", "releases", "flights")
        pruned = json.loads(released.command("headrace", "prune", "flights", "--json"))

    size = sum(out["size"] for path, out in recorded_outs(released.root).items() if "/flights/" in path)
    assert (listed["release"], listed["bytes"], listed["online"]) == ("flights/1", size, False)
    assert 0 < listed["new_bytes"] <= size + 10**6
    assert listed["kept_by"][:2] == ["latest", "keep_last"]
    assert text.startswith("flights/1  ")
    assert (pruned["pruned"], list(pruned["kept_by"]), pruned["dry_run"]) == ([], ["flights/1"], True)


@pytest.mark.slow_lane
def test_the_commands_as_operations_shows_them(released: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{released.root}/.headrace/registry.db")
    released.raw.edit_day("2013-01-01", lambda rows: rows.head(600))
    released.refresh()
    create_release(released.dataset, released.table_store)
    declaration = released.root / "pipelines/flights/__init__.py"
    text, count = re.subn(r"retention=Retention\(.*?\)", "retention=Retention(keep_last=1)", declaration.read_text())
    declaration.write_text(text)
    git(released.root, "commit", "--quiet", "--all", "--message", "Keep one release")
    git(released.root, "push", "--quiet", "origin", "HEAD:main")

    assert count == 1
    shown = released.command("headrace", "prune", "flights")
    assert "flights: 1 release would be pruned, 1 kept (keep_last=1)\n  flights/1 would be pruned\n" in shown
    assert "are referenced by nothing else: `headrace gc` can delete them afterwards" in shown
    assert "flights/1 pruned\n" in released.command("headrace", "prune", "flights", "--no-dry-run")
    first, second = released.command("headrace", "releases", "flights", "--all").splitlines()
    assert re.fullmatch(r"flights/1  .* rows, .* bytes  pruned 20.* by .*: no rule .* \(keep_last=1\)", first)
    assert re.fullmatch(r"flights/2  .* rows, .* bytes, [\d,]+ new  latest; keep_last", second)
    freed = json.loads(released.command("headrace", "gc", "--remote", "--no-dry-run", "--hours", "0", "--json"))
    assert freed["remote"]["objects"] > 0
    with pytest.raises(HeadraceError, match=r"flights/1 was pruned on"):
        diff_releases(released.table_store, "flights/1", "flights/2")


def test_what_is_online_locked_or_pinned_is_kept(origin: Origin, tmp_path: Path) -> None:
    place, colleague = origin.first, origin.clone("colleague")
    release(place, *range(1, 8))
    write_lock(place.root, "model.lock.json", 1)
    place.git("add", "model.lock.json")
    place.git("commit", "--quiet", "--message", "Train")
    place.git("push", "--quiet", "origin", "HEAD:main")
    write_lock(place.root, "draft.json", 2)
    colleague.git("switch", "--quiet", "--create", "trial")
    write_lock(colleague.root, "rf.json", 3)
    colleague.git("add", "rf.json")
    colleague.git("commit", "--quiet", "--message", "Try")
    colleague.git("push", "--quiet", "origin", "trial")
    registry = f"sqlite:///{tmp_path}/registry.db"
    serve(registry, "flights/4")

    flights = replace(keeping(1, n5="figure 2"), service="totals")
    done = prune(place, flights, registry=registry)

    assert done.pruned == ["flights/6"]
    assert done.kept_by == {
        "flights/1": ["lock model.lock.json"],
        "flights/2": ["lock draft.json"],
        "flights/3": ["lock origin/trial:rf.json"],
        "flights/4": ["online"],
        "flights/5": ["pinned: figure 2"],
        "flights/7": ["latest", "keep_last"],
    }
    listing = list_release_summaries(
        flights, place.table_store, Settings(workspace=place.root, feast_registry_url=registry)
    )
    assert [each.point.name for each in listing.releases if each.is_online] == ["flights/4"]
    assert [each.release for each in listing.tombstones] == ["flights/6"]
    assert [each.size.rows for each in listing.releases] == [4] * 6


def test_a_release_that_goes_online_during_the_prune_is_kept(origin: Origin, tmp_path: Path) -> None:
    release(origin.first, 1, 2, 3)
    registry = f"sqlite:///{tmp_path}/registry.db"
    serve(registry, "flights/3")
    flights = replace(keeping(1), service="totals")
    decided = threading.Event()

    def prune_and_tell() -> PruneResult:
        decided.wait(30)
        return prune(origin.first, flights, registry=registry)

    with ThreadPoolExecutor(1) as pool, closing(PublishLog.at(registry, "flights")) as publish_log:
        pruned = pool.submit(prune_and_tell)
        with publish_log.hold_lead(publish_log.take_lead()) as switch:
            decided.set()
            with pytest.raises(TimeoutError):
                pruned.result(3)
            publish_log.record(switch, {"release": "flights/1"})
        done = pruned.result(60)

    assert done.pruned == ["flights/2"]
    assert origin.tags() == ["flights/1", "flights/3"]


def serve(registry: str, name: str) -> None:
    with closing(PublishLog.at(registry, "flights")) as publish_log:
        generation = publish_log.take_lead()
        with publish_log.hold_lead(generation) as database:
            publish_log.record(database, {"release": name})


def test_it_refuses_where_it_is_unknown_what_is_online(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEAST_REGISTRY_URL", raising=False)
    release(origin.first, 1, 2)

    with pytest.raises(PruneRefusedError, match=r"FEAST_REGISTRY_URL is not set.*Nothing was pruned"):
        prune(origin.first, replace(keeping(1), service="totals"))

    assert origin.tags() == ["flights/1", "flights/2"]


def test_a_policy_that_is_not_as_on_the_code_branch_prunes_nothing(origin: Origin) -> None:
    place = origin.first
    folder = place.root / "pipelines/flights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("KEEP = 1\n")
    release(place, 1, 2)

    with pytest.raises(PruneRefusedError, match=r"pipelines/flights/__init__\.py.*Commit and push"):
        prune(place, keeping(1))

    assert prune(place, keeping(1), dry_run=True).pruned == ["flights/1"], "a dry run tries a policy out"
    place.git("add", "pipelines")
    place.git("commit", "--quiet", "--message", "Keep one")
    place.git("push", "--quiet", "origin", "HEAD:main")
    assert prune(place, keeping(1)).pruned == ["flights/1"]


def test_the_number_of_a_pruned_release_is_not_given_again_even_if_the_tags_are_lost(origin: Origin) -> None:
    place = origin.first
    release(place, 1, 2, 3)
    prune(place, keeping(1, n1="figure 2"))
    for name in origin.tags():
        origin.git("tag", "--delete", name)
        place.git("tag", "--delete", name)

    assert place.release(FLIGHTS, 4).name == "flights/3", "the number after that of the tombstone"


def test_a_tag_of_a_pruned_release_that_is_pushed_again_is_no_release_and_goes_with_the_next_prune(
    origin: Origin,
) -> None:
    place, other = origin.first, origin.clone("other")
    release(place, 1, 2)
    other.git("fetch", "--quiet", "--tags")
    prune(place, keeping(1))
    other.git("push", "--quiet", "origin", "flights/1")
    assert origin.tags() == ["flights/1", "flights/2"]

    place.git("fetch", "--quiet", "--tags")
    assert list_releases(place.table_store, "flights") == ["flights/2"]
    assert prune(place, keeping(1)).pruned == []

    assert origin.tags() == ["flights/2"]
    assert place.git("tag").split() == ["flights/2"]
    assert len(read_tombstones(place.root, "flights")) == 1


def test_releases_on_a_branch_of_their_own_keep_their_tombstones(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RELEASE_BRANCH", "releases")
    place = origin.first
    release(place, 1, 2)
    main = origin.git("rev-parse", "main")

    done = prune(place, keeping(1))
    release(place, 3)
    origin.clone("other").release(dataset("digits"), 1)
    place.git("fetch", "--quiet")

    assert done.pruned == ["flights/1"]
    assert origin.git("rev-parse", "main") == main
    assert origin.tags() == ["digits/1", "flights/2", "flights/3"]
    assert [*read_tombstones(place.root, "flights")] == ["flights/1"]
    messages = origin.git("log", "--first-parent", "--format=%s", "-3", "releases").splitlines()
    assert messages[-1] == "flights: prune flights/1"


@pytest.mark.slow_lane
def test_many_releases_go_in_several_pushes(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.maintenance.prune.BATCH", 2)
    monkeypatch.setattr("headrace.storage.pruned_releases.BLOCK", 3)
    release(origin.first, *range(1, 7))

    assert prune(origin.first, keeping(1)).pruned == [f"flights/{number}" for number in range(1, 6)]

    assert origin.tags() == ["flights/6"]
    assert json.loads(origin.git("show", "main:releases/flights/pruned.json"))["pruned"] == [[1, 5]]
    files = origin.git("ls-tree", "--name-only", "main", "releases/flights/").split()
    assert files == [f"releases/flights/{name}" for name in ("1-3.jsonl", "4-6.jsonl", "pruned.json")]
    assert [*read_tombstones(origin.first.root, "flights")] == [f"flights/{number}" for number in range(1, 6)]


def test_tags_that_the_remote_does_not_let_us_delete_stay_and_nothing_else_changes(origin: Origin) -> None:
    release(origin.first, 1, 2)
    before = origin.git("for-each-ref")
    hook = origin.folder / "origin.git/hooks/update"
    hook.write_text('#!/bin/sh\ncase "$1 $3" in refs/tags/*" 0000"*) exit 1;; esac\n')
    hook.chmod(0o755)

    with pytest.raises(PruneRefusedError, match=r"delete 1 tag: refs/tags/flights/1\. Nothing was pruned"):
        prune(origin.first, keeping(1))

    assert origin.git("for-each-ref") == before
    assert origin.first.git("tag").split() == ["flights/1", "flights/2"]


def test_releases_and_prunes_at_the_same_time_lose_no_release_and_give_no_number_twice(origin: Origin) -> None:
    writer, pruner, second = origin.first, origin.clone("pruner"), origin.clone("second")
    names: list[str] = []
    writer.run(FLIGHTS, {1: 1})

    def write() -> None:
        names.extend(writer.release(FLIGHTS, amount).name for amount in range(1, 6))

    thread = threading.Thread(target=write)
    thread.start()
    pruned: list[str] = []
    while thread.is_alive():
        for clone in (pruner, second):
            if origin.tags():
                pruned += prune(clone, keeping(2)).pruned
        thread.join(timedelta(milliseconds=50).total_seconds())
    pruned += prune(pruner, keeping(2)).pruned

    assert names == [f"flights/{number}" for number in range(1, 6)]
    assert pruned == names[:3], "each was pruned once"
    assert origin.tags() == names[3:]
    pruner.git("fetch", "--quiet")
    assert [*read_tombstones(pruner.root, "flights")] == names[:3]
    assert collect_garbage(pruner.table_store, min_age_hours=0, remote=True, dry_run=False).deleted
    assert check_integrity(writer.table_store, deep=True).ok
