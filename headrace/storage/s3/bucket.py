"""Object storage over the S3 API: list, look, read exactly what was listed, write, delete.

A read gives the bytes of the object that was asked for, whole, or raises; a stand-in that ignores `If-Match` is caught
by the ETag and the length of its answer. An ETag is an opaque mark of one version of an object, never its md5.
Every request has timeouts, and what may pass is tried again until `patience` is over. A read that broke off goes on
from where it was, and is given up when the whole of `patience` brought not a byte.
"""

import hashlib
import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from headrace.storage.s3.boto3_client import Control
from headrace.storage.s3.errors import (
    BrokeOffError,
    CutShortError,
    NoKeysError,
    ObjectChangedError,
    ObjectUnreadableError,
    S3RequestError,
    UnreachedError,
    known,
    may_pass,
)
from headrace.storage.s3.objects import Answer, Object, Place, is_plain
from headrace.storage.s3.obstore_client import Transfer

T = TypeVar("T")


@dataclass(frozen=True)
class Download:
    """What a download brought: the object as the answer described it, and the md5 and sha256 of its bytes."""

    object: Object
    md5: str
    sha256: str


@dataclass
class DownloadProgress:
    """How much of an object has arrived, and who was given it."""

    into: Iterable[Callable[[Any], object]]
    size: int = 0

    def take(self, chunk: Any) -> None:  # noqa: ANN401  whatever holds bytes
        """Give the next chunk to everybody."""
        for take in self.into:
            take(chunk)
        self.size += len(chunk)


@dataclass(frozen=True)
class Bucket:
    """One bucket; safe to use from many threads.

    Attributes:
        name: Its name.
        endpoint: Address of the S3 API; without one, that of AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else AWS.
        access_key: Without one, AWS's usual chain of credentials.
        secret_key: As `access_key`.
        region: Without one, that of AWS_REGION or AWS_DEFAULT_REGION, else us-east-1.
        patience: Seconds in all that a request is tried again for.
    """

    name: str
    endpoint: str | None = field(default=None, kw_only=True)
    access_key: str | None = field(default=None, kw_only=True, repr=False)
    secret_key: str | None = field(default=None, kw_only=True, repr=False)
    region: str | None = field(default=None, kw_only=True)
    patience: float = field(default=30.0, kw_only=True)

    def list(self, prefix: str) -> Iterator[Object]:
        """Every object below `prefix`, whatever its key, in the order of keys, a page at a time."""
        after: str | None = None
        while True:
            page, after = self._patiently(
                f"list s3://{self.name}/{prefix}",
                lambda after=after: self._control.page(prefix, after),  # type: ignore[misc]
            )
            yield from page
            if after is None:
                return

    def list_ours(self, folder: str, most: int | None = None) -> Iterator[Object]:
        """At most so many objects below a folder in which we alone write, with plain keys; in no certain order."""
        found = self._patiently(f"list s3://{self.name}/{folder}", lambda: [*islice(self._transfer.list(folder), most)])
        return iter(found)

    def head(self, key: str) -> Object | None:
        """The object as it is now; None if there is none."""
        try:
            return self._patiently(f"look at {self._at(key)}", lambda: self._client(key).head(key))
        except ObjectChangedError:
            return None

    def read(self, found: Object) -> bytes:
        """Bytes of the object that was listed.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """
        into = io.BytesIO()
        self._receive(found, into.write)
        return into.getvalue()

    # no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
    def download(self, found: Object, path: Path) -> Download:
        """Write the bytes of the object that was listed to `path`, a chunk at a time.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        with path.open("wb") as into:
            seen = self._receive(found, into.write, md5.update, sha256.update)
        return Download(seen, md5.hexdigest(), sha256.hexdigest())

    def md5(self, found: Object) -> str:
        """The md5 of the bytes of the object that was listed; they are kept nowhere.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """
        digest = hashlib.md5(usedforsecurity=False)
        self._receive(found, digest.update)
        return digest.hexdigest()

    # no failpoint: does what its caller asks for, which is in a failpoint
    def write(self, key: str, content: Path | bytes) -> Object:
        """Write an object, whole or not at all, and say how the bucket lists it."""
        return self._patiently(f"write {self._at(key)}", lambda: self._client(key).put(key, content))

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is as good as deleted."""
        try:
            self._patiently(f"delete {self._at(key)}", lambda: self._client(key).delete(key))
        except ObjectChangedError:
            return

    def ask(self, doing: str, request: str, **what: Any) -> Any:  # noqa: ANN401  boto3 makes its answers at run time
        """The answer to any other request that may be sent twice, by boto3's name for it.

        Raises:
            StorageError: The server cannot be reached, or refuses.
        """
        return self._patiently(doing, lambda: self._control.ask(request, **what))

    @cached_property
    def _place(self) -> Place:
        return Place(self.name, self.endpoint, self.access_key, self.secret_key, self.region)

    @cached_property
    def _control(self) -> Control:
        return Control(self._place)

    @cached_property
    def _transfer(self) -> Transfer:
        return Transfer(self._place)

    def _client(self, key: str) -> Transfer | Control:
        return self._transfer if is_plain(key) else self._control

    def _at(self, key: str) -> str:
        return f"s3://{self.name}/{ascii(key)[1:-1]}"

    def _receive(self, found: Object, *into: Callable[[Any], object]) -> Object:
        """Give every chunk of the object to `into`, each once and in order; the object as the answer described it."""
        arrived = DownloadProgress(into)
        while True:
            had = arrived.size
            try:
                return self._patiently(f"read {self._at(found.key)}", lambda: self._rest(found, arrived))
            except ObjectUnreadableError:
                if arrived.size == had:
                    raise

    def _rest(self, found: Object, arrived: "DownloadProgress") -> Object:
        """Read on from what has arrived."""
        answer = self._answer(found, arrived.size)
        seen = answer.object
        if (found.etag and seen.etag != found.etag) or seen.size != found.size:
            raise self._changed(found, f"seen ETag {seen.etag}, {seen.size} bytes")
        try:
            for chunk in answer.chunks:
                arrived.take(chunk)
        except UnreachedError as error:
            raise BrokeOffError(f"{arrived.size:,} of {found.size:,} bytes read, then: {error}") from error
        if arrived.size != found.size:
            raise BrokeOffError(f"{arrived.size:,} of {found.size:,} bytes read, then no more.")
        return seen

    def _answer(self, found: Object, start: int) -> Answer:
        """The bytes from `start` on. A server that fails at them may announce them all, and give what went wrong."""
        try:
            return self._control.get(found, start) if start else self._client(found.key).get(found)
        except CutShortError as error:
            raise BrokeOffError(f"{start:,} of {found.size:,} bytes read, then: {error}") from error

    def _patiently(self, doing: str, call: Callable[[], T]) -> T:
        """Call, again and again while that may help, and turn what remains into a known error."""
        began = time.monotonic()
        try:
            return self._again(call)
        except (NoKeysError, S3RequestError, UnreachedError) as error:
            raise known(error, doing, self._place, time.monotonic() - began) from error

    def _again(self, call: Callable[[], T]) -> T:
        """The second time at once: connections that were kept may have been closed meanwhile."""
        try:
            return call()
        except (S3RequestError, UnreachedError) as error:
            if not may_pass(error):
                raise
        from headrace.storage.retries import attempts  # noqa: PLC0415  only a failure pays for it

        for attempt in attempts("the object storage", may_pass, self.patience, first_s=0.1, most_s=5.0):
            with attempt:
                return call()
        raise AssertionError(call)

    def _changed(self, found: Object, seen: str) -> ObjectChangedError:
        return ObjectChangedError(
            f"{self._at(found.key)} at {self._place.endpoint} has been replaced since it was listed: expected ETag"
            f" {found.etag}, {found.size} bytes, {seen}."
        )
