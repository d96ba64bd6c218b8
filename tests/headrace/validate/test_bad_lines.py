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


class RelayedBucket:
    """A bucket, and the same bucket behind a relay that simulates a bad connection."""

    def __init__(self, server: S3, relay: Relay) -> None:
        self.bucket, self.relay = server.new_bucket(), relay
        self.bucket_behind_relay = replace(self.bucket, endpoint=f"http://127.0.0.1:{relay.port}", patience=0.2)

    def put(self, key: str, content: bytes = CONTENT) -> Object:
        """Write an object without the relay; its listing."""
        self.bucket.write(key, content)
        (found,) = self.bucket.list(key)
        return found


@pytest.fixture(params=["s3", "moto_s3"])
def any_relayed(request: pytest.FixtureRequest, relay: Callable[[int], Relay]) -> RelayedBucket:
    server: S3 = request.getfixturevalue(request.param)
    return RelayedBucket(server, relay(server.port))


@pytest.fixture
def relayed(s3: S3, relay: Callable[[int], Relay]) -> RelayedBucket:
    return RelayedBucket(s3, relay(s3.port))


def test_a_read_that_broke_off_goes_on_from_where_it_was(any_relayed: RelayedBucket, tmp_path: Path) -> None:
    found = any_relayed.put("large")
    any_relayed.relay.cut_connections(after=5 * MEGABYTE)

    got = any_relayed.bucket_behind_relay.download(found, tmp_path / "got")

    assert any_relayed.relay.count(b"Range: bytes=") == 1
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert (got.object.size, got.md5) == (len(CONTENT), hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())


def test_an_object_with_an_odd_name_is_read_on_too(moto_s3: S3, relay: Callable[[int], Relay]) -> None:
    relayed = RelayedBucket(moto_s3, relay(moto_s3.port))
    found = relayed.put("odd//name")
    relayed.relay.cut_connections(after=5 * MEGABYTE)

    assert relayed.bucket_behind_relay.read(found) == CONTENT
    assert relayed.relay.count(b"Range: bytes=") == 1


def test_patience_begins_anew_while_bytes_arrive(relayed: RelayedBucket) -> None:
    found = relayed.put("large")
    relayed.relay.cut_connections(after=3 * MEGABYTE // 2, times=5)

    assert relayed.bucket_behind_relay.read(found) == CONTENT


def test_an_object_that_is_replaced_while_a_read_goes_on_is_never_mixed_with_the_old_one(
    any_relayed: RelayedBucket,
) -> None:
    found = any_relayed.put("large")
    any_relayed.relay.cut_connections(after=5 * MEGABYTE)
    any_relayed.relay.on_cut = lambda: any_relayed.bucket.write("large", CONTENT[::-1])

    with pytest.raises(ObjectChangedError, match="replaced"):
        any_relayed.bucket_behind_relay.read(found)


def test_bytes_that_the_server_lists_and_never_gives_are_told_from_a_server_that_is_away(
    relayed: RelayedBucket,
) -> None:
    found = relayed.put("lost")
    relayed.relay.cut_connections(after=1000, times=1000)

    with pytest.raises(ObjectUnreadableError, match=r"0 of 6,291,456 bytes read, then: .*(IncompleteBody|reset)"):
        relayed.bucket_behind_relay.read(found)

    relayed.relay.close()
    with pytest.raises(StorageUnreachableError, match="Check AWS_ENDPOINT_URL") as raised:
        relayed.bucket_behind_relay.read(found)
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


def test_a_large_body_may_take_longer_than_an_answer(relayed: RelayedBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstore_client, "READ_SECONDS", 0.5)
    relayed.relay.body_delay_s = 0.02

    relayed.bucket_behind_relay.write("slow", CONTENT)

    assert relayed.relay.count(b"PUT /") == 1
    assert relayed.bucket.head("slow")
