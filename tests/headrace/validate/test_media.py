"""Media are rows that identify their bytes: the bytes stay in the raw table, once, and a task shows them from there."""

import base64
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from many_objects import ManyObjects
from minimal_dataset import RAW, VALIDATED, run_all_stages

from headrace.dataset import Dataset, ObjectSource, Source
from headrace.errors import HeadraceError
from headrace.label.shown_media import MAX_SHOWN_BYTES, embed_media, show_media
from headrace.validate.columns import one_of
from headrace.validate.media import MEDIA_SCHEMA, media_type_of, read_media
from headrace.validate.read_request import ReadRequest
from headrace.validate.unreadable import UnreadableError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
PICTURES = ObjectSource("sales/", r"sales/(?P<partition>\d{4}-\d\d-\d\d)/.+", "", "file:bucket", media=True)


class Pictures(dy.Schema):
    key = dy.String()
    sha256 = dy.String(regex=r"^[0-9a-f]{64}$")
    size = dy.Int64(max=4 << 20)
    media_type = dy.String(check=one_of("image/png", "image/jpeg"))


SOURCE = Source("sales", PICTURES, read_media, Pictures, lambda rows: rows, ("key",), max_rejected_share=0.5)


def put(many: ManyObjects, name: str, content: bytes) -> None:
    path = many.root / "bucket/sales" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def many(tmp_path: Path) -> ManyObjects:
    return ManyObjects(tmp_path, SOURCE)


def rows(many: ManyObjects) -> list[tuple[Any, ...]]:
    """The rows of the validated table after one more run."""
    many.ingest()
    run_all_stages(many.table_store, replace(many.dataset, features=()))
    return many.table_store.scan(VALIDATED).sort("key").collect().rows()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_each_object_is_a_row_also_where_it_is_alone_in_its_partition(many: ManyObjects) -> None:
    put(many, "2013-01-09/a.png", PNG)
    put(many, "2013-01-10/b.jpg", JPEG)
    put(many, "2013-01-10/c.png", PNG)

    assert rows(many) == [
        ("sales/2013-01-09/a.png", sha256(PNG), 28, "image/png"),
        ("sales/2013-01-10/b.jpg", sha256(JPEG), 24, "image/jpeg"),
        ("sales/2013-01-10/c.png", sha256(PNG), 28, "image/png"),
    ]
    assert len({entry.md5 for entry in many.manifest.partitions.values()}) == 2


def test_equal_bytes_under_another_key_are_another_row(many: ManyObjects) -> None:
    put(many, "2013-01-09/a.png", PNG)
    rows(many)

    (many.root / "bucket/sales/2013-01-09/a.png").rename(many.root / "bucket/sales/2013-01-09/b.png")

    assert [key for key, *_ in rows(many)] == ["sales/2013-01-09/b.png"]


def test_an_object_of_another_type_is_a_rejected_row_with_its_key(many: ManyObjects) -> None:
    put(many, "2013-01-09/a.png", PNG)
    put(many, "2013-01-09/b.png", b"<html>not found</html>")

    assert [key for key, *_ in rows(many)] == ["sales/2013-01-09/a.png"]
    rejected = many.table_store.scan("rejected/tiny/sales").collect()
    assert rejected.select("key", "media_type", "_failed_checks").rows() == [
        ("sales/2013-01-09/b.png", "application/octet-stream", ["media_type|check__one_of"])
    ]


@pytest.mark.parametrize(
    ("start", "media_type"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\1\2\3\4WEBPVP8 ", "image/webp"),
        (b"RIFF\1\n\3\4WAVEfmt ", "audio/wav"),
        (b"BM\1\2\3\4\0\0\0\0", "image/bmp"),
        (b"BMW is a car", "application/octet-stream"),
        (b"II*\0", "image/tiff"),
        (b"\0\0\0\x1cftypavif", "image/avif"),
        (b"\0\0\0\x1cftypisom", "video/mp4"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86webm", "video/webm"),
        (b"OggS", "application/ogg"),
        (b"fLaC", "audio/flac"),
        (b"ID3\3", "audio/mpeg"),
        (b"%PDF-1.7", "application/pdf"),
        (b"<svg onload=alert(1)>", "application/octet-stream"),
    ],
)
def test_the_media_type_is_what_the_bytes_begin_with(start: bytes, media_type: str) -> None:
    assert media_type_of(start) == media_type


def test_an_object_that_is_empty_or_too_large_or_has_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(UnreadableError, match="it is empty"):
        read_media(path)
    path.write_bytes(PNG)
    with pytest.raises(UnreadableError, match="it has 28 bytes, more than the 27 allowed"):
        read_media(path, max_bytes=27)
    with pytest.raises(HeadraceError, match=r"Declare `ObjectSource\(…, media=True\)`"):
        read_media(path, request=ReadRequest(MEDIA_SCHEMA))


def row_of(content: bytes) -> dict[str, str]:
    return {"sha256": sha256(content), "media_type": "image/png"}


def embed(many: ManyObjects, content: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """A task that shows these bytes, as it is sent, and why it is not."""
    rejected: dict[str, str] = {}
    task = {"picture": show_media(row_of(content)), "note": "a digit"}
    return embed_media(many.dataset, many.table_store, {"one": task}, rejected), rejected


def test_a_task_holds_the_bytes_of_the_raw_table(many: ManyObjects) -> None:
    put(many, "2013-01-09/a.png", PNG)
    many.ingest()

    tasks, rejected = embed(many, PNG)

    assert tasks["one"]["note"] == "a digit"
    kind, _, content = tasks["one"]["picture"].partition(",")
    assert (kind, base64.b64decode(content), rejected) == ("data:image/png;base64", PNG, {})


def test_a_task_with_media_that_are_too_large_or_nowhere_is_rejected_by_name(many: ManyObjects) -> None:
    large = PNG + bytes(MAX_SHOWN_BYTES)
    put(many, "2013-01-09/large.png", large)
    many.ingest()

    for content, reason in ((large, "1,048,604 bytes, more than the 1,048,576"), (PNG, "no raw table of media holds")):
        tasks, rejected = embed(many, content)
        assert tasks == {}
        assert reason in rejected["one"]


def test_tasks_without_media_look_into_no_table(tmp_path: Path) -> None:
    dataset = Dataset(name="tiny", description="", owner="", sources=(SOURCE,))

    assert embed_media(dataset, ManyObjects(tmp_path).table_store, {"one": {"text": "a"}}, {}) == {"one": {"text": "a"}}


def test_a_source_that_is_not_of_media_names_what_to_declare(many: ManyObjects) -> None:
    many.source = replace(SOURCE, location=replace(PICTURES, media=False))
    put(many, "2013-01-09/a.png", PNG)
    many.ingest()

    assert list(many.table_store.manifest(RAW).partitions) == ["2013-01-09"]
    with pytest.raises(HeadraceError, match="media=True"):
        run_all_stages(many.table_store, replace(many.dataset, features=()))


def test_the_schema_is_what_the_reader_gives(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)

    assert read_media(path).schema == pl.Schema(MEDIA_SCHEMA)
