"""Ingest refuses a source that suddenly holds little, or that has partitions of the future, until that is accepted."""

import secrets
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import minimal_dataset
import pytest
from minimal_dataset import RAW, create_table_store, raw_days
from servers import PostgreSQL

from headrace.dataset import Dataset, Guards, ObjectSource, TableSource
from headrace.guards.finding_log import open_finding_log
from headrace.guards.gate import FindingsError, accept_finding
from headrace.guards.vanished import table_loss
from headrace.ingest.ingest import IngestResult, ingest
from headrace.settings import Settings
from headrace.storage.table_store import TableStore


class Source:
    """A folder that stands in for a bucket, with one file per day; its dataset; and an empty workspace."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "source" / "sales"
        self.folder.mkdir(parents=True)
        self.table_store: TableStore = create_table_store(root)
        location = ObjectSource(
            "sales/", r"sales/(?P<partition>.+)\.csv", ".csv", bucket=f"file://{self.folder.parent}"
        )
        source = replace(minimal_dataset.SALES, location=location)
        self.dataset: Dataset = replace(minimal_dataset.DATASET, sources=(source,))

    def put(self, *names: str, text: str = "at,shop,amount\n") -> None:
        for name in names:
            (self.folder / f"{name}.csv").write_text(f"{text}{name}\n")

    def delete(self, *names: str) -> None:
        for name in names:
            (self.folder / f"{name}.csv").unlink()

    def ingest(self) -> IngestResult:
        return ingest(self.dataset, self.table_store, Settings())[0]

    def accept(self, refused: FindingsError) -> None:
        for finding in refused.findings:
            accept_finding(open_finding_log(self.table_store, "tiny"), finding.id, by="ann", reason="intended")

    @property
    def partitions(self) -> list[str]:
        return sorted(self.table_store.manifest(RAW).md5s)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def test_a_source_of_thirty_partitions_that_lists_one_is_refused_with_counts_and_names(source: Source) -> None:
    days = sorted(raw_days(*range(1, 31)))
    source.put(*days)
    source.ingest()
    source.delete(*days[1:])

    with pytest.raises(FindingsError) as refused:
        source.ingest()

    assert str(refused.value).startswith(
        "raw/tiny/sales: 29 of 30 partitions would vanish (2026-01-02, 2026-01-03, 2026-01-04, …) since the last"
        " ingest; at most 50% may. The table stays as it was."
    )
    assert "`headrace accept tiny vanished:raw/tiny/sales@" in str(refused.value)
    assert source.partitions == days


def test_an_accepted_loss_passes_and_later_runs_do_nothing(source: Source) -> None:
    days = sorted(raw_days(*range(1, 31)))
    source.put(*days)
    source.ingest()
    source.delete(*days[1:])
    with pytest.raises(FindingsError) as refused:
        source.ingest()

    source.accept(refused.value)

    assert source.ingest().deleted == tuple(days[1:])
    assert source.ingest().deleted == ()
    assert source.partitions == days[:1]


def test_more_that_vanishes_after_the_acceptance_is_refused_again(source: Source) -> None:
    days = sorted(raw_days(*range(1, 11)))
    source.put(*days)
    source.ingest()
    source.delete(*days[2:])
    with pytest.raises(FindingsError, match="8 of 10 partitions") as refused:
        source.ingest()
    source.accept(refused.value)
    source.delete(days[1])

    with pytest.raises(FindingsError, match="9 of 10 partitions"):
        source.ingest()


def test_new_partitions_of_a_refused_run_are_read_once(source: Source) -> None:
    source.put("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-05")
    source.ingest()
    source.delete("2026-01-01", "2026-01-02", "2026-01-05")
    source.put("2026-01-04")
    with pytest.raises(FindingsError) as refused:
        source.ingest()

    source.accept(refused.value)

    done = source.ingest()
    assert (done.new, done.read) == (("2026-01-04",), 0)


def test_half_of_a_tiny_source_may_go(source: Source) -> None:
    source.put("2026-01-01", "2026-01-02")
    source.ingest()
    source.delete("2026-01-01")

    assert source.ingest().deleted == ("2026-01-01",)


def test_a_source_that_is_restored_needs_no_acceptance(source: Source) -> None:
    source.put("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-05")
    source.ingest()
    source.delete("2026-01-01", "2026-01-02", "2026-01-05")
    with pytest.raises(FindingsError):
        source.ingest()
    source.put("2026-01-01", "2026-01-02", "2026-01-05")

    assert source.ingest().deleted == ()
    assert open_finding_log(source.table_store, "tiny").read().open == []


def test_a_partition_of_the_future_is_refused_by_name(source: Source) -> None:
    source.put("2026-01-01", "2999-01-01")

    with pytest.raises(FindingsError, match="raw/tiny/sales 2999-01-01: 2999-01-01T00:00:00") as refused:
        source.ingest()

    assert source.partitions == []
    source.accept(refused.value)
    assert source.ingest().new == ("2026-01-01", "2999-01-01")


def test_other_bytes_of_a_partition_of_the_future_need_their_own_acceptance(source: Source) -> None:
    source.put("2999-01-01")
    with pytest.raises(FindingsError) as refused:
        source.ingest()
    source.accept(refused.value)
    source.put("2999-01-01", text="others\n")

    with pytest.raises(FindingsError, match="2999-01-01"):
        source.ingest()


def test_one_partition_of_the_future_does_not_name_the_others(source: Source) -> None:
    source.put("2026-01-01", "2999-01-01")

    with pytest.raises(FindingsError) as refused:
        source.ingest()

    assert [each.partition for each in refused.value.findings] == ["2999-01-01"]


def test_the_guards_of_a_source_win_over_those_of_its_dataset(source: Source) -> None:
    open_ended = Guards(max_vanished_share=1, max_future=None)
    source.dataset = replace(source.dataset, sources=(replace(source.dataset.sources[0], guards=open_ended),))
    source.put("2026-01-01", "2026-01-02", "2026-01-03", "2999-01-01")
    source.ingest()
    source.delete("2026-01-01", "2026-01-02", "2026-01-03")

    assert source.ingest().deleted == ("2026-01-01", "2026-01-02", "2026-01-03")


@pytest.mark.parametrize("guards", [Guards(), Guards(max_vanished_share=1)])
def test_an_empty_source_that_is_accepted_is_accepted_for_the_release_too(source: Source, guards: Guards) -> None:
    source.dataset = replace(source.dataset, guards=guards)
    source.put("2026-01-01")
    source.ingest()
    before = source.table_store.manifest(RAW)
    source.delete("2026-01-01")
    with pytest.raises(FindingsError, match=r"raw/tiny/sales has 1 partition, but .* lists none") as refused:
        source.ingest()

    source.accept(refused.value)
    source.ingest()

    at_release = table_loss(before, source.table_store.manifest(RAW)).finding(Guards(), "since tiny/1")
    assert at_release
    assert [each.id for each in refused.value.findings] == [at_release.id]


# --- databases ---


def table_dataset(partition_by: str | None) -> Dataset:
    location = TableSource("sales", ("id",), "changed", partition_by, database="TEST_DATABASE")
    source = replace(minimal_dataset.SALES, location=location, key=("id",))
    return replace(minimal_dataset.DATASET, sources=(source,))


def test_rows_that_vanish_within_a_table_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_DATABASE", f"sqlite:///{tmp_path}/source.db")
    table_store, dataset = create_table_store(tmp_path), table_dataset(None)
    with closing(sqlite3.connect(tmp_path / "source.db")) as database, database:
        database.execute("CREATE TABLE sales (id INTEGER, changed INTEGER)")
        database.executemany("INSERT INTO sales VALUES (?, ?)", [(n, n) for n in range(30)])
    ingest(dataset, table_store, Settings())
    with closing(sqlite3.connect(tmp_path / "source.db")) as database, database:
        database.execute("DELETE FROM sales WHERE id >= 3")

    with pytest.raises(FindingsError, match=r"27 of 30 rows would vanish \(all\)"):
        ingest(dataset, table_store, Settings())

    assert table_store.manifest(RAW).rows == 30


def test_rows_that_row_level_security_hides_are_refused(
    postgres: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_store, dataset, name = create_table_store(tmp_path), table_dataset("at"), postgres.new_database()
    reader, password = f"reader_{name}", secrets.token_hex(8)
    with postgres.connect(name) as database:
        for statement in (
            "CREATE VIEW days AS SELECT * FROM generate_series(0, 29) n",
            "CREATE TABLE sales (id int, at timestamptz, changed int)",
            "INSERT INTO sales SELECT n, timestamptz '2026-01-01Z' + n * interval '1d', n FROM days",
            f"CREATE ROLE {reader} LOGIN PASSWORD '{password}'",
            f"GRANT SELECT ON sales TO {reader}",
        ):
            database.execute(statement.encode())
    monkeypatch.setenv("TEST_DATABASE", replace(postgres, user=reader, password=password).address(name))
    ingest(dataset, table_store, Settings())
    with postgres.connect(name) as database:
        database.execute("ALTER TABLE sales ENABLE ROW LEVEL SECURITY")
        database.execute(f"CREATE POLICY few ON sales TO {reader} USING (id < 3)".encode())

    with pytest.raises(FindingsError, match=r"raw/tiny/sales: 27 of 30 partitions and 27 of 30 rows would vanish"):
        ingest(dataset, table_store, Settings())

    assert table_store.manifest(RAW).rows == 30
