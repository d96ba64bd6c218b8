"""The cache: the objects of one workspace, by md5, and the remote behind it."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from headrace import failpoints
from headrace.errors import MissingObjectError
from headrace.storage.dvc.objects import md5_of, object_key
from headrace.storage.dvc.remote import Remote
from headrace.storage.files import read_config

READ_ONLY = 0o444
"""DVC takes an object of this mode as complete and unchanged."""

AT_ONCE = 1 << 30
"""Bytes that one call copies at most."""


@dataclass(frozen=True)
class Stored:
    """An object of the cache: its name and bytes."""

    md5: str
    size: int


@dataclass(frozen=True)
class Cache:
    """The objects of one workspace, by md5; what is not here is fetched from the DVC remote.

    Attributes:
        folder: DVC's cache folder.
        root: The workspace, whose `.dvc/config` names the remote.
        passes_on: Whether partitions go to the remote at once and are not kept here.
        lent: The remote, where there is no workspace that names it.
    """

    folder: Path
    root: Path
    passes_on: bool = False
    lent: Remote | None = None

    @classmethod
    def of(cls, root: Path, *, passes_on: bool = False) -> "Cache":
        """The cache of the workspace `root`, where its DVC configuration says, by default `.dvc/cache`."""
        directory = read_config(root).get("cache", {}).get("dir", "cache")
        return cls((root / ".dvc" / directory).resolve(), root, passes_on)

    @contextmanager
    def scratch(self) -> Iterator["Cache"]:
        """A cache for one partition's work: this one, or one that passes everything on and is gone afterwards."""
        if not self.passes_on:
            yield self
            return
        with TemporaryDirectory(prefix="headrace-") as folder:
            yield replace(self, folder=Path(folder), lent=self.remote)

    def path(self, md5: str) -> Path:
        """Where the object `md5` lies, or would lie."""
        return self.folder / object_key(md5)

    def add(self, write: Callable[[Path], object]) -> Stored:
        """Keep what `write` writes to the path it is given. Whole or absent, and safe to repeat."""

        def write_and_hash(path: Path) -> str:
            write(path)
            return md5_of(path)

        return self.take(write_and_hash)

    def take(self, write: Callable[[Path], str]) -> Stored:
        """The same, where `write` says the md5 of what it wrote: the bytes need not be read again."""
        with self._temporary() as temporary:
            md5 = write(temporary)
            return self._pass_on(temporary, md5) if self.passes_on else self._keep(temporary, md5)

    # no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
    def add_bytes(self, content: bytes | memoryview, *, suffix: str = "", stays: bool = True) -> Stored:
        """Keep `content`; `suffix` is `.dir` for a folder's list.

        What need not stay here goes to the remote, if that is where partitions are passed on to.
        """
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
        stays = stays or not self.passes_on
        if stays and self.has(md5, len(content)):
            return Stored(md5, len(content))
        with self._temporary() as temporary:
            temporary.write_bytes(content)
            return self._keep(temporary, md5) if stays else self._pass_on(temporary, md5)

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

    def _keep(self, temporary: Path, md5: str) -> Stored:
        size = temporary.stat().st_size
        target = self.path(md5)
        if not target.exists() or target.stat().st_size != size:
            with failpoints.failpoint("object into the cache", lambda: os.truncate(temporary, size // 2)):
                _sync(temporary)
                temporary.chmod(READ_ONLY)
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(target)
        return Stored(md5, size)

    def _pass_on(self, temporary: Path, md5: str) -> Stored:
        size = temporary.stat().st_size
        self.remote.ensure(md5, size, temporary)
        return Stored(md5, size)

    def has(self, md5: str, size: int | None = None) -> bool:
        """Whether the object is in the cache, with that size if one is given."""
        try:
            found = self.path(md5).stat().st_size
        except FileNotFoundError:
            return False
        return size is None or found == size

    def fetch(self, md5: str) -> Path:
        """Path of the object, from the remote if the cache lacks it; its bytes are hashed on the way in.

        Raises:
            MissingObjectError: It is neither here nor there, or its bytes there are not what the name says.
        """
        path = self.path(md5)
        if path.exists():
            return path
        with self._temporary() as temporary:
            got = self.remote.download(md5, temporary)
            if got != md5.removesuffix(".dir"):
                raise MissingObjectError(
                    f"{self.remote.where(md5)} is corrupt: expected md5 {md5}, seen {got}."
                    " Run `headrace doctor` in a workspace that still has it."
                )
            self._keep(temporary, md5)
        return path

    def where(self, md5: str) -> str:
        """Where a person finds the object."""
        return self.remote.where(md5) if self.passes_on else str(self.path(md5))

    def copy_to(self, md5: str, path: Path, fence: Callable[[], object] = lambda: None) -> None:
        """Put the object's bytes at `path`, whole or not at all, as a file of the reader's own.

        The last thing before it is seen is `fence`, which raises where this run may not write any more.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        source = self.fetch(md5)
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
        return self.lent or Remote.of(self.root)


def read_directory(cache: Cache, md5: str) -> Mapping[str, str]:
    """Relative path → md5 of the folder whose `.dir` object is `md5`."""
    return _listed(cache.fetch(md5).read_bytes())


@lru_cache(maxsize=32)
def _listed(content: bytes) -> Mapping[str, str]:
    """A release meets the same list several times: as what is recorded, what is to be, and what is there already."""
    return {item["relpath"]: item["md5"] for item in orjson.loads(content)}


# no failpoint: does what its caller asks for, which is in a failpoint
def _copy(source: Path, to: Path) -> None:
    """The bytes of `source` at `to`; a file system that copies on write keeps them once."""
    try:
        with source.open("rb") as given, to.open("wb") as made:
            while os.copy_file_range(given.fileno(), made.fileno(), AT_ONCE):
                pass
    except (AttributeError, OSError):  # not on macOS, nor between all file systems
        shutil.copyfile(source, to)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
