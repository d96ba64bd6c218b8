"""Object storage over a bad line: what broke off goes on, what is slow is waited for, what is lost is named as that."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from servers import S3, Relay

from headrace.storage.dvc.remote import Remote
from headrace.storage.s3 import obstore_client
from headrace.storage.s3.errors import ObjectChangedError, ObjectUnreadableError, StorageUnreachableError
from headrace.storage.s3.objects import Object

MEGABYTE = 1024 * 1024
CONTENT = os.urandom(6 * MEGABYTE)


class Line:
    """A bucket, and the same bucket at the other end of a bad line."""

    def __init__(self, server: S3, relay: Relay) -> None:
        self.bucket, self.relay = server.new_bucket(), relay
        self.far = replace(self.bucket, endpoint=f"http://127.0.0.1:{relay.port}", patience=0.2)

    def put(self, key: str, content: bytes = CONTENT) -> Object:
        """Write an object where the line is good, and see it listed."""
        self.bucket.write(key, content)
        (found,) = self.bucket.list(key)
        return found


@pytest.fixture(params=["s3", "moto_s3"])
def any_line(request: pytest.FixtureRequest, relay: Callable[[int], Relay]) -> Line:
    server: S3 = request.getfixturevalue(request.param)
    return Line(server, relay(server.port))


@pytest.fixture
def line(s3: S3, relay: Callable[[int], Relay]) -> Line:
    return Line(s3, relay(s3.port))


def test_a_read_that_broke_off_goes_on_from_where_it_was(any_line: Line, tmp_path: Path) -> None:
    found = any_line.put("large")
    any_line.relay.cut(after=5 * MEGABYTE)

    got = any_line.far.download(found, tmp_path / "got")

    assert any_line.relay.count(b"Range: bytes=") == 1
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert (got.object.size, got.md5) == (len(CONTENT), hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())


def test_an_object_with_an_odd_name_is_read_on_too(moto_s3: S3, relay: Callable[[int], Relay]) -> None:
    line = Line(moto_s3, relay(moto_s3.port))
    found = line.put("odd//name")
    line.relay.cut(after=5 * MEGABYTE)

    assert line.far.read(found) == CONTENT
    assert line.relay.count(b"Range: bytes=") == 1


def test_patience_begins_anew_while_bytes_arrive(line: Line) -> None:
    found = line.put("large")
    line.relay.cut(after=3 * MEGABYTE // 2, times=5)

    assert line.far.read(found) == CONTENT


def test_an_object_that_is_replaced_while_a_read_goes_on_is_never_mixed_with_the_old_one(
    any_line: Line,
) -> None:
    found = any_line.put("large")
    any_line.relay.cut(after=5 * MEGABYTE)
    any_line.relay.at_cut = lambda: any_line.bucket.write("large", CONTENT[::-1])

    with pytest.raises(ObjectChangedError, match="replaced"):
        any_line.far.read(found)


def test_bytes_that_the_server_lists_and_never_gives_are_told_from_a_server_that_is_away(line: Line) -> None:
    found = line.put("lost")
    line.relay.cut(after=1000, times=1000)

    with pytest.raises(ObjectUnreadableError, match=r"0 of 6,291,456 bytes read, then: .*(IncompleteBody|reset)"):
        line.far.read(found)

    line.relay.close()
    with pytest.raises(StorageUnreachableError, match="Check AWS_ENDPOINT_URL") as raised:
        line.far.read(found)
    assert not isinstance(raised.value, ObjectUnreadableError)


def test_an_object_whose_bytes_are_lost_is_written_again(s3: S3, tmp_path: Path) -> None:
    path, bucket = tmp_path / "object", replace(s3.new_bucket(), patience=0.2)
    path.write_bytes(CONTENT)
    md5, remote = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(), Remote(bucket, "dvc")
    remote.ensure(md5, len(CONTENT), path)
    (s3.folder / bucket.name / remote.key(md5)).unlink()
    assert bucket.head(remote.key(md5)), "the server still lists it"

    assert remote.ensure(md5, len(CONTENT), path) == len(CONTENT)

    remote.download(md5, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == CONTENT


def test_a_large_body_may_take_longer_than_an_answer(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstore_client, "READ_SECONDS", 0.5)
    line.relay.pause = 0.02

    line.far.write("slow", CONTENT)

    assert line.relay.count(b"PUT /") == 1
    assert line.bucket.head("slow")
