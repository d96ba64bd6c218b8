"""A disk on which a file cannot be written to its end: nothing of it is shown or kept, and the next run finishes."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from minimal_dataset import TOTALS, VALIDATED, create_table_store, raw_days, run_all_stages, write_raw_partitions

from headrace.engine import durations
from headrace.errors import HeadraceError
from headrace.storage.dvc.objects import md5_of
from headrace.storage.table_store import TableStore

LARGE = "".join(f"2026-01-02T12:00:00.{number:06}Z,shop-{number * 7919 % 10**6},{number}\n" for number in range(20_000))
LIMIT = 64 << 10


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel writes no file beyond this size: the same error, at the same calls, as a full disk (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_of(table_store: TableStore) -> set[Path]:
    return {path for path in table_store.root.rglob("*") if path.is_file()}


def is_damaged_object(path: Path) -> bool:
    """Whether a file of the cache is a temporary one, or an object with other bytes than its name says."""
    is_cached = ".dvc" in path.parts and path.parent.name != durations.FOLDER
    return is_cached and md5_of(path) != path.parent.name + path.name


def test_an_object_that_cannot_be_written_to_its_end_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    table_store = create_table_store(tmp_path)

    with files_of_at_most(LIMIT), pytest.raises(OSError, match="File too large"):
        table_store.cache.add(partial(Path.write_bytes, data=bytes(2 * LIMIT)))

    assert files_of(table_store) == set()


def test_a_table_whose_bytes_have_no_room_stays_as_it_was_and_the_next_run_finishes_it(tmp_path: Path) -> None:
    table_store, other = create_table_store(tmp_path / "full"), create_table_store(tmp_path / "other")
    write_raw_partitions(table_store, raw_days(1))
    run_all_stages(table_store)
    before = {table: table_store.manifest(table) for table in (VALIDATED, TOTALS)}
    for each in (table_store, other):
        write_raw_partitions(each, {**raw_days(1, 3), "2026-01-02": LARGE})

    with files_of_at_most(LIMIT), pytest.raises(HeadraceError, match=r"2026-01-02.*\(EFBIG\)"):
        run_all_stages(table_store)

    assert {table: table_store.manifest(table) for table in before} == before
    assert [path for path in files_of(table_store) if is_damaged_object(path)] == []
    run_all_stages(table_store)
    run_all_stages(other)
    assert {table: table_store.manifest(table) for table in before} == {
        table: other.manifest(table) for table in before
    }
