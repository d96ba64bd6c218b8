"""Buckets of Google Cloud Storage and containers of Azure, by obstore: listed and read, never written.

A key is a path of plain names here: obstore takes no `//` and no `..`, and an object with such a key stops the listing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from headrace.errors import NotConfiguredError
from headrace.object_location import GOOGLE
from headrace.settings import Connection
from headrace.storage.digests import Hasher
from headrace.storage.s3.bucket import Download
from headrace.storage.s3.errors import (
    STATUS,
    AccessDeniedError,
    BucketMissingError,
    ObjectChangedError,
    ObjectUnreadableError,
    StorageError,
    StorageUnreachableError,
)
from headrace.storage.s3.objects import CONNECT_SECONDS, READ_SECONDS, ObjectMeta, object_address
from headrace.storage.s3.obstore_client import CHUNK, load_obstore

NO_CREDENTIALS = ("token request", "metadata", "Account must be specified", "credential")
"""What obstore says when it finds nobody who asks."""

REFUSED = {"401", "403"}
MISSING = "404"


@dataclass(frozen=True)
class CloudBucket:
    """One bucket or container; safe to use from many threads. Implements `ObjectStore`.

    Attributes:
        name: `gs://` or `az://` and its name.
        connection: Its endpoint and credentials; what it does not have, obstore takes from the environment.
        retry_timeout_s: Seconds in all that a request is tried again for.
    """

    name: str
    connection: Connection
    retry_timeout_s: float = 30.0

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        """The objects whose keys begin with `prefix`, which is empty or ends with a slash, in the order of keys."""
        with self._known_errors(f"list {object_address(self.name, prefix)}"):
            pages = self._store.list(prefix.rstrip("/") or None, chunk_size=1000)
            found = [_object(item) for page in pages for item in page]
        return iter(sorted((item for item in found if item.key.startswith(prefix)), key=lambda item: item.key))

    def head(self, key: str) -> ObjectMeta | None:
        """The object as it is now; None if there is none."""
        try:
            with self._known_errors(f"look at {object_address(self.name, key)}"):
                return _object(self._store.head(key))
        except ObjectChangedError:
            return None

    def download(self, listed: ObjectMeta, path: Path) -> Download:
        """Write the bytes of the object that was listed to `path`.

        Raises:
            ObjectChangedError: It has been replaced or deleted since.
        """
        what, hasher, size = object_address(self.name, listed.key), Hasher(), 0
        with self._known_errors(f"read {what}"):
            answer = self._store.get(listed.key, options={"if_match": f'"{listed.etag}"'} if listed.etag else {})
            found = _object(answer.meta)
        if (found.etag, found.size) != (listed.etag, listed.size):  # not every server obeys `If-Match`
            raise ObjectChangedError(
                f"{what} has been replaced since it was listed: expected ETag {listed.etag}, {listed.size} bytes, found"
                f" {found.etag}, {found.size}."
            )
        # no failpoint: a temporary of the cache, which nobody reads before it is renamed
        with self._known_errors(f"read {what}", ObjectUnreadableError), path.open("wb") as into:
            for chunk in answer.stream(min_chunk_size=CHUNK):
                into.write(chunk)
                hasher.update(chunk)
                size += len(chunk)
        if size != listed.size:
            raise ObjectUnreadableError(f"Cannot read {what}: {size:,} of {listed.size:,} bytes, then no more.")
        return Download(found, hasher.digests)

    @cached_property
    def _store(self) -> Any:  # noqa: ANN401  obstore makes its classes at run time
        stores, (_, _, name) = load_obstore().store, self.name.partition("://")
        options = {
            "client_options": {
                "allow_http": True,
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=READ_SECONDS),
                "timeout": timedelta(days=1),
            },
            "retry_config": {"max_retries": 8, "retry_timeout": timedelta(seconds=self.retry_timeout_s)},
        }
        if self.name.startswith(GOOGLE):
            return stores.GCSStore(name, config=_google(self.connection), **options)
        return stores.AzureStore(name, config=_azure(self.connection), **options)

    @contextmanager
    def _known_errors(self, doing: str, broken: type[StorageError] = StorageUnreachableError) -> Iterator[None]:
        failures = load_obstore().exceptions
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectChangedError(f"Cannot {doing}: there is no such object.") from error
        except failures.PreconditionError as error:
            raise ObjectChangedError(f"Cannot {doing}: it has been replaced since it was listed.") from error
        except (failures.BaseError, OSError) as error:
            raise self._to_storage_error(f"Cannot {doing}", str(error), broken) from error

    def _to_storage_error(
        self, failed: str, text: str, broken: type[StorageError]
    ) -> StorageError | NotConfiguredError:
        cause, status = text.partition("\n")[0][:300], STATUS.search(text)
        if any(said in cause for said in NO_CREDENTIALS):
            return NotConfiguredError(f"{failed}: no credentials found ({cause}). Set {self._variables}.")
        if status and status[1] in REFUSED:
            return AccessDeniedError(f"{failed}: refused with status {status[1]}. Check {self._variables}.")
        if status and status[1] == MISSING:
            return BucketMissingError(f"{failed}: there is no {self.name}. Check the location of the source.")
        if "path segment" in cause or "Path" in cause:
            return StorageError(f"{failed}: an object has a key that is no path of plain names: {cause}. Rename it.")
        return broken(f"{failed}: tried for {self.retry_timeout_s:.0f} s, last seen: {cause}. Check {self._variables}.")

    @property
    def _variables(self) -> str:
        """The environment variables that say where it is and who asks."""
        is_google, prefix = self.name.startswith(GOOGLE), self.connection.prefix
        if prefix:
            names = (
                ("CREDENTIALS_FILE", "ENDPOINT") if is_google else ("ACCOUNT", "ACCOUNT_KEY", "SAS_TOKEN", "ENDPOINT")
            )
            return ", ".join(prefix + name for name in names)
        if is_google:
            return "GOOGLE_APPLICATION_CREDENTIALS"
        return "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"


def _google(connection: Connection) -> dict[str, Any]:
    found = {
        "base_url": connection.endpoint,
        "application_credentials": connection.credentials_file,
        "skip_signature": connection.anonymous or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _azure(connection: Connection) -> dict[str, Any]:
    found = {
        "endpoint": connection.endpoint,
        "account_name": connection.account,
        "account_key": connection.account_key.get_secret_value() if connection.account_key else None,
        "sas_key": connection.sas_token.get_secret_value() if connection.sas_token else None,
        "skip_signature": connection.anonymous or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _object(meta: Any) -> ObjectMeta:  # noqa: ANN401  obstore types no more than we say here
    """The object; its version is left out, because a listing of Google does not tell it."""
    return ObjectMeta(meta["path"], meta["size"], (meta["e_tag"] or "").strip('"'), modified=meta["last_modified"])
