"""The cache: the objects of one workspace, by md5, and the remote behind it."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from headrace import failpoints
from headrace.errors import HeadraceError, MissingObjectError
from headrace.storage.digests import Digests
from headrace.storage.dvc.objects import object_key
from headrace.storage.dvc.remote import Remote
from headrace.storage.files import read_config

READ_ONLY = 0o444
"""DVC takes an object of this mode as complete and unchanged."""

COPY_BYTES = 1 << 30
"""Bytes that one call copies at most."""

ITEM_START = b'[{"md5": "'
"""How the list of a folder begins that DVC or Headrace wrote; another one is parsed as JSON."""

MD5_LENGTH = 32


class HashCollisionError(HeadraceError):
    """Two contents have the same md5, by which DVC names objects: one of them was forged."""


@dataclass(frozen=True)
class StoredObject:
    """An object of the cache: its name, its bytes and their second hash."""

    md5: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Cache:
    """The objects of one workspace, by md5; what is not here is fetched from the DVC remote.

    Attributes:
        folder: DVC's cache folder.
        root: The workspace, whose `.dvc/config` names the remote.
        is_remote_only: Whether partitions go to the remote at once and are not kept here.
        remote_override: The remote, where there is no workspace that names it.
    """

    folder: Path
    root: Path
    is_remote_only: bool = False
    remote_override: Remote | None = None

    @classmethod
    def of(cls, root: Path, *, is_remote_only: bool = False) -> "Cache":
        """The cache of the workspace `root`, where its DVC configuration says, by default `.dvc/cache`."""
        directory = read_config(root).get("cache", {}).get("dir", "cache")
        return cls((root / ".dvc" / directory).resolve(), root, is_remote_only)

    @contextmanager
    def worker_cache(self) -> Iterator["Cache"]:
        """A cache for one partition's work: this one, or a temporary one where objects go to the remote at once."""
        if not self.is_remote_only:
            yield self
            return
        with TemporaryDirectory(prefix="headrace-") as folder:
            yield replace(self, folder=Path(folder), remote_override=self.remote)

    def path(self, md5: str) -> Path:
        """Path of the object `md5`, whether it is there or not."""
        return self.folder / object_key(md5)

    def add(self, write: Callable[[Path], object]) -> StoredObject:
        """Add what `write` writes to the path that it receives. Atomic, and safe to repeat."""

        def write_and_hash(path: Path) -> Digests:
            write(path)
            return Digests.of_file(path)

        return self.add_hashed(write_and_hash)

    def add_hashed(self, write: Callable[[Path], Digests]) -> StoredObject:
        """The same, where `write` returns the hashes of what it wrote: the bytes need not be read again."""
        with self._temporary() as temporary:
            digests = write(temporary)
            if self.is_remote_only:
                size = self._upload(temporary, digests.md5)
            else:
                size = self._store(temporary, digests.md5, digests.sha256)
            return StoredObject(digests.md5, size, digests.sha256)

    # no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
    def add_bytes(self, content: bytes | memoryview, *, suffix: str = "", keep_local: bool = True) -> StoredObject:
        """Add `content`; `suffix` is `.dir` for a folder's list.

        Without `keep_local` it goes to the remote at once, in a cache that is remote only.
        """
        digests = Digests.of_bytes(content)
        md5, size = digests.md5 + suffix, len(content)
        keep_local = keep_local or not self.is_remote_only
        if not (keep_local and self._holds(md5, size, digests.sha256)):
            with self._temporary() as temporary:
                temporary.write_bytes(content)
                if keep_local:
                    self._store(temporary, md5, digests.sha256)
                else:
                    self._upload(temporary, md5)
        return StoredObject(md5, size, digests.sha256)

    # no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A path that nobody else has, and that is gone afterwards."""
        path = self.folder / "tmp" / uuid.uuid4().hex
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _store(self, temporary: Path, md5: str, sha256: str) -> int:
        size = temporary.stat().st_size
        target = self.path(md5)
        if not self._holds(md5, size, sha256):
            with failpoints.failpoint("object into the cache", lambda: os.truncate(temporary, size // 2)):
                _sync(temporary)
                temporary.chmod(READ_ONLY)
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(target)
        return size

    def _holds(self, md5: str, size: int, sha256: str) -> bool:
        """Whether the object is here with these bytes. It is read: it may be damaged, or another with the same md5.

        Raises:
            HashCollisionError: It is another.
        """
        if not self.has(md5, size):
            return False
        found = Digests.of_file(self.path(md5))
        if found.sha256 != sha256 and not found.mismatch(md5):
            raise HashCollisionError(
                f"{self.path(md5)}: expected the bytes with sha256 {sha256}, found others with sha256 {found.sha256}"
                f" and the same md5. One of the two was forged, and DVC, which names objects by md5, cannot keep both."
                " Nothing was recorded. Remove the forged one from its source, then run the same command again."
            )
        return found.sha256 == sha256

    def _upload(self, temporary: Path, md5: str) -> int:
        size = temporary.stat().st_size
        self.remote.put_if_missing(md5, size, temporary)
        return size

    def has(self, md5: str, size: int | None = None) -> bool:
        """Whether the object is in the cache, with that size if one is given."""
        try:
            # Without a `Path`: it is asked for each chunk of each manifest.
            found = os.stat(f"{self.folder}/{object_key(md5)}").st_size  # noqa: PTH116
        except FileNotFoundError:
            return False
        return size is None or found == size

    def fetch(self, md5: str, sha256: str | None = None) -> Path:
        """Path of the object, from the remote if the cache lacks it; its bytes are hashed on the way in.

        Args:
            md5: Its name.
            sha256: Second hash of its bytes, as its manifest records it; None if that is not known.

        Raises:
            MissingObjectError: It is neither here nor there, or its bytes there are not what the name says.
        """
        path = self.path(md5)
        if path.exists():
            return path
        with self._temporary() as temporary:
            digests = self.remote.download(md5, temporary)
            if found := digests.mismatch(md5, sha256):
                expected = f"md5 {md5} and sha256 {sha256}" if sha256 else f"md5 {md5}"
                raise MissingObjectError(
                    f"{self.remote.where(md5)} is corrupt: expected {expected}, found {found}."
                    " Run `headrace doctor --deep --repair` in a workspace that still has it."
                )
            self._store(temporary, md5, digests.sha256)
        return path

    def where(self, md5: str) -> str:
        """Where a person finds the object."""
        return self.remote.where(md5) if self.is_remote_only else str(self.path(md5))

    def copy_to(
        self, md5: str, path: Path, fence: Callable[[], object] = lambda: None, sha256: str | None = None
    ) -> None:
        """Put the object's bytes at `path`, whole or not at all, as a file of the reader's own.

        The last thing before it is seen is `fence`, which raises where this run may not write any more.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        source = self.fetch(md5, sha256)
        with failpoints.failpoint("copy into the workspace", lambda: temporary.write_bytes(b"half")):
            _copy(source, temporary)
        with failpoints.failpoint("file of the workspace"):
            fence()
            temporary.replace(path)

    @cached_property
    def remote(self) -> Remote:
        """The DVC remote of the workspace.

        Raises:
            NotConfiguredError: There is none, or it is not on S3.
        """
        return self.remote_override or Remote.of(self.root)


def read_directory(cache: Cache, md5: str) -> Mapping[str, str]:
    """Relative path → md5 of the folder whose `.dir` object is `md5`."""
    return _parse_directory(cache.fetch(md5).read_bytes())


def find_in_directory(cache: Cache, md5: str, *paths: str) -> str | None:
    """The md5 of the first of these files that the folder whose `.dir` object is `md5` has; None if it has none.

    The list has one item per file of a table, and most readers want one of them.
    """
    content = cache.fetch(md5).read_bytes()
    if not content.startswith(ITEM_START):
        files = _parse_directory(content)
        return next((files[path] for path in paths if path in files), None)
    for path in paths:
        # Quotes are escaped in JSON, so no file's name contains this text.
        end = content.find(f'", "relpath": {json.dumps(path)}}}'.encode())
        if end >= 0:
            return content[end - MD5_LENGTH : end].decode()
    return None


def new_in_directory(cache: Cache, md5: str, earlier: Iterable[str]) -> set[str]:
    """The md5s of the files in a folder, less those that a `.dir` object in `earlier` lists under the same name."""
    known = {item for folder in earlier for item in _split_items(cache.fetch(folder).read_bytes())}
    items = _split_items(cache.fetch(md5).read_bytes())
    return {item[:MD5_LENGTH].decode() for item in items if item not in known}


def _split_items(content: bytes) -> list[bytes]:
    """The items of a folder's list as text, each from its md5 on."""
    if content.startswith(ITEM_START):
        return content.removeprefix(ITEM_START).removesuffix(b"}]").split(b"}, " + ITEM_START[1:])
    items = _parse_directory(content).items()
    return [f'{md5}", "relpath": {json.dumps(path)}'.encode() for path, md5 in items]


@lru_cache(maxsize=32)
def _parse_directory(content: bytes) -> Mapping[str, str]:
    """A release meets the same list several times: as what is recorded, what is to be, and what is there already."""
    return {item["relpath"]: item["md5"] for item in orjson.loads(content)}


# no failpoint: does what its caller asks for, which is in a failpoint
def _copy(source: Path, to: Path) -> None:
    """The bytes of `source` at `to`; a file system that copies on write keeps them once."""
    try:
        with source.open("rb") as given, to.open("wb") as made:
            while os.copy_file_range(given.fileno(), made.fileno(), COPY_BYTES):
                pass
    except (AttributeError, OSError):  # not on macOS, nor between all file systems
        shutil.copyfile(source, to)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
