"""Whatever code of a project raises is an error of its partition: named, told once, and no other partition waits."""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import minimal_dataset
import polars as pl
import pytest
from minimal_dataset import RAW, TOTALS, VALIDATED, raw_days, run_all_stages, write_raw_partitions
from msgspec import structs

from headrace.dataset import Dataset, Input, ObjectSource
from headrace.engine.partition_errors import (
    PartitionFailedError,
    PartitionsRefusedError,
    to_known_error,
    to_partition_error,
)
from headrace.engine.run import TablesFailedError, combine_table_errors, run_stages
from headrace.errors import HeadraceError, TransientError
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.settings import Settings
from headrace.storage.partition_entry import PartitionEntry, SourceObject
from headrace.storage.table_store import TableStore
from headrace.unexpected_errors import FileSystemError
from headrace.validate import stage
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv

HERE = Path(__file__).name
BAD_DAY = "2026-01-03"
PANIC = "the Rust code of Polars stopped"


class OddError(Exception):
    """An error that cannot be sent to another process, and whose message cannot be shown."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(one)
        self.two = two

    def __str__(self) -> str:
        raise ValueError("no message")


class AwayError(TransientError):
    """A server of the project's own is away."""


class SilentError(BaseException):
    """An error that `except Exception` does not see."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "an exception": lambda: ZeroDivisionError("division by zero"),
    "a panic": lambda: pl.exceptions.PanicException(PANIC),
    "a BaseException": lambda: SilentError("nobody catches this"),
    "an odd one": lambda: OddError(lambda: None, 2),
    "a group": lambda: ExceptionGroup("several", [KeyError("a"), ValueError("b")]),
    "no memory": MemoryError,
    "a stop": StopIteration,
    "an exit": lambda: SystemExit(0),
    "the end of a generator": GeneratorExit,
    "a missing file": lambda: FileNotFoundError(errno.ENOENT, "No such file", "/data/airports.csv"),
}
"""What a function of a project may raise."""


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """Five days, nothing computed yet, each read from an object."""
    made = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(made, raw_days(1, 2, 3, 4, 5))
    manifest = made.manifest(RAW)
    entries = {
        name: structs.replace(entry, objects=(SourceObject("lake", f"sales/{name}.csv", "etag"),))
        for name, entry in manifest.partitions.items()
    }
    made.checkout(manifest.with_partitions(entries))
    return made


def with_read(
    read: Callable[[Path], Any],
    transform: Callable[[pl.DataFrame], Any] = minimal_dataset.keep_rows,
    batch_size: int = 1,
) -> Dataset:
    source = replace(minimal_dataset.SALES, read=read, transform=transform, batch_size=batch_size)
    return replace(minimal_dataset.DATASET, sources=(source,))


def with_kernel(kernel: Callable[..., Any]) -> Dataset:
    return replace(minimal_dataset.DATASET, features=(replace(minimal_dataset.FEATURES, transform=kernel),))


def fails_on(text: str, make: Callable[[], BaseException]) -> Callable[[Path], pl.DataFrame]:
    """A `read` that raises for the file that holds a text."""

    def read(path: Path) -> pl.DataFrame:
        if text in path.read_text():
            raise make()
        return minimal_dataset.read(path)

    return read


def remembered(table_store: TableStore, table: str) -> int:
    """Partitions that a run noted before it failed."""
    journal = table_store.root / ".headrace/journal" / f"{table.replace('/', '.')}.jsonl"
    return len(journal.read_bytes().splitlines()) if journal.exists() else 0


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kind", RAISED)
def test_what_a_reader_raises_is_an_error_of_its_partition_and_the_others_are_remembered(
    table_store: TableStore, kind: str, threads: int
) -> None:
    make = RAISED[kind]

    with pytest.raises(PartitionFailedError) as failed:
        run_all_stages(table_store, with_read(fails_on(BAD_DAY, make)), threads)

    message = str(failed.value)
    assert message.startswith(f"{VALIDATED} {BAD_DAY} (s3://lake/sales/{BAD_DAY}.csv): {type(make()).__name__}")
    assert re.search(rf"\(.*{HERE}, line \d+, in read\)", message)
    assert "`headrace validate tiny --table sales`" in message
    assert remembered(table_store, VALIDATED) == 4


@pytest.mark.parametrize("kind", ["an exception", "a panic", "a BaseException", "an exit"])
def test_what_a_kernel_raises_is_an_error_of_its_partition(table_store: TableStore, kind: str) -> None:
    def kernel(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
        if day == BAD_DAY:
            error = RAISED[kind]()
            raise error
        return minimal_dataset.totals(day, sales)

    with pytest.raises(PartitionFailedError) as failed:
        run_all_stages(table_store, with_kernel(kernel))

    assert f"{TOTALS} {BAD_DAY} (s3://lake/sales/{BAD_DAY}.csv): " in str(failed.value)
    assert f"{HERE}, line " in str(failed.value)
    assert "`headrace transform tiny --table totals`" in str(failed.value)
    assert remembered(table_store, TOTALS) == 4


def test_what_only_the_query_raises_names_the_kernel(table_store: TableStore) -> None:
    def kernel(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
        rows = minimal_dataset.totals(day, sales)
        return rows.with_columns(pl.col("shop").str.to_integer().alias("amount")) if day == BAD_DAY else rows

    with pytest.raises(HeadraceError) as failed:
        run_all_stages(table_store, with_kernel(kernel))

    assert f"{TOTALS} {BAD_DAY} " in str(failed.value)
    assert __name__ in str(failed.value)
    assert "\n" not in str(failed.value)
    assert remembered(table_store, TOTALS) == 4


@pytest.mark.parametrize("kind", ["an exception", "a panic", "a BaseException", "an exit"])
def test_what_transform_raises_names_its_line(table_store: TableStore, kind: str) -> None:
    def transform(rows: pl.DataFrame) -> pl.DataFrame:
        if rows["at"].dt.day()[0] == 3:
            error = RAISED[kind]()
            raise error
        return rows

    with pytest.raises(HeadraceError) as failed:
        run_all_stages(table_store, with_read(minimal_dataset.read, transform=transform))

    assert f"sales {BAD_DAY} (s3://lake/sales/{BAD_DAY}.csv): `transform`" in str(failed.value)
    assert f"{HERE}, line " in str(failed.value)
    assert remembered(table_store, VALIDATED) == 4


@pytest.mark.parametrize("given", [None, [], "text", pl.LazyFrame({"at": []})])
def test_a_function_that_returns_no_frame_is_named(table_store: TableStore, given: object) -> None:
    with pytest.raises(HeadraceError, match="expected a polars DataFrame, but `read`"):
        run_all_stages(table_store, with_read(lambda _path: given))
    with pytest.raises(HeadraceError, match="expected a polars DataFrame, but `transform`"):
        run_all_stages(table_store, with_read(minimal_dataset.read, transform=lambda _rows: given))


def test_a_kernel_that_returns_no_lazy_frame_is_named(table_store: TableStore) -> None:
    with pytest.raises(HeadraceError, match="expected a LazyFrame, but its kernel returned NoneType"):
        run_all_stages(table_store, with_kernel(lambda day, sales: None))  # noqa: ARG005


def test_partitions_computed_together_are_left_to_themselves_when_one_of_them_raises(table_store: TableStore) -> None:
    dataset = with_read(fails_on(BAD_DAY, RAISED["a BaseException"]), batch_size=5)

    with pytest.raises(PartitionFailedError, match=BAD_DAY):
        run_all_stages(table_store, dataset)

    assert remembered(table_store, VALIDATED) == 4


def test_an_equal_reason_is_told_once_with_the_first_partitions_and_their_number(table_store: TableStore) -> None:
    write_raw_partitions(table_store, raw_days(*range(6, 20)))

    with pytest.raises(PartitionsRefusedError) as failed:
        run_all_stages(table_store, with_read(fails_on("2026", RAISED["an exception"])))

    head, first, others = str(failed.value).splitlines()
    assert head == f"{VALIDATED}: 19 partitions refused."
    assert first.startswith(f"- {VALIDATED} 2026-01-01 (s3://lake/sales/2026-01-01.csv): ZeroDivisionError")
    assert others.startswith("  The same for 18 more: 2026-01-02 (s3://lake/sales/2026-01-02.csv), 2026-01-03")
    assert others.endswith("2026-01-06 …")


def test_different_reasons_are_told_apart_and_only_the_first_of_many_in_full(table_store: TableStore) -> None:
    write_raw_partitions(table_store, raw_days(6, 7))

    def read(path: Path) -> pl.DataFrame:
        raise ValueError(f"line {path.read_text().splitlines()[1][:10].replace('-', ' ')}")

    with pytest.raises(PartitionsRefusedError) as failed:
        run_all_stages(table_store, with_read(read))

    assert len(str(failed.value).splitlines()) == 7
    assert str(failed.value).endswith("… and 2 more partitions for 2 other reasons")


def test_a_transient_reason_stays_transient(table_store: TableStore) -> None:
    with pytest.raises(AwayError, match=f"{VALIDATED} {BAD_DAY}.*: the server is away"):
        run_all_stages(table_store, with_read(fails_on(BAD_DAY, lambda: AwayError("the server is away"))))


def exit_by_signal() -> BaseException:
    """Send this process a signal whose handler ends it, as a scheduler's does."""
    before = signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    raise AssertionError("the handler has not ended the process")


@pytest.mark.parametrize(
    ("ends", "make"), [(KeyboardInterrupt, KeyboardInterrupt), (SystemExit, exit_by_signal)], ids=["keys", "signal"]
)
def test_a_request_to_end_the_process_is_obeyed(
    table_store: TableStore, ends: type[BaseException], make: Callable[[], BaseException]
) -> None:
    write_raw_partitions(table_store, {}, drop=("2026-01-01", "2026-01-02"))

    with pytest.raises(ends):
        run_all_stages(table_store, with_read(fails_on(BAD_DAY, make)), threads=1)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "no room or no inodes left"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "Use a shorter folder or partition name"),
        (errno.EACCES, "permissions"),
    ],
)
def test_what_the_operating_system_refuses_is_told_with_the_file_and_what_to_do(
    table_store: TableStore, number: int, advice: str
) -> None:
    refusal = OSError(number, os.strerror(number), "/mnt/cache/files/md5/25/88")

    with pytest.raises(FileSystemError) as failed:
        run_all_stages(table_store, with_read(fails_on(BAD_DAY, lambda: refusal)))

    assert f"sales {BAD_DAY} (s3://lake/sales/{BAD_DAY}.csv): /mnt/cache/files/md5/25/88: " in str(failed.value)
    assert f"({errno.errorcode[number]})" in str(failed.value)
    assert advice in str(failed.value)
    assert remembered(table_store, VALIDATED) == 4


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_second_input_that_begins_later_is_an_empty_frame_with_its_columns(
    table_store: TableStore, batch_size: int
) -> None:
    run_all_stages(table_store)
    events, manifest = VALIDATED.replace("sales", "events"), table_store.manifest(VALIDATED)
    late = {name: entry for name, entry in manifest.partitions.items() if name >= "2026-01-04"}
    table_store.checkout(replace(manifest, table=events, partitions=late))
    shapes: dict[str, tuple[int, list[str]]] = {}

    def kernel(day: str, sales: pl.LazyFrame, events: pl.LazyFrame, end_day: str = "") -> pl.LazyFrame:
        seen = events.collect()
        shapes[end_day or day] = seen.height, seen.columns
        return sales.select("shop", "amount", event_time="at", known_time="at")

    inputs = {"sales": Input("validated/sales"), "events": Input("validated/events")}
    table = replace(minimal_dataset.FEATURES, inputs=inputs, transform=kernel, batch_size=batch_size)
    run_all_stages(table_store, replace(minimal_dataset.DATASET, features=(table,)))

    heights = {day: height for day, (height, _) in shapes.items()}
    single = {"2026-01-01": 0, "2026-01-02": 0, "2026-01-03": 0, "2026-01-04": 2, "2026-01-05": 2}
    assert heights == (single if batch_size == 1 else {"2026-01-02": 0, "2026-01-04": 2, "2026-01-05": 2})
    assert all(columns == ["at", "shop", "amount"] for _, columns in shapes.values())
    assert table_store.manifest(TOTALS).rows == 10


def test_an_input_without_any_partition_is_named(table_store: TableStore) -> None:
    inputs = {**minimal_dataset.FEATURES.inputs, "events": Input("validated/events", lookback=1)}
    table = replace(minimal_dataset.FEATURES, inputs=inputs)

    with pytest.raises(
        HeadraceError, match="validated/events, which the kernel reads as `events`, has no partition yet"
    ):
        run_all_stages(table_store, replace(minimal_dataset.DATASET, features=(table,)))


def test_bytes_that_cannot_be_read_are_named_by_their_partition_and_object(table_store: TableStore) -> None:
    write_raw_partitions(table_store, {"2026-01-06": "", "2026-01-07": "x\n"})
    stored = table_store.cache.add_bytes(b"\n")
    manifest = table_store.manifest(RAW)
    entries = {**manifest.partitions, "2026-01-08": PartitionEntry(stored.md5, stored.md5, stored.size)}
    table_store.checkout(manifest.with_partitions(entries))

    with pytest.raises(PartitionsRefusedError) as failed:
        run_all_stages(table_store, with_read(lambda path: read_csv(path, CsvDialect())))

    assert f"- {VALIDATED} 2026-01-07: 100.0% of 1 rows rejected, 50.0% tolerated. Most often: line|fields" in str(
        failed.value
    )
    assert f"- {VALIDATED} 2026-01-08: it holds nothing but line ends" in str(failed.value)
    assert str(table_store.cache.path(stored.md5)) in str(failed.value)
    assert "`headrace ingest`" in str(failed.value)
    assert remembered(table_store, VALIDATED) == 6


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zst", ".parquet"])
def test_an_object_that_is_not_what_its_suffix_says_is_refused_by_its_partition(
    table_store: TableStore, suffix: str
) -> None:
    location = ObjectSource("sales/", r"sales/(?P<partition>.+)\..*", suffix)
    source = replace(minimal_dataset.SALES, location=location)

    with pytest.raises(PartitionsRefusedError, match=rf"2026-01-01 .*: expected \w+ by its suffix {suffix}, but it"):
        run_all_stages(table_store, replace(minimal_dataset.DATASET, sources=(source,)))


def test_a_group_of_files_is_read_up_to_a_bound_and_the_rest_one_by_one(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> pl.DataFrame:
        read.append(path)
        return minimal_dataset.read(path)

    monkeypatch.setattr(
        stage, "GROUP_BYTES", 3 * minimal_dataset.read(table_store.cache.path(_md5(table_store))).estimated_size()
    )

    run_all_stages(table_store, with_read(counted, batch_size=5))

    assert len(table_store.manifest(VALIDATED).partitions) == 5
    assert len(read) == 6, "the fourth did not fit: it and the fifth were computed alone"


def _md5(table_store: TableStore) -> str:
    return table_store.manifest(RAW).partitions["2026-01-01"].md5


def test_a_table_that_fails_stops_those_that_read_it_and_no_others(table_store: TableStore) -> None:
    other = replace(minimal_dataset.SALES, name="visits")
    features = replace(minimal_dataset.FEATURES, name="visitors", inputs={"sales": Input("validated/visits")})
    good = with_read(fails_on(BAD_DAY, RAISED["an exception"]))
    dataset = replace(good, sources=(*good.sources, other), features=(minimal_dataset.FEATURES, features))
    raw = table_store.manifest(RAW)
    table_store.checkout(replace(raw, table="raw/tiny/visits"))

    with pytest.raises(PartitionFailedError, match=f"{VALIDATED} {BAD_DAY} "):
        run_stages(
            graph.dataset_stages(dataset), table_store, Executor(Settings(workspace=table_store.root, threads=1))
        )

    assert len(table_store.manifest("features/tiny/visitors").partitions) == 5
    assert not table_store.manifest(TOTALS).partitions


def test_the_errors_of_several_tables_are_told_together_and_equal_ones_once(table_store: TableStore) -> None:
    table_store.checkout(replace(table_store.manifest(RAW), table="raw/tiny/visits"))
    good = with_read(fails_on(BAD_DAY, RAISED["an exception"]))
    dataset = replace(good, sources=(*good.sources, replace(good.sources[0], name="visits")))

    with pytest.raises(TablesFailedError, match=f"tiny/sales {BAD_DAY}.*\n.*tiny/visits {BAD_DAY}"):
        run_stages(graph.dataset_stages(dataset), table_store, Executor(Settings(workspace=table_store.root)))
    assert str(combine_table_errors([HeadraceError("a"), HeadraceError("a"), HeadraceError("b")])) == "a\nb"


class StatefulError(HeadraceError):
    """An error of a project that cannot be made again from its message."""

    __module__ = "pipelines.errors"

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def test_an_error_of_the_project_is_sent_as_it_is_if_another_process_can_receive_it() -> None:
    declared = graph.dataset_stages(minimal_dataset.DATASET)[0]
    away, stateful = AwayError("the server is away"), StatefulError("this", "that")

    assert to_partition_error(away, declared) is away
    told = to_partition_error(stateful, declared)
    assert isinstance(told, PartitionFailedError)
    assert "this and that" in str(told)


def test_what_fails_outside_of_a_projects_code_is_a_known_error() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    known = HeadraceError("known")

    assert to_known_error(known) is known
    assert isinstance(to_known_error(full), FileSystemError)
    odd = to_known_error(OSError(errno.EINVAL, "Invalid argument"))
    assert isinstance(odd, PartitionFailedError)
    assert "Run the same command again; with `--debug`" in str(odd)
