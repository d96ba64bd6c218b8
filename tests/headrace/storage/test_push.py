"""Onto the DVC remote: many objects at once, none that is there as it must be, lists last; what broke off goes on."""

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from servers import S3, Relay

from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.objects import directory_bytes
from headrace.storage.dvc.push import PushResult, push_objects
from headrace.storage.dvc.remote import Remote
from headrace.storage.s3.errors import StorageUnreachableError
from headrace.storage.s3.objects import Object

COUNT, SIZE = 8, 1000


class Table:
    """A recorded folder of files in a cache, and a remote behind a relay."""

    def __init__(self, server: S3, relay: Relay, folder: Path) -> None:
        self.relay = relay
        bucket = replace(server.new_bucket(), endpoint=f"http://127.0.0.1:{relay.port}", patience=0.2)
        self.remote = Remote(bucket, "dvc")
        self.cache = Cache(folder, folder, lent=self.remote)
        contents = [bytes([number]) * SIZE for number in range(COUNT)]
        self.files = [self.cache.add_bytes(content).md5 for content in contents]
        listed = directory_bytes({f"{number}": md5 for number, md5 in enumerate(self.files)})
        self.list = self.cache.add_bytes(listed, suffix=".dir").md5

    def push(self) -> PushResult:
        """Run what is tested."""
        return push_objects(self.cache, [{"md5": self.list}], [], {})

    @property
    def puts(self) -> list[str]:
        """Objects that were sent, in their order."""
        paths = re.findall(rb"PUT /(\S+) HTTP", self.relay.received)
        return ["".join(path.decode().rsplit("/", 2)[1:]) for path in paths]

    def has_intact_object(self, md5: str) -> bool:
        """Whether the remote has these very bytes."""
        found = self.remote.bucket.head(self.remote.key(md5))
        return found is not None and self.remote.bucket.read(found) == self.cache.path(md5).read_bytes()


@pytest.fixture
def table(s3: S3, relay: Callable[[int], Relay], tmp_path: Path) -> Table:
    return Table(s3, relay(s3.port), tmp_path)


def test_every_object_is_sent_once_and_the_list_after_what_it_names(table: Table) -> None:
    pushed = table.push()

    assert pushed.objects == COUNT + 1
    assert sorted(table.puts) == sorted([*table.files, table.list])
    assert table.puts[-1] == table.list
    assert all(map(table.has_intact_object, (*table.files, table.list)))


def test_objects_are_sent_at_the_same_time(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    all_here, write = threading.Barrier(COUNT, timeout=30), Remote.write

    def together(remote: Remote, md5: str, path: Path) -> Object:
        if md5 in table.files:
            all_here.wait()  # raises when some come only after others are done
        return write(remote, md5, path)

    monkeypatch.setattr(Remote, "write", together)

    assert table.push().objects == COUNT + 1


def test_what_is_there_is_not_sent_again(table: Table) -> None:
    table.push()
    sent = len(table.puts)

    again = table.push()

    assert (again.objects, len(table.puts)) == (0, sent)


@pytest.mark.parametrize("there", [b"short", b"x" * SIZE], ids=["another size", "other bytes of the same size"])
def test_an_object_that_is_there_and_not_as_it_must_be_is_sent_again(table: Table, there: bytes) -> None:
    table.push()
    table.remote.bucket.write(table.remote.key(table.files[3]), there)

    again = table.push()

    assert (again.objects, again.size) == (1, SIZE)
    assert table.has_intact_object(table.files[3])


def test_a_push_that_broke_off_goes_on_with_what_is_missing(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    write, lost = Remote.write, table.files[5:]

    def fail(remote: Remote, md5: str, path: Path) -> Any:  # noqa: ANN401
        if md5 in lost:
            raise StorageUnreachableError("the line is dead")
        return write(remote, md5, path)

    with monkeypatch.context() as dead:
        dead.setattr(Remote, "write", fail)
        with pytest.raises(StorageUnreachableError, match="dead"):
            table.push()
    before = set(table.puts)
    assert table.list not in before, "no list names what is not there"

    pushed = table.push()

    assert pushed.objects == COUNT + 1 - len(before)
    assert len(table.puts) == COUNT + 1
    assert all(map(table.has_intact_object, (*table.files, table.list)))
