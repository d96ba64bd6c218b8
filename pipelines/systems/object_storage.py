"""Object storage over the S3 API: list, look, read exactly what was listed, write, delete.

A read gives the bytes of the object that was asked for, whole, or raises; a stand-in that ignores `If-Match` is caught
by the ETag and the length of its answer. An ETag is an opaque mark of one version of an object, never its md5.
Every request has timeouts, and what may pass is tried again until `patience` is over.
"""

import hashlib
import io
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import unquote_plus, urlsplit
from xml.etree.ElementTree import Element

from pipelines.errors import NotConfiguredError
from pipelines.systems.s3.failures import (
    ObjectChangedError,
    Place,
    StorageError,
    StorageRefusedError,
    known,
    may_pass,
)
from pipelines.systems.s3.parts import send_parts
from pipelines.systems.s3.signing import NoKeysError, find_keys
from pipelines.systems.s3.wire import UNREACHED, Answer, Asked, RefusedError, Server, Slice, elements

T = TypeVar("T")

MIB = 1024 * 1024
MULTIPART_FROM = 512 * MIB
"""Up to here an object is one request: then its ETag is the md5 of its bytes on most servers, which proves them."""


@dataclass(frozen=True)
class Object:
    """One object as a listing shows it.

    Attributes:
        key: Its name in the bucket.
        size: Bytes.
        etag: The server's mark of this version, without quotes.
        version: Version id where the bucket keeps versions and the answer tells it (a listing does not).
        modified: When it was written, by the server's clock, where the answer tells it.
    """

    key: str
    size: int
    etag: str
    version: str | None = None
    modified: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Received:
    """What a download brought: the object as the answer described it, and the md5 and sha256 of its bytes."""

    object: Object
    md5: str
    sha256: str


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
        """Every object below `prefix`, in the order of keys, a page at a time."""
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        while True:
            page = elements(self.ask(f"list s3://{self.name}/{prefix}", Asked("GET", self._path(), query)))
            decode = unquote_plus if page.findtext("EncodingType") == "url" else str
            for item in page.iter("Contents"):
                yield _listed(item, decode)
            if page.findtext("IsTruncated") != "true":
                return
            query["continuation-token"] = page.findtext("NextContinuationToken") or ""

    def head(self, key: str) -> Object | None:
        """The object as it is now; None if there is none."""
        try:
            answer, _ = self._ask(f"look at {self._at(key)}", Asked("HEAD", self._path(key)))
        except ObjectChangedError:
            return None
        return _described(key, answer)

    def read(self, found: Object) -> bytes:
        """Bytes of the object that was listed.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """

        def once() -> bytes:
            into = io.BytesIO()
            self._receive(found, into.write)
            return into.getvalue()

        return self._patiently(f"read {self._at(found.key)}", once)

    def download(self, found: Object, path: Path) -> Received:
        """Write the bytes of the object that was listed to `path`, a chunk at a time.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """

        def once() -> Received:
            md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
            with path.open("wb", buffering=0) as into:
                seen = self._receive(found, into.write, md5.update, sha256.update)
            return Received(seen, md5.hexdigest(), sha256.hexdigest())

        return self._patiently(f"read {self._at(found.key)}", once)

    def md5(self, found: Object) -> str:
        """The md5 of the bytes of the object that was listed; they are kept nowhere.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """

        def once() -> str:
            digest = hashlib.md5(usedforsecurity=False)
            self._receive(found, digest.update)
            return digest.hexdigest()

        return self._patiently(f"read {self._at(found.key)}", once)

    def write(self, key: str, content: Path | bytes, md5: str | None = None) -> Object:
        """Write an object, whole or not at all, and say how the bucket lists it.

        Args:
            key: Its name.
            content: Its bytes, or the file that has them.
            md5: What they must be when they arrive, where the server looks.
        """
        if isinstance(content, bytes):
            return self._put(key, content, len(content), md5)
        with content.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MULTIPART_FROM:
                return self._put_parts(key, file, size)
            return self._put(key, Slice(file, 0, size), size, md5)

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is as good as deleted."""
        try:
            self.ask(f"delete {self._at(key)}", Asked("DELETE", self._path(key)))
        except ObjectChangedError:
            return

    def ask(self, doing: str, asked: Asked) -> bytes:
        """The bytes of a small answer to any request that may be sent twice.

        Raises:
            StorageError: The server cannot be reached, or refuses.
        """
        return self._ask(doing, asked)[1]

    @cached_property
    def _server(self) -> Server:
        try:
            keys = find_keys(self.access_key, self.secret_key)
        except NoKeysError as error:
            raise StorageRefusedError(
                f"Cannot reach s3://{self.name} at {self._endpoint}: no credentials found. Set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY."
            ) from error
        address = urlsplit(self._endpoint)
        if address.scheme not in {"http", "https"} or not address.hostname:
            raise NotConfiguredError(
                f"s3://{self.name}: expected an address such as http://127.0.0.1:9000, seen {self._endpoint!r}"
                " (AWS_ENDPOINT_URL)."
            )
        return Server(self._endpoint, self._region, keys)

    @property
    def _endpoint(self) -> str:
        set_ = self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return set_ or f"https://s3.{self._region}.amazonaws.com"

    @property
    def _region(self) -> str:
        set_ = self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return set_ or "us-east-1"

    @property
    def _place(self) -> Place:
        return Place(self._endpoint, self.name, self._region)

    def _path(self, key: str = "") -> str:
        return f"/{self.name}/{key}" if key else f"/{self.name}"

    def _at(self, key: str) -> str:
        return f"s3://{self.name}/{ascii(key)[1:-1]}"

    def _receive(self, found: Object, *into: Callable[[memoryview], object]) -> Object:
        exactly = {"if-match": f'"{found.etag}"'} if found.etag else {}
        query = {"versionId": found.version} if found.version else {}
        with self._server.answering(Asked("GET", self._path(found.key), query, exactly)) as answer:
            seen = _described(found.key, answer)
            if (found.etag and seen.etag != found.etag) or seen.size != found.size:
                raise self._changed(found, f"seen ETag {seen.etag}, {seen.size} bytes")
            for chunk in answer.chunks():
                for take in into:
                    take(chunk)
        return seen

    def _put(self, key: str, body: bytes | Slice, size: int, md5: str | None) -> Object:
        exactly = {"content-md5": b64encode(bytes.fromhex(md5)).decode()} if md5 else {}
        answer, _ = self._ask(f"write {self._at(key)}", Asked("PUT", self._path(key), headers=exactly, body=body))
        return Object(key, size, answer.mark, answer.header("x-amz-version-id"))

    def _put_parts(self, key: str, file: IO[bytes], size: int) -> Object:
        doing = f"write {self._at(key)} in parts"
        try:
            send_parts(partial(self._ask, doing), self._path(key), file, size)
        except RefusedError as error:
            raise known(error, doing, self._place, 0) from error
        # The answer's ETag is not the one that rclone lists: ask.
        written = self.head(key)
        if written is None or written.size != size:
            raise StorageError(f"{self._at(key)}: expected {size} bytes after the upload, seen {written}.")
        return written

    def _ask(self, doing: str, asked: Asked) -> tuple[Answer, bytes]:
        return self._patiently(doing, lambda: self._server.ask(asked))

    def _patiently(self, doing: str, call: Callable[[], T]) -> T:
        """Call, again and again while that may help, and turn what remains into a known error."""
        began = time.monotonic()
        try:
            return self._again(call)
        except (RefusedError, *UNREACHED) as error:
            raise known(error, doing, self._place, time.monotonic() - began) from error

    def _again(self, call: Callable[[], T]) -> T:
        """The second time at once: connections that were kept may have been closed meanwhile."""
        try:
            return call()
        except (RefusedError, *UNREACHED) as error:
            if not may_pass(error):
                raise
            self._server.forget_connections()
        from pipelines.systems.retries import retry_context  # noqa: PLC0415  only a failure pays for it

        for attempt in retry_context(on=may_pass, attempts=None, timeout=self.patience, wait_initial=0.1, wait_max=5.0):
            with attempt:
                return call()
        raise AssertionError(call)

    def _changed(self, found: Object, seen: str) -> ObjectChangedError:
        return ObjectChangedError(
            f"{self._at(found.key)} at {self._endpoint} has been replaced since it was listed: expected ETag"
            f" {found.etag}, {found.size} bytes, {seen}."
        )


def _listed(item: Element, decode: Callable[[str], str]) -> Object:
    told = {field.tag: field.text or "" for field in item}
    modified = datetime.fromisoformat(told["LastModified"]) if told.get("LastModified") else None
    return Object(decode(told["Key"]), int(told["Size"]), told.get("ETag", "").strip('"'), modified=modified)


def _described(key: str, answer: Answer) -> Object:
    return Object(key, answer.size, answer.mark, answer.header("x-amz-version-id"))
