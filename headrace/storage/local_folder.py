"""A folder in place of a bucket: its files are the objects, their paths below it the keys.

For samples, and for files that somebody copies to one machine. A file's ETag is the md5 of its bytes, so that a copy, a
checkout or a changed clock is no change; every listing reads every file. Large data belongs in a bucket.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.errors import HeadraceError
from headrace.object_location import FOLDER_SCHEME, ObjectLocation
from headrace.storage.digests import Hasher
from headrace.storage.dvc.objects import md5_of
from headrace.storage.s3.bucket import Download
from headrace.storage.s3.errors import ObjectChangedError
from headrace.storage.s3.objects import ObjectMeta

CHUNK = 1 << 20


class FolderError(HeadraceError):
    """A folder that stands for a bucket is not there, or cannot be read."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder that is read as a bucket is.

    Attributes:
        name: As it is declared: `file:` and a path, relative to the project or absolute.
        path: The folder.
        limit: The folder or file that links must not lead out of; None to follow them anywhere.
    """

    name: str
    path: Path
    limit: Path | None = None

    @classmethod
    def from_url(cls, url: str, root: Path) -> "LocalFolder":
        """The folder that `url` names, in the project `root`.

        Raises:
            FolderError: There is no such folder.
        """
        path = root / url.removeprefix(FOLDER_SCHEME).removeprefix("//")
        if not path.is_dir():
            raise FolderError(
                f"{url}: expected the folder {path.absolute()}, found none. Files of one machine are not on another:"
                " copy the folder there, or put its files into a bucket and name that in the source's `location`."
            )
        return cls(url, path)

    def confined_to(self, place: ObjectLocation, root: Path) -> "LocalFolder":
        """The same folder for one location in it, out of which no link leads.

        Raises:
            FolderError: There is no such folder or file, or it is a link that leads out of the project.
        """
        target = self.path / (place.object_key or place.prefix)
        shown = f"{self.name}/{place.object_key or place.prefix}"
        if not (target.is_dir() or (place.object_key and target.is_file())):
            raise FolderError(
                f"{shown}: expected a folder{' or file' if place.object_key else ''} at {target.absolute()},"
                " found none. Files of one machine are not on another: copy them there, or put them into a bucket and"
                " name that in the source's `location`."
            )
        limit = target.resolve()
        is_in_project = not self.name.startswith(f"{FOLDER_SCHEME}/")
        if is_in_project and not limit.is_relative_to(root.resolve()):
            raise FolderError(
                f"{shown}: expected a folder of the project, found a link that leads out of it, to {limit}, which other"
                f" machines may not have. Name the folder itself in the source's `location`: 'file://{limit}/'."
            )
        return replace(self, limit=limit)

    def list(self, prefix: str) -> Iterator[ObjectMeta]:
        """Every file whose path begins with `prefix`, in the order of keys."""
        return (self._object(key) for key in sorted(self.keys(prefix)))

    def keys(self, prefix: str) -> Iterator[str]:
        """Their keys, in no certain order; only folders that can hold one are looked at."""
        above, _, begin = prefix.rpartition("/")
        yield from self._below(above, begin)

    def head(self, key: str) -> ObjectMeta | None:
        """The file as it is now; None if there is none."""
        return self._object(key) if (self.path / key).is_file() else None

    def download(self, listed: ObjectMeta, path: Path) -> Download:
        """Copy the file that was listed to `path`.

        Raises:
            ObjectChangedError: It has been changed or deleted since.
        """
        if not listed.etag:
            fault = self._fault(listed.key) or "it could not be read when it was listed"
            raise FolderError(f"{self.path / listed.key} cannot be read: {fault}.")
        hasher = Hasher()
        # no failpoint: a temporary of the cache, which nobody reads before it is renamed
        with path.open("wb") as into:
            size = self._read(listed, into.write, hasher.update)
        if hasher.digests.md5 != listed.etag:
            raise ObjectChangedError(
                f"{self.path / listed.key} has been changed since it was listed: expected {listed.size} bytes with the"
                f" md5 {listed.etag}, found {size} with {hasher.digests.md5}."
            )
        return Download(listed, hasher.digests)

    def _below(self, folder: str, begin: str = "") -> Iterator[str]:
        try:
            entries = list(os.scandir(self.path / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise FolderError(f"{self.path / folder} cannot be read: {error.strerror}.") from error
        for entry in entries:
            key = f"{folder}/{entry.name}" if folder else entry.name
            if not entry.name.startswith(begin):
                continue
            if entry.is_dir(follow_symlinks=self.limit is None):
                yield from self._below(key)
            else:
                yield key

    def _object(self, key: str) -> ObjectMeta:
        """The file; one that cannot be read has no ETag, and the error when it is read."""
        file = self.path / key
        with suppress(OSError):
            found = file.stat()
            if stat.S_ISREG(found.st_mode) and not self._leads_out(file):
                return ObjectMeta(key, found.st_size, md5_of(file))
        return ObjectMeta(key, 0, "")

    def _leads_out(self, file: Path) -> bool:
        """Whether a link leads to somewhere else than the location."""
        return self.limit is not None and not file.resolve().is_relative_to(self.limit)

    def _fault(self, key: str) -> str:
        """Why a file cannot be opened; empty if it can."""
        file = self.path / key
        try:
            if self._leads_out(file):
                return f"it is a link that leads out of {self.limit}, to {file.resolve()}. Copy what it leads to"
            kind = file.stat().st_mode
            if not stat.S_ISREG(kind):
                return "it is a link to a folder" if stat.S_ISDIR(kind) else "it is not a file"
            with file.open("rb"):
                return ""
        except OSError as error:
            return str(error.strerror)

    def _read(self, listed: ObjectMeta, *into: Callable[[Any], object]) -> int:
        size = 0
        try:
            with (self.path / listed.key).open("rb") as file:
                while chunk := file.read(CHUNK):
                    size += len(chunk)
                    for take in into:
                        take(chunk)
        except FileNotFoundError as error:
            raise ObjectChangedError(f"{self.path / listed.key} has been deleted since it was listed.") from error
        except OSError as error:
            raise FolderError(f"{self.path / listed.key} cannot be read: {error.strerror}.") from error
        return size
