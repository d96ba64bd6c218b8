"""Doctor: damage that stock DVC does not see is found, and repaired from wherever the bytes are still intact.

Each fault is injected on a real S3 server, a real cache and a real clone; `dvc pull` in a fresh clone is the oracle.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from raw_data import days
from servers import rclone_s3
from workspaces import Workspace

from headrace.maintenance.doctor import check_integrity
from headrace.maintenance.repair import QUARANTINE
from headrace.release.release import create_release
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.manifest import HEAD_FILE
from headrace.storage.table_store import TableStore

DAYS = days(1, 2)
FEATURES, VALIDATED, RAW = "features/flights/carrier_delays", "validated/flights/flights", "raw/flights/flights"
DAY = "2013-01-01"
STAGE = "flights-validate-airports"


def test_an_intact_workspace_with_a_release_has_no_damage(released: Workspace) -> None:
    for deep in (False, True):
        report = check_integrity(released.table_store, deep=deep)

        assert report.ok
        assert (len(report.repairs), len(report.cleanups)) == (0, 0)
        assert report.objects > len(released.table_store.tables("flights"))


@pytest.mark.parametrize("fault", ["deleted", "truncated", "flipped"])
def test_an_object_that_the_remote_lost_is_uploaded_again_from_the_cache(released: Workspace, fault: str) -> None:
    md5 = md5_of_partition(released, FEATURES)
    break_remote(released, md5, fault)

    found = check_integrity(released.table_store)
    done = check_integrity(released.table_store, repair=True)

    assert [item.damage.md5 for item in found.repairs] == [md5]
    assert found.repairs[0].damage.cache == "good"
    assert not found.ok
    assert done.repairs[0].repaired == "remote: uploaded again and read back"
    assert check_integrity(released.table_store, deep=True).ok


def test_after_a_repair_of_many_faults_at_once_a_fresh_clone_pulls_everything(
    released: Workspace,
) -> None:
    first, second = (md5_of_partition(released, RAW, day) for day in DAYS)
    break_remote(released, first, "deleted")
    break_remote(released, second, "truncated")
    break_cache(released, second, "flipped")
    break_remote(released, md5_of_partition(released, FEATURES), "flipped")
    break_cache(released, md5_of_partition(released, FEATURES, DAYS[1]), "truncated")
    break_remote(released, directory_of(released, "raw/flights/planes"), "truncated")
    break_cache(released, directory_of(released, "raw/flights/planes"), "truncated")
    delete_everywhere(released, VALIDATED, md5_of_partition(released, VALIDATED))

    done = check_integrity(released.table_store, deep=True, repair=True)

    assert len(done.repairs) == 6
    assert done.ok
    check_pull(released, "colleague")


def test_stock_dvc_reports_everything_up_to_date_while_objects_are_lost_and_corrupt(released: Workspace) -> None:
    lost, flipped = md5_of_partition(released, FEATURES), md5_of_partition(released, VALIDATED)
    break_remote(released, lost, "deleted")
    break_cache(released, flipped, "flipped")

    assert not released.stale_stages()
    assert "up to date" in released.dvc("push")
    assert "up to date" in released.dvc("pull", f"data/{FEATURES}", f"data/{VALIDATED}")
    assert {item.damage.md5 for item in check_integrity(released.table_store, deep=True).repairs} == {lost, flipped}


def test_an_object_that_the_server_lists_but_cannot_return_is_uploaded_again(released: Workspace) -> None:
    md5, table_store = md5_of_partition(released, FEATURES), with_short_timeout(released.table_store)
    remote = table_store.cache.remote
    assert list(remote.bucket.list(remote.key(md5)))  # the server keeps what it has listed
    (released.remote.folder / remote.bucket.name / remote.key(md5)).unlink()

    done = check_integrity(table_store, deep=True, repair=True)

    (item,) = done.repairs
    assert (item.damage.md5, item.damage.remote) == (md5, "listed but unreadable")
    assert item.repaired == "remote: uploaded again and read back"
    assert check_integrity(table_store, deep=True).ok


@pytest.mark.parametrize("fault", ["truncated", "flipped"])
def test_a_corrupt_object_in_the_cache_is_quarantined_and_fetched_from_the_remote(
    released: Workspace, fault: str
) -> None:
    md5 = md5_of_partition(released, FEATURES)
    good = released.table_store.cache.path(md5).read_bytes()
    break_cache(released, md5, fault)

    done = check_integrity(released.table_store, deep=True, repair=True)

    assert [item.repaired for item in done.repairs] == ["cache: fetched from the remote"]
    assert released.table_store.cache.path(md5).read_bytes() == good
    assert released.table_store.cache.path(md5).stat().st_mode & 0o777 == 0o444
    assert (released.root / QUARANTINE / md5).read_bytes() == broken(good, fault)
    assert check_integrity(released.table_store, deep=True).ok


def test_a_flipped_bit_in_the_cache_is_found_by_a_deep_check_only(released: Workspace) -> None:
    break_cache(released, md5_of_partition(released, FEATURES), "flipped")

    assert check_integrity(released.table_store).ok
    assert not check_integrity(released.table_store, deep=True).ok


def test_a_flipped_bit_on_a_server_whose_etags_look_like_md5s_and_are_not_is_found_by_a_deep_check_only(
    released: Workspace, tmp_path: Path
) -> None:
    md5 = md5_of_partition(released, FEATURES)
    break_remote(released, md5, "flipped")
    assert not check_integrity(released.table_store).ok, "here, where they are md5s"

    with rclone_s3(released.remote.folder, tmp_path / "log", "--etag-hash", "xxh128") as other:
        replace(released, remote=other).configure()
        etags = {item.etag for item in released.table_store.cache.remote.bucket.list("")}
        assert {len(etag) for etag in etags} == {32}
        assert check_integrity(released.table_store).ok
        (item,) = check_integrity(released.table_store, deep=True).repairs

    assert (item.damage.md5, item.damage.remote[:4]) == (md5, "md5 ")


def test_an_object_that_is_missing_in_the_cache_is_no_damage_while_the_remote_has_it(released: Workspace) -> None:
    remove(released.table_store.cache.path(md5_of_partition(released, FEATURES)))

    assert check_integrity(released.table_store, deep=True).ok


def test_corrupt_bytes_in_the_workspace_are_replaced_too(released: Workspace) -> None:
    md5, file = md5_of_partition(released, FEATURES), released.table_store.folder(FEATURES) / f"{DAY}.parquet"
    good = file.read_bytes()
    break_cache(released, md5, "flipped")
    file.write_bytes(broken(good, "flipped"))

    done = check_integrity(released.table_store, deep=True, repair=True)

    assert "copied again" in done.repairs[0].repaired
    assert file.read_bytes() == good


def test_an_object_that_cache_and_remote_lost_is_copied_from_the_workspace(released: Workspace) -> None:
    md5 = md5_of_partition(released, RAW)
    break_remote(released, md5, "flipped")
    break_cache(released, md5, "truncated")

    done = check_integrity(released.table_store, repair=True)

    assert done.repairs[0].repaired == "cache: copied from the workspace; remote: uploaded again and read back"
    assert check_integrity(released.table_store, deep=True).ok


def test_an_object_that_is_nowhere_is_recomputed_from_its_inputs_with_the_same_hash(released: Workspace) -> None:
    lost = [md5_of_partition(released, VALIDATED), md5_of_partition(released, FEATURES)]
    for table, md5 in zip((VALIDATED, FEATURES), lost, strict=True):
        delete_everywhere(released, table, md5)

    done = check_integrity(released.table_store, repair=True)

    assert [item.damage.md5 for item in done.repairs] == lost, "each after its inputs"
    assert f"recomputed by transform {FEATURES} {DAY}" in done.repairs[1].repaired
    assert check_integrity(released.table_store, deep=True).ok


def test_lost_raw_data_is_reported_with_its_releases_and_the_command_that_reads_it_again(
    released: Workspace,
) -> None:
    md5 = md5_of_partition(released, RAW)
    delete_everywhere(released, RAW, md5)

    said = json.loads(released.command("headrace", "doctor", "--repair", "--json", fails=True))

    (item,) = said["damaged"]
    assert (item["md5"], item["repaired"]) == (md5, "")
    assert item["paths"] == [f"data/{RAW}/{DAY}.csv.gz"]
    assert item["referenced_by"][:2] == ["flights/1", "HEAD"]
    assert f"headrace ingest flights --table flights --partition {DAY} --full-refresh" in item["unrepaired"]


def test_a_lost_object_of_other_code_is_reported_with_the_release_to_recompute_it_at(released: Workspace) -> None:
    delete_everywhere(released, FEATURES, md5_of_partition(released, FEATURES))
    released.edit("pipelines/flights/features/carrier_delays.py", "timedelta(days=", "timedelta(hours=24 *")

    said = released.command("headrace", "doctor", "--repair", fails=True)

    assert "was computed by other code" in said
    assert "In a clone at flights/1" in said
    assert "1 found, 0 repaired, 1 remaining" in said


@pytest.mark.parametrize("side", ["cache", "remote", "both"])
def test_a_lost_directory_object_is_repaired_and_its_files_are_checked_too(released: Workspace, side: str) -> None:
    md5 = directory_of(released, FEATURES)
    partition = md5_of_partition(released, FEATURES)
    if side in ("cache", "both"):
        break_cache(released, md5, "flipped")
    if side in ("remote", "both"):
        break_remote(released, md5, "deleted")
    break_remote(released, partition, "deleted")

    done = check_integrity(released.table_store, repair=True)

    assert {item.damage.md5 for item in done.repairs} == {md5, partition}
    assert check_integrity(released.table_store, deep=True).ok


def test_an_older_release_is_checked_from_a_clone_that_never_pulled_it(released: Workspace) -> None:
    old = md5_of_partition(released, RAW)
    released.raw.edit_day(DAY, lambda rows: rows.head(600))
    released.refresh()
    create_release(released.dataset, released.table_store)
    clone = released.clone("colleague")
    break_remote(released, old, "truncated")

    (item,) = check_integrity(clone.table_store).repairs
    check_integrity(released.table_store, repair=True)

    assert item.damage.referenced_by == ("flights/1",)
    assert item.damage.paths == (f"data/{RAW}/{DAY}.csv.gz",)
    assert check_integrity(clone.table_store, deep=True).ok


def test_the_command_prints_found_repaired_remaining_and_exits_with_1_while_something_remains(
    released: Workspace,
) -> None:
    break_remote(released, md5_of_partition(released, FEATURES), "deleted")

    before = released.command("headrace", "doctor", fails=True)
    during = released.command("headrace", "doctor", "--repair")
    after = released.command("headrace", "doctor", "--deep")

    assert f"(data/{FEATURES}/{DAY}.parquet of flights/1, HEAD, the workspace): remote missing, cache good" in before
    assert "1 found, 0 repaired, 1 remaining; `headrace doctor --repair`" in before
    assert "repaired: remote: uploaded again and read back" in during
    assert "hashed on both sides" in after


def test_what_only_some_commands_need_is_a_warning_and_does_not_fail(workspace: Workspace) -> None:
    said = workspace.command("headrace", "doctor")

    assert "warn Feast's configuration: FEAST_ONLINE_STORE_PATH and FEAST_REGISTRY_URL not set" in said


def md5_of_partition(workspace: Workspace, table: str, partition: str = DAY) -> str:
    return workspace.table_store.manifest(table).partitions[partition].md5


def directory_of(workspace: Workspace, table: str) -> str:
    return str(recorded_outs(workspace.root)[f"data/{table}"]["md5"])


def with_short_timeout(table_store: TableStore) -> TableStore:
    """The same table store, with a short timeout for retries."""
    remote = table_store.cache.remote
    return replace(
        table_store,
        cache=replace(
            table_store.cache, remote_override=replace(remote, bucket=replace(remote.bucket, retry_timeout_s=0.2))
        ),
    )


def broken(content: bytes, fault: str) -> bytes:
    if fault == "truncated":
        return content[: len(content) // 2]
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def break_remote(workspace: Workspace, md5: str, fault: str) -> None:
    remote = workspace.table_store.cache.remote
    key = remote.key(md5)
    found = remote.bucket.head(key)
    assert found
    if fault == "deleted":
        remote.bucket.delete(key)
    else:
        remote.bucket.write(key, broken(remote.bucket.read(found), fault))


def break_cache(workspace: Workspace, md5: str, fault: str) -> None:
    path = workspace.table_store.cache.path(md5)
    content = path.read_bytes()
    remove(path)
    path.write_bytes(broken(content, fault))
    path.chmod(0o444)


def delete_everywhere(workspace: Workspace, table: str, md5: str) -> None:
    """Delete an object from the remote, the cache and the workspace."""
    break_remote(workspace, md5, "deleted")
    remove(workspace.table_store.cache.path(md5))
    for path in workspace.table_store.folder(table).glob(f"{DAY}.*"):
        path.unlink()


def remove(path: Path) -> None:
    path.chmod(0o644)
    path.unlink()


def check_pull(workspace: Workspace, name: str) -> None:
    """Pull in a fresh clone, which then has what the workspace has."""
    clone, tables = workspace.clone(name), workspace.table_store.tables("flights")
    clone.dvc("pull", *(f"data/{table}" for table in tables))
    for table in tables:
        for partition, entry in workspace.table_store.manifest(table).partitions.items():
            assert clone.table_store.cache.has(entry.md5, entry.size), (table, partition)
        assert (clone.table_store.folder(table) / HEAD_FILE).read_bytes() == (
            workspace.table_store.folder(table) / HEAD_FILE
        ).read_bytes()
