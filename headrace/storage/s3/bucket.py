"""Object storage over the S3 API: list, look, read exactly what was listed, write, delete.

A read gives the bytes of the object that was asked for, whole, or raises; a stand-in that ignores `If-Match` is caught
by the ETag and the length of its answer. An ETag is an opaque mark of one version of an object, never its md5.
Every request has timeouts, and what may pass is tried again until `retry_timeout_s` is over. A read that broke off
continues where it was, and is given up when the whole of `retry_timeout_s` brought not a byte.
"""

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from headrace.storage.digests import Digests, Hasher
from headrace.storage.s3.boto3_client import Boto3Client
from headrace.storage.s3.errors import (
    ConnectionFailedError,
    IncompleteReadError,
    NoCredentialsError,
    ObjectChangedError,
    ObjectUnreadableError,
    S3RequestError,
    TruncatedResponseError,
    is_retryable,
    to_storage_error,
)
from headrace.storage.s3.objects import BucketLocation, GetResponse, ObjectMeta, is_plain_key
from headrace.storage.s3.obstore_client import ObstoreClient

T = TypeVar("T")


@dataclass(frozen=True)
class Download:
    """What a download brought: the object as the answer described it, and the hashes of its bytes."""

    object: ObjectMeta
    digests: Digests


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
        session_token: With keys that are valid for a while.
        profile: Name of a profile with credentials, in place of keys.
        variables: What the names of its environment variables begin with, where it is a named connection.
        retry_timeout_s: Seconds in all that a request is tried again for.
    """

    name: str
    endpoint: str | None = field(default=None, kw_only=True)
    access_key: str | None = field(default=None, kw_only=True, repr=False)
    secret_key: str | None = field(default=None, kw_only=True, repr=False)
    region: str | None = field(default=None, kw_only=True)
    session_token: str | None = field(default=None, kw_only=True, repr=False)
    profile: str | None = field(default=None, kw_only=True)
    variables: str = field(default="", kw_only=True)
    retry_timeout_s: float = field(default=30.0, kw_only=True)

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        """Every object below `prefix`, whatever its key, in the order of keys, a page at a time."""
        after: str | None = None
        while True:
            page, after = self._with_retries(
                f"list s3://{self.name}/{prefix}",
                lambda after=after: self._boto3.list_page(prefix, after),  # type: ignore[misc]
            )
            yield from page
            if after is None:
                return

    def list_fast(self, folder: str, most: int | None = None) -> Iterator[ObjectMeta]:
        """At most so many objects below a folder in which we alone write, with plain keys; in no certain order."""
        found = self._with_retries(
            f"list s3://{self.name}/{folder}", lambda: [*islice(self._obstore.list(folder), most)]
        )
        return iter(found)

    def head(self, key: str) -> ObjectMeta | None:
        """The object as it is now; None if there is none."""
        try:
            return self._with_retries(f"look at {self._at(key)}", lambda: self._client(key).head(key))
        except ObjectChangedError:
            return None

    def read(self, found: ObjectMeta) -> bytes:
        """Bytes of the object that was listed.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """
        into = io.BytesIO()
        self._receive(found, into.write)
        return into.getvalue()

    # no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
    def download(self, found: ObjectMeta, path: Path) -> Download:
        """Write the bytes of the object that was listed to `path`, a chunk at a time.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """
        hasher = Hasher()
        with path.open("wb") as into:
            seen = self._receive(found, into.write, hasher.update)
        return Download(seen, hasher.digests)

    def digests(self, found: ObjectMeta) -> Digests:
        """The hashes of the bytes of the object that was listed; they are kept nowhere.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """
        hasher = Hasher()
        self._receive(found, hasher.update)
        return hasher.digests

    # no failpoint: does what its caller asks for, which is in a failpoint
    def write(self, key: str, content: Path | bytes) -> ObjectMeta:
        """Write an object, whole or not at all, and say how the bucket lists it."""
        return self._with_retries(f"write {self._at(key)}", lambda: self._client(key).put(key, content))

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is as good as deleted."""
        try:
            self._with_retries(f"delete {self._at(key)}", lambda: self._client(key).delete(key))
        except ObjectChangedError:
            return

    def call(self, doing: str, request: str, **what: Any) -> Any:  # noqa: ANN401  boto3 makes its answers at run time
        """The answer to any other request that may be sent twice, by boto3's name for it.

        Raises:
            StorageError: The server cannot be reached, or refuses.
        """
        return self._with_retries(doing, lambda: self._boto3.call(request, **what))

    @cached_property
    def _location(self) -> BucketLocation:
        return BucketLocation(
            self.name,
            self.endpoint,
            self.access_key,
            self.secret_key,
            self.region,
            self.session_token,
            self.profile,
            self.variables,
        )

    @cached_property
    def _boto3(self) -> Boto3Client:
        return Boto3Client(self._location)

    @cached_property
    def _obstore(self) -> ObstoreClient:
        return ObstoreClient(self._location)

    def _client(self, key: str) -> ObstoreClient | Boto3Client:
        return self._obstore if is_plain_key(key) else self._boto3

    def _at(self, key: str) -> str:
        return f"s3://{self.name}/{ascii(key)[1:-1]}"

    def _receive(self, found: ObjectMeta, *into: Callable[[Any], object]) -> ObjectMeta:
        """Give every chunk of the object to `into`, each once and in order; the object as the answer described it."""
        arrived = DownloadProgress(into)
        while True:
            had = arrived.size
            try:
                return self._with_retries(f"read {self._at(found.key)}", lambda: self._read_rest(found, arrived))
            except ObjectUnreadableError:
                if arrived.size == had:
                    raise

    def _read_rest(self, found: ObjectMeta, arrived: "DownloadProgress") -> ObjectMeta:
        """Read on from what has arrived."""
        answer = self._get(found, arrived.size)
        seen = answer.object
        if (found.etag and seen.etag != found.etag) or seen.size != found.size:
            raise self._changed(found, f"seen ETag {seen.etag}, {seen.size} bytes")
        try:
            for chunk in answer.chunks:
                arrived.take(chunk)
        except ConnectionFailedError as error:
            raise IncompleteReadError(f"{arrived.size:,} of {found.size:,} bytes read, then: {error}") from error
        if arrived.size != found.size:
            raise IncompleteReadError(f"{arrived.size:,} of {found.size:,} bytes read, then no more.")
        return seen

    def _get(self, found: ObjectMeta, start: int) -> GetResponse:
        """The bytes from `start` on. A server that fails at them may announce them all, and give what went wrong."""
        try:
            return self._boto3.get(found, start) if start else self._client(found.key).get(found)
        except TruncatedResponseError as error:
            raise IncompleteReadError(f"{start:,} of {found.size:,} bytes read, then: {error}") from error

    def _with_retries(self, doing: str, call: Callable[[], T]) -> T:
        """Call, again and again while that may help, and turn what remains into a known error."""
        began = time.monotonic()
        try:
            return self._retry(call)
        except (NoCredentialsError, S3RequestError, ConnectionFailedError) as error:
            raise to_storage_error(error, doing, self._location, time.monotonic() - began) from error

    def _retry(self, call: Callable[[], T]) -> T:
        """The second time at once: connections that were kept may have been closed meanwhile."""
        try:
            return call()
        except (S3RequestError, ConnectionFailedError) as error:
            if not is_retryable(error):
                raise
        from headrace.storage.retries import retry_attempts  # noqa: PLC0415  only a failure pays for it

        for attempt in retry_attempts(
            "the object storage", is_retryable, self.retry_timeout_s, first_s=0.1, most_s=5.0
        ):
            with attempt:
                return call()
        raise AssertionError(call)

    def _changed(self, found: ObjectMeta, seen: str) -> ObjectChangedError:
        return ObjectChangedError(
            f"{self._at(found.key)} at {self._location.endpoint} has been replaced since it was listed: expected ETag"
            f" {found.etag}, {found.size} bytes, {seen}."
        )
