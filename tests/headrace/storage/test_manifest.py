"""Manifests of format 2: equal tables have equal files, a change costs its chunk, and what is damaged is named."""

import json
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from headrace.engine.compute import store_partition
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import (
    FORMAT_1_FILE,
    HEAD_FILE,
    Manifest,
    ManifestFiles,
    ManifestFormatError,
    parse_manifest,
)
from headrace.storage.manifest_entries import FOLDER, Chunk, ChunkReference, DamagedManifestError, LazyEntries
from headrace.storage.partition_entry import PartitionEntry, SourceObject, decode_entry, encode_entry
from headrace.storage.partition_names import PartitionNameError, partition_interval
from headrace.storage.table_store import TableStore

TABLE = "validated/tiny/sales"
DAYS = [str(date(2013, 1, 1) + timedelta(days=number)) for number in range(90)]


def entry(name: str, mark: str = "a") -> PartitionEntry:
    start, end = partition_interval(name)
    return PartitionEntry(f"key {mark}", f"md5 {name} {mark}", 100, 2, start=start, end=end)


def manifest_of(names: list[str], mark: str = "a") -> Manifest:
    return Manifest(TABLE, partitions={name: entry(name, mark) for name in names})


def read_back(files: ManifestFiles) -> Manifest:
    """The manifest, from its bytes alone."""
    chunks = {chunk.reference.md5: chunk.content for chunk in files.chunks}
    return parse_manifest(files.head, lambda reference: chunks[reference.md5])


def unread(reference: ChunkReference) -> bytes:
    raise AssertionError(f"{reference.name} was read")


# Content


def test_a_manifest_reads_back_as_it_was_written() -> None:
    side = PartitionEntry("m", "s", 1, 1)
    full = PartitionEntry(
        "m", "a", 10, 2, "b" * 64, "schema", "profile", *partition_interval("2013-01-01"),
        (SourceObject("bucket", "day.csv", "etag", "c" * 64, "version"),), {"raw/x": {"p": "q"}}, {"rows_in": 3},
        {"rejected/x": side},
    )  # fmt: skip
    manifest = Manifest("t", ".csv", {"f": "h"}, {"p": [1]}, {"polars": "1"}, 3, {"2013-01-01": full, "all": side})

    found = read_back(manifest.to_files())

    assert found == manifest
    assert found.partitions["2013-01-01"] == full
    assert (found.md5s, found.cache_keys) == ({"2013-01-01": "a", "all": "s"}, {"2013-01-01": "m", "all": "m"})
    assert (found.rows, found.sizes) == (3, {"2013-01-01": 10, "all": 1})
    assert found.files == {"2013-01-01.csv": "a", "all.csv": "s"}
    assert read_back(Manifest("t").to_files()) == Manifest("t")


def test_a_chunk_has_one_line_per_partition_and_no_empty_fields() -> None:
    (chunk,) = manifest_of(["2013-01-02", "2013-01-01"]).to_files().chunks

    first, second = (
        f'"{day}":{{"cache_key":"key a","md5":"md5 {day} a","size":100,"rows":2,'
        f'"start":"{day}T00:00:00Z","end":"{following}T00:00:00Z"}}'
        for day, following in (("2013-01-01", "2013-01-02"), ("2013-01-02", "2013-01-03"))
    )
    assert chunk.content.decode().splitlines() == ["{", f"{first},", second, "}"]


def test_the_head_lists_the_chunks_by_month_with_their_hashes_and_totals() -> None:
    files = manifest_of(["2013-01-01", "2013-01-31", "2013-02-01", "all"]).to_files()

    head = json.loads(files.head)

    assert (head["format"], head["table"]) == (2, TABLE)
    totals = [(chunk["name"], chunk["partitions"], chunk["rows"], chunk["bytes"]) for chunk in head["chunks"]]
    assert totals == [("2013-01", 2, 4, 200), ("2013-02", 1, 2, 100), ("static", 1, 2, 100)]
    assert [len(chunk["sha256"]) for chunk in head["chunks"]] == [64, 64, 64]
    assert list(files.md5s) == [
        HEAD_FILE,
        *(f"{FOLDER}/{chunk['name']}.{chunk['md5']}.json" for chunk in head["chunks"]),
    ]


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("2013-03-10T05", "2013-03-10T05:00", "2013-03-10T06:00"),
        ("2012-02-29", "2012-02-29", "2012-03-01"),
        ("2013-12", "2013-12-01", "2014-01-01"),
        ("2013", "2013-01-01", "2014-01-01"),
    ],
)
def test_a_name_in_iso_8601_stands_for_its_interval(name: str, start: str, end: str) -> None:
    assert partition_interval(name) == tuple(
        datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in (start, end)
    )


@pytest.mark.parametrize("name", ["all", "2013-02-30", "0000-01-01", "9999-12-31", "2013-01-01b", "2013-1-1"])
def test_other_names_stand_for_no_interval(name: str) -> None:
    assert partition_interval(name) == (None, None)


def test_the_objects_of_a_table_are_its_partitions_and_the_chunks_of_its_manifest() -> None:
    stored = read_back(manifest_of(["2013-01-01", "all"]).to_files())
    references = [chunk.reference for chunk in stored.entries.chunks]

    assert stored.objects == {
        "md5 2013-01-01 a": 100, "md5 all a": 100, **{reference.md5: reference.size for reference in references}
    }  # fmt: skip
    fewer = stored.with_partitions(stored.entries.select(["all"]))
    assert {"md5 all a"} == fewer.objects.keys() - {reference.md5 for reference in references}


# Equal tables, equal files


@given(
    st.lists(st.tuples(st.sampled_from([*DAYS[:40], "all", "east"]), st.sampled_from("ab")), max_size=60), st.randoms()
)
def test_any_order_of_building_gives_the_same_files(changes: list[tuple[str, str]], order: random.Random) -> None:
    last = {name: entry(name, mark) for name, mark in changes}
    shuffled = list(last)
    order.shuffle(shuffled)

    manifest = Manifest(TABLE)
    for name, mark in changes:
        manifest = manifest.plus({name: entry(name, mark)})
        if order.random() < 0.3:
            manifest = read_back(manifest.to_files())
    extra = manifest.plus({"2013-02-28": entry("2013-02-28", "c")})
    files = extra.with_partitions(extra.entries.select(last)).to_files()

    fresh = Manifest(TABLE, partitions={name: last[name] for name in shuffled}).to_files()
    assert files.head == fresh.head
    assert [chunk.content for chunk in files.chunks] == [chunk.content for chunk in fresh.chunks]
    assert read_back(files).md5s == {name: last[name].md5 for name in sorted(last)}


@given(st.lists(st.tuples(st.sampled_from("+-|"), st.sets(st.sampled_from(DAYS[:40]))), max_size=8))
def test_entries_behave_as_a_dict_of_them(steps: list[tuple[str, set[str]]]) -> None:
    base = read_back(manifest_of(DAYS[10:30]).to_files()).entries
    entries, model = base, {name: entry(name) for name in DAYS[10:30]}
    for number, (step, names) in enumerate(steps):
        if step == "-":
            entries, model = entries.select(model.keys() - names), {k: v for k, v in model.items() if k not in names}
        elif step == "+":
            added = {name: entry(name, str(number)) for name in names}
            entries, model = entries | added, model | added
        else:
            entries, model = entries | base.select(names), model | {n: entry(n) for n in names if n in DAYS[10:30]}

    assert dict(entries) == model
    assert list(entries) == sorted(model)
    assert len(entries) == len(model)
    assert entries == LazyEntries.of(model)
    assert all((name in entries) == (name in model) for name in DAYS[:40])


# Cost


def test_one_new_day_writes_one_chunk_and_reads_no_other() -> None:
    before = manifest_of(DAYS).to_files()
    contents = {chunk.reference.name: chunk.content for chunk in before.chunks}
    stored = parse_manifest(before.head, lambda reference: contents[reference.name])
    _ = stored.md5s
    for chunk in stored.entries.chunks:
        chunk._load, chunk._content = unread, None  # noqa: SLF001
    march = stored.entries.chunks[-1]
    march._load = lambda reference: contents[reference.name]  # noqa: SLF001

    after = stored.plus({"2013-03-31": entry("2013-03-31", "b")}).to_files()

    assert [chunk.reference.name for chunk in after.chunks] == ["2013-01", "2013-02", "2013-03"]
    assert after.chunks[:2] == list(stored.entries.chunks[:2])
    assert after.chunks[2].reference.md5 != march.reference.md5
    assert len(after.md5s.keys() - before.md5s.keys()) == 1


@pytest.mark.parametrize(
    ("first", "last", "months"),
    [
        (date(2013, 2, 28), date(2013, 3, 1), ["2013-02", "2013-03", "static"]),
        (date(2013, 3, 31), None, ["2013-03", "static"]),
        (None, date(2013, 1, 1), ["2013-01", "static"]),
        (date(2014, 1, 1), date.max, ["static"]),
        (date.min, None, ["2013-01", "2013-02", "2013-03", "static"]),
    ],
)
def test_a_window_of_time_reads_the_chunks_of_its_months_and_the_static_one(
    first: date | None, last: date | None, months: list[str]
) -> None:
    stored = read_back(manifest_of([*DAYS, "all"]).to_files())
    before = read_back(manifest_of(DAYS[40:]).to_files()).plus({name: entry(name) for name in [*DAYS[:40], "all"]})
    for chunk in stored.entries.chunks:
        if chunk.reference.name not in months:
            chunk._load = unread  # noqa: SLF001

    window = stored.entries.starting_between(first, last)

    assert sorted({name[:7] if name != "all" else "static" for name in window}) == months
    assert dict(window) == dict(before.entries.starting_between(first, last))


def test_a_partition_is_found_in_its_own_chunk_and_no_other_is_read() -> None:
    stored = read_back(manifest_of([*DAYS, "all"]).to_files())
    for chunk in stored.entries.chunks:
        if chunk.reference.name not in {"2013-02", "static"}:
            chunk._load = unread  # noqa: SLF001

    changed = stored.plus({"2013-02-02": entry("2013-02-02", "b"), "2014-01-01": entry("2014-01-01")})

    assert stored.partitions["2013-02-28"] == entry("2013-02-28")
    assert "2013-02-29" not in stored.partitions
    assert "2014-01-01" not in stored.partitions
    assert "2014-01-01" in changed.partitions
    assert changed.partitions["2013-02-02"] == entry("2013-02-02", "b")


def test_the_first_partition_of_a_table_is_found_in_its_first_chunk() -> None:
    stored = read_back(manifest_of(DAYS).to_files())
    for chunk in stored.entries.chunks[1:]:
        chunk._load = unread  # noqa: SLF001

    assert stored.entries.first == "2013-01-01"
    assert LazyEntries().first is None
    assert LazyEntries.of({"b": entry("b"), "a": entry("a")}).first == "a"


def test_a_chunk_of_which_nothing_is_left_goes() -> None:
    stored = read_back(manifest_of(DAYS).to_files())

    after = stored.with_partitions(stored.entries.select([day for day in DAYS if day < "2013-02-01"])).to_files()

    assert [chunk.reference.name for chunk in after.chunks] == ["2013-01"]
    assert after.chunks[0] is stored.entries.chunks[0]


def test_a_large_manifest_does_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.storage.manifest.RETAINED_BYTES", 10)
    stored = read_back(manifest_of(DAYS).to_files())

    assert len(stored.md5s) == 90
    assert not any(chunk._content for chunk in stored.entries.chunks)  # noqa: SLF001


# Names


ODD_NAMES = [
    "",
    "a/b",
    "a\\b",
    "..",
    "a..b",
    ".hidden",
    "_manifest",
    "two\nlines",
    "tab\t",
    "x\x85y",
    "n" * 201,
    "é" * 101,
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_invalid_partition_name_is_refused_when_it_is_written(name: str) -> None:
    with pytest.raises(PartitionNameError, match=r"validated/tiny/sales: .* is not a valid partition name"):
        manifest_of(["2013-01-01", name]).to_files()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_invalid_partition_name_is_refused_when_it_is_read(name: str) -> None:
    line = Raw(encode_entry(entry("all")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.storage.manifest_entries.check_partition_names", lambda *_: None)
        chunk = Chunk.build("static", {name: line, "2013-01-01": line}, TABLE)
    stored = Chunk(chunk.reference, lambda _reference: chunk.content, TABLE)

    with pytest.raises(PartitionNameError):
        stored.column("md5")
    with pytest.raises(PartitionNameError):
        _ = stored.lines


@pytest.mark.parametrize("name", ["all", "2013-01-01", "Zürich", "a b", "a.b", "a_b", "x=1", "n" * 200, "北京"])
def test_other_names_are_kept(name: str) -> None:
    assert list(read_back(manifest_of([name]).to_files()).partitions) == [name]


# Format 1 and damage


def test_a_manifest_of_format_1_is_read() -> None:
    old = b"""{"code": {"f": "h"}, "libraries": {"polars": "1"}, "params": {"p": [1]}, "result_version": 3,
 "suffix": ".csv", "table": "raw/t/s",
 "partitions": {
"2013-01-01":{"facts": {"rows_in": 3, "object": {"bucket": "b", "key": "k", "etag": "e", "sha256": "s"}},
 "inputs": {"raw/x": {"p": "q"}}, "md5": "a", "memo": "m", "rows": 2, "size": 10,
 "beside": {"rejected/t/s": {"memo": "m", "md5": "r", "size": 1, "rows": 1}}}
}}
"""

    manifest = parse_manifest(old, unread)

    start, end = partition_interval("2013-01-01")
    side = PartitionEntry("m", "r", 1, 1, start=start, end=end)
    assert manifest == Manifest(
        "raw/t/s", ".csv", {"f": "h"}, {"p": [1]}, {"polars": "1"}, 3,
        {
            "2013-01-01": PartitionEntry(
                "m", "a", 10, 2, "s", start=start, end=end, objects=(SourceObject("b", "k", "e", "s"),),
                inputs={"raw/x": {"p": "q"}}, metadata={"rows_in": 3}, companions={"rejected/t/s": side},
            )
        },
    )  # fmt: skip
    assert [chunk.reference.name for chunk in manifest.to_files().chunks] == ["2013-01"]


def test_a_line_of_an_older_journal_is_read() -> None:
    assert decode_entry(b'{"memo":"m","md5":"a","size":1}') == PartitionEntry("m", "a", 1)


def test_a_manifest_of_a_later_format_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        ManifestFormatError, match=r"x/head\.json: expected .* format 2 or earlier, found format 3.*upgrade"
    ):
        parse_manifest(b'{"format":3}', unread, "x/head.json")


def test_fields_that_a_later_version_added_are_carried_over() -> None:
    line = Raw(b'{"cache_key":"k","md5":"m","size":1,"start":"2013-01-01T00:00:00Z","new":1}')
    stored = read_back(Manifest(TABLE, partitions=LazyEntries(added={"2013-01-01": line})).to_files())

    after = read_back(stored.plus({"2013-01-02": entry("2013-01-02")}).to_files())

    assert msgspec.json.decode(after.entries.lines["2013-01-01"])["new"] == 1


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """A table of three months whose files are there."""
    table_store = TableStore(tmp_path, Cache(tmp_path / "cache", tmp_path))
    names = ["2013-01-01", "2013-02-01", "2013-03-01"]
    table_store.checkout(Manifest(TABLE, partitions={name: stored_day(table_store, name) for name in names}))
    return table_store


def stored_day(table_store: TableStore, name: str) -> PartitionEntry:
    return store_partition(table_store.cache, pl.DataFrame({"day": [name], "amount": [1]}), name, "key")


def test_a_folder_has_the_files_of_its_manifest_and_the_schemas_of_its_partitions(table_store: TableStore) -> None:
    manifest = table_store.manifest(TABLE)

    files = [path.relative_to(table_store.folder(TABLE)).as_posix() for path in table_store.folder(TABLE).rglob("*.*")]
    assert sorted(files) == sorted([*manifest.files, *manifest.to_files().md5s])
    (schema,) = manifest.schemas.values()
    assert [(field.name, field.type) for field in schema] == [("day", "string"), ("amount", "int64")]
    assert {each.schema for each in manifest.partitions.values()} == set(manifest.schemas)


def test_an_unchanged_chunk_is_the_same_file_after_a_new_day(table_store: TableStore) -> None:
    folder = table_store.folder(TABLE) / FOLDER
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}

    table_store.checkout(table_store.manifest(TABLE).plus({"2013-03-02": stored_day(table_store, "2013-03-02")}))

    after = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert len(before.items() & after.items()) == 2
    assert len(after) == 4


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'{"format":2}', b"\xff\x00"])
def test_a_head_that_is_damaged_is_named_with_the_next_command(table_store: TableStore, content: bytes) -> None:
    head = table_store.folder(TABLE) / HEAD_FILE
    head.write_bytes(content)

    with pytest.raises(DamagedManifestError, match=rf"{head} is damaged: .*`headrace doctor --repair`"):
        table_store.manifest(TABLE)


def test_a_chunk_that_is_damaged_is_named_with_the_next_command(table_store: TableStore) -> None:
    chunk = next((table_store.folder(TABLE) / FOLDER).glob("2013-02.*"))
    chunk.write_bytes(chunk.read_bytes()[:-20])

    with pytest.raises(DamagedManifestError, match=r"2013-02\..*\.json is damaged: expected [\d,]+ bytes with sha256"):
        _ = table_store.manifest(TABLE).md5s


def test_a_reader_of_an_old_head_finds_the_chunks_that_it_names(table_store: TableStore) -> None:
    old = table_store.manifest(TABLE)
    table_store.checkout(old.plus({"2013-03-02": stored_day(table_store, "2013-03-02")}))
    for chunk in old.entries.chunks:
        chunk._content, chunk._columns = None, {}  # noqa: SLF001

    assert list(old.with_partitions(LazyEntries(old.entries.chunks)).md5s) == ["2013-01-01", "2013-02-01", "2013-03-01"]


def test_a_manifest_of_format_1_is_replaced_by_the_next_commit(table_store: TableStore) -> None:
    folder = table_store.folder(TABLE)
    for path in (folder / FOLDER).iterdir():
        path.unlink()
    line = '{"rows":1,"size":%d,"md5":"%s","memo":"key"}'
    day = stored_day(table_store, "2013-01-01")
    (folder / FORMAT_1_FILE).write_text(
        f'{{"table":"{TABLE}","suffix":".parquet","code":{{}},"params":{{}},"libraries":{{}},"result_version":1,'
        f'"partitions":{{\n"2013-01-01": {line % (day.size, day.md5)}\n}}}}\n'
    )

    manifest = table_store.manifest(TABLE)
    table_store.checkout(manifest)

    assert manifest.cache_keys == {"2013-01-01": "key"}
    assert table_store.manifest(TABLE) == manifest
    assert not (folder / FORMAT_1_FILE).exists()
