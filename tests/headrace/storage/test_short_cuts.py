"""Where a manifest, a list of files or a listing is read in part, the answer is that of reading all of it."""

import json
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from botocore.parsers import ResponseParserFactory
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from headrace.release.changes import PartitionDiff
from headrace.storage.dvc.cache import Cache, find_in_directory, new_in_directory, read_directory
from headrace.storage.dvc.lock import pointer_file, recorded_outs
from headrace.storage.dvc.objects import directory_bytes
from headrace.storage.manifest import Manifest, parse_manifest
from headrace.storage.manifest_entries import ChunkReference, LazyEntries
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.s3.boto3_client import create_model_loader, parse_contents

NAMES = st.text(st.characters(min_codepoint=32, exclude_characters="/", codec="utf-8"), min_size=1)
FOLDERS = st.dictionaries(
    st.one_of(NAMES, st.sampled_from(['a}, {"md5": "b', '", "relpath": "head.json"}', "head.json"])),
    st.sampled_from(["a" * 32, "b" * 32, "c" * 32]),
    min_size=1,
)
DAYS = ["2013-01-01", "2013-01-02", "2013-02-01", "2013-03-01", "all"]
TABLES = st.dictionaries(st.sampled_from(DAYS), st.sampled_from("ab"))
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult{namespace}><Name>b</Name><KeyCount>2</KeyCount><NextContinuationToken>t</NextContinuationToken>
<Contents><Key>{key}</Key><LastModified>2013-01-01T00:00:00.000Z</LastModified><ETag>"e"</ETag><Size>3</Size>
<StorageClass>STANDARD</StorageClass></Contents><Contents><Key>k</Key><Size>0</Size></Contents></ListBucketResult>"""


def table(marks: dict[str, str]) -> Manifest:
    """A table as it is read from its files."""
    entries = {day: PartitionEntry(f"key {mark}", f"{day} {mark}", 10, 2) for day, mark in marks.items()}
    files = Manifest("t", partitions=entries).to_files()
    chunks = {chunk.reference.md5: chunk.content for chunk in files.chunks}
    return parse_manifest(files.head, lambda reference: chunks[reference.md5])


@given(files=FOLDERS, earlier=FOLDERS, is_canonical=st.booleans())
def test_a_file_is_found_in_a_list_and_new_ones_are_told_from_those_of_an_earlier_list(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], earlier: dict[str, str], *, is_canonical: bool
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache = Cache(folder, folder)
    items = [{"relpath": path, "md5": md5} for path, md5 in files.items()]
    content = directory_bytes(files) if is_canonical else json.dumps(items).encode()
    own, before = (cache.add_bytes(text, suffix=".dir").md5 for text in (content, directory_bytes(earlier)))

    assert find_in_directory(cache, own, "head.json") == read_directory(cache, own).get("head.json")
    new = {md5 for path, md5 in files.items() if earlier.get(path) != md5}
    assert new_in_directory(cache, own, [before]) == new
    assert new_in_directory(cache, own, []) == set(files.values())


@given(before=TABLES, after=TABLES, added=TABLES)
def test_tables_differ_in_the_chunks_that_they_do_not_share(
    before: dict[str, str], after: dict[str, str], added: dict[str, str]
) -> None:
    one = table(before)
    other = table(after).plus({day: PartitionEntry("new", f"{day} {mark}", 10, 1) for day, mark in added.items()})

    has = {day: f"{day} {mark}" for day, mark in {**after, **added}.items()}
    had = {day: f"{day} {mark}" for day, mark in before.items()}
    difference = PartitionDiff.between(one, other)
    assert difference.added == sorted(has.keys() - had.keys())
    assert difference.changed == sorted(day for day in has.keys() & had.keys() if has[day] != had[day])
    assert difference.removed == sorted(had.keys() - has.keys())
    assert other.rows == sum(entry.rows or 0 for entry in other.partitions.values())
    assert other.entries.pick("md5", [*DAYS, "none"]) == has


def test_one_field_of_a_partition_is_read_from_its_own_chunk() -> None:
    read = []
    files = Manifest("t", partitions=table({"2013-01-01": "a", "2013-02-01": "a"}).partitions).to_files()
    chunks = {chunk.reference.md5: chunk.content for chunk in files.chunks}

    def load(reference: ChunkReference) -> bytes:
        read.append(reference)
        return chunks[reference.md5]

    entries = parse_manifest(files.head, load).entries

    assert entries.pick("size", ["2013-02-01", "2013-02-02"]) == {"2013-02-01": 10}
    assert len(read) == 1
    assert entries.rows == 4
    assert LazyEntries().rows == 0
    assert len(read) == 1


@pytest.mark.parametrize("namespace", ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'])
@pytest.mark.parametrize("key", ["a//b", "folder/", "a&<b>", "a%20b", " "])
def test_a_page_of_a_listing_is_parsed_as_botocore_parses_it(namespace: str, key: str) -> None:
    shape = Session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
    parser = ResponseParserFactory().create_parser("rest-xml")
    body = PAGE.format(namespace=namespace, key=escape(key)).encode()
    answer = {"status_code": 200, "headers": {}, "body": body}
    expected = parser.parse(answer, shape)
    for item in expected["Contents"]:
        item.pop("StorageClass", None)

    contents: dict[str, object] = {}
    parse_contents(answer, contents)
    rest = parser.parse(answer, shape)

    assert "Contents" not in rest
    assert {**rest, **contents} == expected


@pytest.mark.parametrize("body", [b"", b"<broken", b"<Error><Code>NoSuchBucket</Code></Error>", b"<ListBucketResult/>"])
def test_an_answer_without_objects_is_left_to_botocore(body: bytes) -> None:
    answer, contents = {"body": body}, dict[str, object]()

    parse_contents(answer, contents)

    assert (answer["body"], contents) == (body, {})


def test_the_services_that_credentials_may_need_can_be_described(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODELS", str(tmp_path))
    loader = create_model_loader("$MODELS")

    for service in ("s3", "sts", "sso", "sso-oidc"):
        assert loader.load_service_model(service, "service-2") == Session().get_service_data(service)
    assert str(tmp_path) in loader.search_paths


def test_an_output_is_recorded_under_its_whole_path_by_which_a_push_finds_the_earlier_list(tmp_path: Path) -> None:
    out = {"path": "data/raw/flights/days", "hash": "md5", "md5": "a" * 32 + ".dir", "size": 1, "nfiles": 1}
    (tmp_path / "data/raw/flights").mkdir(parents=True)

    path, content = pointer_file(out)
    (tmp_path / path).write_bytes(content)

    assert recorded_outs(tmp_path) == {out["path"]: out}
