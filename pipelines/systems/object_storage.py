"""Object storage over the S3 API: list, look, read exactly what was listed, write, delete.

A read gives the bytes of the object that was asked for, whole, or raises; a stand-in that ignores `If-Match` is caught
by the ETag and the length of its answer. An ETag is an opaque mark of one version of an object, never its md5.
Every request has timeouts, and what may pass is tried again until `patience` is over.
"""

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

from pipelines.errors import HeadraceError, NotConfiguredError

T = TypeVar("T")

MIB = 1024 * 1024
CHUNK = MIB
MULTIPART_FROM = 64 * MIB
PART = 16 * MIB
MOST_PARTS = 10_000

CONNECT_SECONDS = 5
READ_SECONDS = 20

BUSY = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestTimeout", "429"}
REFUSALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "403", "401"}
CHANGED = {"PreconditionFailed", "412", "NoSuchKey", "NoSuchVersion", "404"}
NOT_IMPLEMENTED = 501


class StorageError(HeadraceError):
    """A request to the object storage failed for good."""


class StorageUnreachableError(StorageError):
    """The server did not answer, or not to the end, within our patience."""


class StorageRefusedError(StorageError):
    """The server knows us not, or does not let us."""


class BucketMissingError(StorageError):
    """There is no such bucket at the endpoint."""


class ObjectChangedError(StorageError):
    """The object is no longer the one that was listed."""


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
    """What a download brought: the object as the answer described it, and the sha256 of its bytes."""

    object: Object
    sha256: str


@dataclass(frozen=True)
class Bucket:
    """One bucket; safe to use from many threads.

    Attributes:
        name: Its name.
        endpoint: Address of the S3 API; without one, what boto3 finds in the environment, else AWS.
        access_key: Without one, boto3's usual chain of credentials.
        secret_key: As `access_key`.
        region: Without one, boto3's usual chain.
        patience: Seconds in all that a request is tried again for.
        connections: Connections kept open; as many threads can read at once.
    """

    name: str
    endpoint: str | None = field(default=None, kw_only=True)
    access_key: str | None = field(default=None, kw_only=True, repr=False)
    secret_key: str | None = field(default=None, kw_only=True, repr=False)
    region: str | None = field(default=None, kw_only=True)
    patience: float = field(default=30.0, kw_only=True)
    connections: int = field(default=16, kw_only=True)

    def list(self, prefix: str) -> Iterator[Object]:
        """Every object below `prefix`, in the order of keys, a page at a time."""
        more: dict[str, str] = {}
        while True:
            page = self._ask(
                f"list s3://{self.name}/{prefix}",
                lambda more=more: self.client.list_objects_v2(Bucket=self.name, Prefix=prefix, **more),  # type: ignore[misc]
            )
            for item in page.get("Contents", ()):
                etag = item.get("ETag", "").strip('"')
                yield Object(item["Key"], item["Size"], etag, modified=item.get("LastModified"))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def head(self, key: str) -> Object | None:
        """The object as it is now; None if there is none."""
        try:
            answer = self._ask(f"look at {self._at(key)}", lambda: self.client.head_object(Bucket=self.name, Key=key))
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

        return self._ask(f"read {self._at(found.key)}", once)

    def download(self, found: Object, path: Path) -> Received:
        """Write the bytes of the object that was listed to `path`, a chunk at a time.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """

        def once() -> Received:
            with path.open("wb") as into:
                return self._receive(found, into.write)

        return self._ask(f"read {self._at(found.key)}", once)

    def md5(self, found: Object) -> str:
        """The md5 of the bytes of the object that was listed; they are kept nowhere.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """

        def once() -> str:
            digest = hashlib.md5(usedforsecurity=False)
            self._receive(found, digest.update)
            return digest.hexdigest()

        return self._ask(f"read {self._at(found.key)}", once)

    def write(self, key: str, content: Path | bytes) -> Object:
        """Write an object, whole or not at all, and say how the bucket lists it."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            if size > MULTIPART_FROM:
                return self._write_parts(key, file, size)
            return self._put(key, file, size)

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is as good as deleted."""
        try:
            self._ask(f"delete {self._at(key)}", lambda: self.client.delete_object(Bucket=self.name, Key=key))
        except ObjectChangedError:
            return

    @cached_property
    def client(self) -> Any:  # noqa: ANN401  boto3 makes its clients at run time
        """The boto3 client (imported here: 0.6 CPU seconds that only those pay who talk to a bucket)."""
        import boto3.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=self.connections,
            retries={"total_max_attempts": 1},  # tried again here, within one limit of time
            request_checksum_calculation="when_required",  # rclone and older servers fail on the newer checksums
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if self.endpoint else {},
        )
        try:
            return boto3.session.Session().client(
                "s3",
                endpoint_url=self.endpoint,
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                region_name=self.region,
                config=config,
            )
        except ValueError as error:
            raise NotConfiguredError(
                f"s3://{self.name}: expected an address such as http://127.0.0.1:9000, seen {self.endpoint!r}"
                " (AWS_ENDPOINT_URL)."
            ) from error

    def _at(self, key: str) -> str:
        return f"s3://{self.name}/{ascii(key)[1:-1]}"

    def _receive(self, found: Object, into: Callable[[bytes], object]) -> Received:
        from botocore.exceptions import IncompleteReadError  # noqa: PLC0415

        exactly = {"IfMatch": f'"{found.etag}"'} if found.etag else {}
        exactly |= {"VersionId": found.version} if found.version else {}
        answer = self.client.get_object(Bucket=self.name, Key=found.key, **exactly)
        seen = _described(found.key, answer)
        if (found.etag and seen.etag != found.etag) or seen.size != found.size:
            answer["Body"].close()
            raise self._changed(found, f"seen ETag {seen.etag}, {seen.size} bytes")
        digest, size = hashlib.sha256(), 0
        for chunk in answer["Body"].iter_chunks(CHUNK):
            into(chunk)
            digest.update(chunk)
            size += len(chunk)
        if size != found.size:
            raise IncompleteReadError(actual_bytes=size, expected_bytes=found.size)
        return Received(seen, digest.hexdigest())

    def _put(self, key: str, file: IO[bytes], size: int) -> Object:
        def once() -> Any:  # noqa: ANN401
            file.seek(0)
            return self.client.put_object(Bucket=self.name, Key=key, Body=file)

        answer = self._ask(f"write {self._at(key)}", once)
        return Object(key, size, answer["ETag"].strip('"'), answer.get("VersionId"))

    def _write_parts(self, key: str, file: IO[bytes], size: int) -> Object:
        """Write in parts, each tried again by itself; a failed upload is taken back."""
        doing = f"write {self._at(key)} in parts"
        place: dict[str, Any] = {"Bucket": self.name, "Key": key}
        place["UploadId"] = self._ask(doing, lambda: self.client.create_multipart_upload(**place))["UploadId"]
        try:
            parts = [
                {"PartNumber": number, "ETag": self._ask(doing, lambda: self._part(place, number, part))["ETag"]}  # noqa: B023  called at once
                for number, part in enumerate(_parts(file, size), start=1)
            ]
            self._ask(
                doing,
                lambda: self.client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts}),
            )
        except BaseException:
            self.client.abort_multipart_upload(**place)
            raise
        # The answer's ETag is not the one that rclone lists: ask.
        written = self.head(key)
        if written is None or written.size != size:
            raise StorageError(f"{self._at(key)}: expected {size} bytes after the upload, seen {written}.")
        return written

    def _part(self, place: dict[str, Any], number: int, part: bytes) -> Any:  # noqa: ANN401
        return self.client.upload_part(**place, PartNumber=number, Body=part)

    def _ask(self, doing: str, call: Callable[[], T]) -> T:
        """Call, again and again while that may help, and turn what remains into a known error."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        from pipelines.systems.retries import retry_context  # noqa: PLC0415

        began = time.monotonic()
        try:
            for attempt in retry_context(
                on=_may_pass, attempts=None, timeout=self.patience, wait_initial=0.1, wait_max=5.0
            ):
                with attempt:
                    return call()
        except ClientError as error:
            raise self._refused(doing, error, time.monotonic() - began) from error
        except BotoCoreError as error:
            raise self._failed(doing, error, time.monotonic() - began) from error
        raise AssertionError(doing)

    def _refused(self, doing: str, error: Any, seconds: float) -> StorageError:  # noqa: ANN401
        answer = error.response.get("Error", {})
        code = str(answer.get("Code", "")) or str(_status(error))
        seen = f"{code} {answer.get('Message', '')}".strip()
        where = f"Cannot {doing} at {self._server}"
        if code == "NoSuchBucket":
            return BucketMissingError(
                f"{where}: there is no bucket {self.name}. Check HEADRACE_BUCKET, or make the bucket."
            )
        if code in CHANGED:
            return ObjectChangedError(f"{where}: it has been replaced or deleted since it was listed ({seen}).")
        if code in REFUSALS:
            return StorageRefusedError(
                f"{where}: refused with {seen}. Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, that they belong to"
                f" this endpoint, and that they may use the bucket {self.name}."
            )
        if _may_pass(error):
            return StorageUnreachableError(f"{where}: still {seen} after {seconds:.0f} s. Try again later.")
        return StorageError(f"{where}: the server answered {seen}.")

    def _failed(self, doing: str, error: Exception, seconds: float) -> HeadraceError:
        from botocore.exceptions import NoCredentialsError, PartialCredentialsError  # noqa: PLC0415

        where = f"Cannot {doing} at {self._server}"
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return StorageRefusedError(
                f"{where}: no credentials found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if _may_pass(error):
            return StorageUnreachableError(
                f"{where}: tried for {seconds:.0f} s, last seen: {error} Check AWS_ENDPOINT_URL and that the server"
                " runs (`headrace stack status`)."
            )
        return StorageError(f"{where}: {error}")

    def _changed(self, found: Object, seen: str) -> ObjectChangedError:
        return ObjectChangedError(
            f"{self._at(found.key)} at {self._server} has been replaced since it was listed: expected ETag"
            f" {found.etag}, {found.size} bytes, {seen}."
        )

    @property
    def _server(self) -> str:
        return str(self.client.meta.endpoint_url)


def _described(key: str, answer: dict[str, Any]) -> Object:
    return Object(key, answer["ContentLength"], answer.get("ETag", "").strip('"'), answer.get("VersionId"))


def _parts(file: IO[bytes], size: int) -> Iterator[bytes]:
    length = max(PART, -(-size // MOST_PARTS))
    while part := file.read(length):
        yield part


def _status(error: Any) -> int:  # noqa: ANN401
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    from botocore import exceptions  # noqa: PLC0415

    if isinstance(error, exceptions.ClientError):
        busy = error.response.get("Error", {}).get("Code") in BUSY
        return busy or _status(error) >= 500 and _status(error) != NOT_IMPLEMENTED  # noqa: PLR2004, RUF021
    passing = (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError)
    return isinstance(error, passing)
