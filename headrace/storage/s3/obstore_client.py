"""The bytes of objects by obstore, which takes less CPU than boto3 for small ones (`benchmarks/ingest.py`)."""

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from headrace.storage.s3.errors import ConnectionFailedError, NoCredentialsError, parse_error
from headrace.storage.s3.objects import (
    CONNECT_SECONDS,
    IDLE_SECONDS,
    READ_SECONDS,
    WRITE_SECONDS,
    BucketLocation,
    GetResponse,
    ObjectMeta,
)

if TYPE_CHECKING:
    from obstore.store import S3Config

CHUNK = 1024 * 1024
PART = 16 * CHUNK
MULTIPART_FROM = 512 * CHUNK
"""Up to here an object is one request: then its ETag is the md5 of its bytes on most servers, which proves them."""
PARALLEL_PARTS = 4
LOADING = Lock()
"""One thread imports obstore: its submodules are seen before it is whole, and then lacks `get` for the others."""
AUDIT = "headrace.object"
"""Audit event of each write, with its method and key: the interpreter does not see what obstore does."""


@dataclass(frozen=True)
class ObstoreClient:
    """Reads and writes objects whose keys are plain; safe to use from many threads."""

    place: BucketLocation

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        """Every object below the folder `prefix`, in which all keys are plain."""
        with _translate_errors():
            for page in self._store.list(prefix.rstrip("/") or None, chunk_size=1000):
                yield from (_object(item) for item in page)

    def head(self, key: str) -> ObjectMeta:
        """The object as it is now."""
        with _translate_errors():
            return _object(self._store.head(key))

    def get(self, found: ObjectMeta) -> GetResponse:
        """The object, if it is still the one that was found."""
        exactly = {"if_match": f'"{found.etag}"'} if found.etag else {}
        exactly |= {"version": found.version} if found.version else {}
        with _translate_errors():
            answer = self._store.get(found.key, options=exactly)
            return GetResponse(_object(answer.meta), _chunks(answer))

    def put(self, key: str, content: Path | bytes) -> ObjectMeta:
        """Write an object."""
        if isinstance(content, bytes):
            return self._put(key, content, len(content), use_multipart=False)
        if not content.stat().st_size:  # nothing to map
            return self._put(key, b"", 0, use_multipart=False)
        with content.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
            if len(body) <= MULTIPART_FROM:
                return self._put(key, body, len(body), use_multipart=False)
            parts = {"use_multipart": True, "chunk_size": PART, "max_concurrency": PARALLEL_PARTS}
            written = self._put(key, content, len(body), **parts)
        # The answer's ETag is not the one that rclone lists: ask.
        seen = self.head(key)
        if seen.size != written.size:
            raise ConnectionFailedError(f"expected {written.size} bytes after the upload, found {seen.size}.")
        return seen

    def delete(self, key: str) -> None:
        """Delete an object."""
        sys.audit(AUDIT, "DELETE", key)
        with _translate_errors():
            self._store.delete(key)

    # no failpoint: does what its caller asks for, which is in a failpoint
    def _put(self, key: str, body: Any, size: int, **how: Any) -> ObjectMeta:  # noqa: ANN401  whatever holds bytes
        sys.audit(AUDIT, "PUT", key)
        with _translate_errors():
            answer = (self._store if size <= CHUNK else self._slow_store).put(key, body, **how)
        return ObjectMeta(key, size, _unquoted(answer["e_tag"]), answer["version"])

    @cached_property
    def _store(self) -> Any:  # noqa: ANN401  obstore types no more than we say here
        return self._connected(READ_SECONDS)

    @cached_property
    def _slow_store(self) -> Any:  # noqa: ANN401
        return self._connected(WRITE_SECONDS)

    def _connected(self, seconds: float) -> Any:  # noqa: ANN401
        return load_obstore().store.S3Store(
            self.place.bucket,
            config={**_address(self.place), **_credentials(self.place)},
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=seconds),
                "pool_idle_timeout": timedelta(seconds=IDLE_SECONDS),
                "timeout": timedelta(days=1),
            },
            retry_config={"max_retries": 0},  # tried again by the bucket, within one limit of time
            **_chain(self.place),
        )


def load_obstore() -> Any:  # noqa: ANN401
    """The library, for those alone who talk to a bucket; whole."""
    with LOADING:
        import obstore.exceptions  # noqa: PLC0415
        import obstore.store  # noqa: PLC0415
    return obstore


def _address(place: BucketLocation) -> "S3Config":
    where: S3Config = {"region": place.region, "virtual_hosted_style_request": not place.own_endpoint}
    if place.own_endpoint:
        where["endpoint"] = place.own_endpoint
    # Otherwise each body is hashed once more.
    return {**where, "unsigned_payload": True}


def _credentials(place: BucketLocation) -> "S3Config":
    if bool(place.access_key) != bool(place.secret_key):
        raise NoCredentialsError
    if not place.access_key or not place.secret_key:
        return {}
    return {"access_key_id": place.access_key, "secret_access_key": place.secret_key}


def _chain(place: BucketLocation) -> dict[str, Any]:
    """Boto3's chain of credentials, where neither we nor the environment, which obstore reads, have any.

    And keys that are ours alone, where obstore would add the session token of the environment to them.
    """
    if place.access_key and (place.session_token or os.environ.get("AWS_SESSION_TOKEN")):
        return {"credential_provider": partial(_own_credentials, place)}
    if place.access_key or (os.environ.get("AWS_ACCESS_KEY_ID") and not place.profile):
        return {}
    import boto3.session  # noqa: PLC0415  few need it
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415  as above

    try:
        session = boto3.session.Session(profile_name=place.profile) if place.profile else None
        return {"credential_provider": Boto3CredentialProvider(session)}
    except ValueError as error:
        raise NoCredentialsError from error


def _own_credentials(place: BucketLocation) -> dict[str, Any]:
    return {
        "access_key_id": place.access_key,
        "secret_access_key": place.secret_key,
        "token": place.session_token,
        "expires_at": None,
    }


def _chunks(answer: Any) -> Iterator[Any]:  # noqa: ANN401
    with _translate_errors():
        yield from answer.stream(min_chunk_size=CHUNK)


def _object(meta: Any) -> ObjectMeta:  # noqa: ANN401
    modified = meta["last_modified"]
    return ObjectMeta(meta["path"], meta["size"], _unquoted(meta["e_tag"]), meta["version"], modified)


def _unquoted(etag: str | None) -> str:
    return (etag or "").strip('"')


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Errors of obstore as ours."""
    failures: type[Exception] = load_obstore().exceptions.BaseError
    try:
        yield
    except (failures, OSError) as error:
        raise parse_error(str(error)) from error
