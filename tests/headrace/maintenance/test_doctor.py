"""Doctor: what stock DVC does not see is found, mended from wherever good bytes are, and what cannot be is named.

Each fault is seeded on a real S3 server, a real cache and a real clone; `dvc pull` of a fresh clone is the judge.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from raw_data import days
from workspaces import Workspace

from headrace.maintenance.doctor import care
from headrace.maintenance.repair import ASIDE
from headrace.release.release import create_release
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.manifest import MANIFEST
from headrace.storage.table_store import Lake

DAYS = days(1, 2)
FEATURES, VALIDATED, RAW = "features/flights/carrier_delays", "validated/flights/flights", "raw/flights/flights"
DAY = "2013-01-01"
STAGE = "flights-validate-airports"


def test_a_workspace_whose_release_is_whole_is_well(released: Workspace) -> None:
    for deep in (False, True):
        seen = care(released.lake, deep=deep)

        assert seen.is_well
        assert (len(seen.repaired), len(seen.cleared)) == (0, 0)
        assert seen.objects > len(released.lake.tables("flights"))


@pytest.mark.parametrize("fault", ["deleted", "truncated", "flipped"])
def test_an_object_that_the_remote_lost_is_written_again_from_the_cache(released: Workspace, fault: str) -> None:
    md5 = object_of(released, FEATURES)
    break_remote(released, md5, fault)

    found = care(released.lake)
    done = care(released.lake, mend=True)

    assert [item.damage.md5 for item in found.repaired] == [md5]
    assert found.repaired[0].damage.cache == "good"
    assert not found.is_well
    assert done.repaired[0].mended == "remote: written again and read back"
    assert care(released.lake, deep=True).is_well


def test_after_many_faults_at_once_that_stock_dvc_does_not_see_a_fresh_clone_pulls_everything(
    released: Workspace,
) -> None:
    first, second = (object_of(released, RAW, day) for day in DAYS)
    break_remote(released, first, "deleted")
    break_remote(released, second, "truncated")
    break_cache(released, second, "flipped")
    break_remote(released, object_of(released, FEATURES), "flipped")
    break_cache(released, object_of(released, FEATURES, DAYS[1]), "truncated")
    break_remote(released, list_of(released, "raw/flights/planes"), "truncated")
    break_cache(released, list_of(released, "raw/flights/planes"), "truncated")
    lose(released, VALIDATED, object_of(released, VALIDATED))

    done = care(released.lake, deep=True, mend=True)

    assert len(done.repaired) == 6
    assert done.is_well
    pulls_whole(released, "colleague")


def test_stock_dvc_calls_everything_up_to_date_while_objects_are_lost_and_corrupt(released: Workspace) -> None:
    lost, flipped = object_of(released, FEATURES), object_of(released, VALIDATED)
    break_remote(released, lost, "deleted")
    break_cache(released, flipped, "flipped")

    assert not released.stale_stages()
    assert "up to date" in released.dvc("push")
    assert "up to date" in released.dvc("pull", f"data/{FEATURES}", f"data/{VALIDATED}")
    assert {item.damage.md5 for item in care(released.lake, deep=True).repaired} == {lost, flipped}


def test_an_object_whose_bytes_the_server_lost_while_it_still_lists_it_is_written_again(released: Workspace) -> None:
    md5, lake = object_of(released, FEATURES), impatient(released.lake)
    remote = lake.cache.remote
    (released.remote.folder / remote.bucket.name / remote.key(md5)).unlink()

    done = care(lake, deep=True, mend=True)

    (item,) = done.repaired
    assert (item.damage.md5, item.damage.remote) == (md5, "listed, but its bytes are not given")
    assert item.mended == "remote: written again and read back"
    assert care(lake, deep=True).is_well


@pytest.mark.parametrize("fault", ["truncated", "flipped"])
def test_a_corrupt_object_of_the_cache_is_set_aside_and_fetched_from_the_remote(
    released: Workspace, fault: str
) -> None:
    md5 = object_of(released, FEATURES)
    good = released.lake.cache.path(md5).read_bytes()
    break_cache(released, md5, fault)

    done = care(released.lake, deep=True, mend=True)

    assert [item.mended for item in done.repaired] == ["cache: fetched from the remote"]
    assert released.lake.cache.path(md5).read_bytes() == good
    assert released.lake.cache.path(md5).stat().st_mode & 0o777 == 0o444
    assert (released.root / ASIDE / md5).read_bytes() == broken(good, fault)
    assert care(released.lake, deep=True).is_well


def test_a_flip_in_the_cache_is_for_deep_to_find_because_sizes_do_not_show_it(released: Workspace) -> None:
    break_cache(released, object_of(released, FEATURES), "flipped")

    assert care(released.lake).is_well
    assert not care(released.lake, deep=True).is_well


def test_a_flip_on_a_server_whose_etags_are_no_md5s_is_for_deep_to_find(
    released: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.maintenance.integrity._with_other_etags", lambda _listed: set())
    break_remote(released, object_of(released, FEATURES), "flipped")

    assert care(released.lake).is_well
    assert [item.damage.remote[:4] for item in care(released.lake, deep=True).repaired] == ["md5 "]


def test_an_object_that_is_not_in_the_cache_is_no_fault_while_the_remote_has_it(released: Workspace) -> None:
    remove(released.lake.cache.path(object_of(released, FEATURES)))

    assert care(released.lake, deep=True).is_well


def test_corrupt_bytes_that_the_workspace_shows_are_replaced_too(released: Workspace) -> None:
    md5, file = object_of(released, FEATURES), released.lake.folder(FEATURES) / f"{DAY}.parquet"
    good = file.read_bytes()
    break_cache(released, md5, "flipped")
    file.write_bytes(broken(good, "flipped"))

    done = care(released.lake, deep=True, mend=True)

    assert "copied again" in done.repaired[0].mended
    assert file.read_bytes() == good


def test_what_cache_and_remote_lost_is_taken_from_the_files_that_the_workspace_shows(released: Workspace) -> None:
    md5 = object_of(released, RAW)
    break_remote(released, md5, "flipped")
    break_cache(released, md5, "truncated")

    done = care(released.lake, mend=True)

    assert done.repaired[0].mended == "cache: taken from the workspace; remote: written again and read back"
    assert care(released.lake, deep=True).is_well


def test_what_is_nowhere_is_computed_again_from_its_inputs_with_the_same_hash(released: Workspace) -> None:
    lost = [object_of(released, VALIDATED), object_of(released, FEATURES)]
    for table, md5 in zip((VALIDATED, FEATURES), lost, strict=True):
        lose(released, table, md5)

    done = care(released.lake, mend=True)

    assert [item.damage.md5 for item in done.repaired] == lost, "each after its inputs"
    assert f"computed again by transform {FEATURES} {DAY}" in done.repaired[1].mended
    assert care(released.lake, deep=True).is_well


def test_raw_bytes_that_are_nowhere_are_named_with_their_releases_and_the_command_that_reads_them_again(
    released: Workspace,
) -> None:
    md5 = object_of(released, RAW)
    lose(released, RAW, md5)

    said = json.loads(released.command("headrace", "doctor", "--repair", "--json", fails=True))

    (item,) = said["damaged"]
    assert (item["md5"], item["mended"]) == (md5, "")
    assert item["paths"] == [f"data/{RAW}/{DAY}.csv.gz"]
    assert item["held_by"][:2] == ["flights/1", "HEAD"]
    assert f"headrace ingest flights --table flights --partition {DAY} --full-refresh" in item["left"]


def test_what_other_code_made_is_named_with_the_release_to_make_it_again_at(released: Workspace) -> None:
    lose(released, FEATURES, object_of(released, FEATURES))
    released.edit("pipelines/flights/features/carrier_delays.py", "timedelta(days=", "timedelta(hours=24 *")

    said = released.command("headrace", "doctor", "--repair", fails=True)

    assert "was made by other code" in said
    assert "In a clone at flights/1" in said
    assert "1 found, 0 mended, 1 left" in said


@pytest.mark.parametrize("side", ["cache", "remote", "both"])
def test_a_lost_list_of_files_is_mended_and_what_it_names_is_looked_at_too(released: Workspace, side: str) -> None:
    md5 = list_of(released, FEATURES)
    partition = object_of(released, FEATURES)
    if side in ("cache", "both"):
        break_cache(released, md5, "flipped")
    if side in ("remote", "both"):
        break_remote(released, md5, "deleted")
    break_remote(released, partition, "deleted")

    done = care(released.lake, mend=True)

    assert {item.damage.md5 for item in done.repaired} == {md5, partition}
    assert care(released.lake, deep=True).is_well


def test_an_older_release_is_looked_after_from_a_clone_that_never_pulled_it(released: Workspace) -> None:
    old = object_of(released, RAW)
    released.raw.change(DAY, lambda rows: rows.head(600))
    released.refresh()
    create_release(released.dataset, released.lake)
    clone = released.clone("colleague")
    break_remote(released, old, "truncated")

    (item,) = care(clone.lake).repaired
    care(released.lake, mend=True)

    assert item.damage.holders == ("flights/1",)
    assert item.damage.paths == (f"data/{RAW}/{DAY}.csv.gz",)
    assert care(clone.lake, deep=True).is_well


def test_the_command_line_says_found_mended_left_and_exits_with_1_while_something_is_left(released: Workspace) -> None:
    break_remote(released, object_of(released, FEATURES), "deleted")

    before = released.command("headrace", "doctor", fails=True)
    during = released.command("headrace", "doctor", "--repair")
    after = released.command("headrace", "doctor", "--deep")

    assert f"(data/{FEATURES}/{DAY}.parquet of flights/1, HEAD, the workspace): remote missing, cache good" in before
    assert "1 found, 0 mended, 1 left; `headrace doctor --repair`" in before
    assert "mended: remote: written again and read back" in during
    assert "hashed on both sides" in after


def test_what_the_machine_lacks_for_some_uses_is_noted_and_does_not_fail(workspace: Workspace) -> None:
    said = workspace.command("headrace", "doctor")

    assert "note Feast's configuration: FEAST_ONLINE_STORE_PATH and FEAST_REGISTRY_URL not set" in said


def object_of(workspace: Workspace, table: str, partition: str = DAY) -> str:
    return workspace.lake.manifest(table).partitions[partition].md5


def list_of(workspace: Workspace, table: str) -> str:
    return str(recorded_outs(workspace.root)[f"data/{table}"]["md5"])


def impatient(lake: Lake) -> Lake:
    """The same, but a request is not tried again for long."""
    remote = lake.cache.remote
    return replace(lake, cache=replace(lake.cache, lent=replace(remote, bucket=replace(remote.bucket, patience=0.2))))


def broken(content: bytes, fault: str) -> bytes:
    if fault == "truncated":
        return content[: len(content) // 2]
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def break_remote(workspace: Workspace, md5: str, fault: str) -> None:
    remote = workspace.lake.cache.remote
    key = remote.key(md5)
    found = remote.bucket.head(key)
    assert found
    if fault == "deleted":
        remote.bucket.delete(key)
    else:
        remote.bucket.write(key, broken(remote.bucket.read(found), fault))


def break_cache(workspace: Workspace, md5: str, fault: str) -> None:
    path = workspace.lake.cache.path(md5)
    content = path.read_bytes()
    remove(path)
    path.write_bytes(broken(content, fault))
    path.chmod(0o444)


def lose(workspace: Workspace, table: str, md5: str) -> None:
    """Remote, cache and the workspace's own copy: gone."""
    break_remote(workspace, md5, "deleted")
    remove(workspace.lake.cache.path(md5))
    for path in workspace.lake.folder(table).glob(f"{DAY}.*"):
        path.unlink()


def remove(path: Path) -> None:
    path.chmod(0o644)
    path.unlink()


def pulls_whole(workspace: Workspace, name: str) -> None:
    """A fresh clone pulls, and has what the workspace has."""
    clone, tables = workspace.clone(name), workspace.lake.tables("flights")
    clone.dvc("pull", *(f"data/{table}" for table in tables))
    for table in tables:
        for partition, entry in workspace.lake.manifest(table).partitions.items():
            assert clone.lake.cache.has(entry.md5, entry.size), (table, partition)
        assert (clone.lake.folder(table) / MANIFEST).read_bytes() == (
            workspace.lake.folder(table) / MANIFEST
        ).read_bytes()
