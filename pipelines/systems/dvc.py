"""DVC's files, read and written directly: the cache, the remote behind it, `dvc.lock` and `.dvc` pointers.

The layout is DVC 3's: an object lies at `files/md5/<two digits>/<rest>`; a folder is an object `<md5>.dir` that lists
md5 and path of its files as sorted JSON. What is written here is byte for byte what `dvc commit` and `dvc add` write
(tests/test_version.py compares the two), at a cost that follows what is new instead of what there is.
"""

import configparser
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from pipelines import faults
from pipelines.errors import HeadraceError, MissingObjectError, NotConfiguredError
from pipelines.systems import git
from pipelines.systems.object_storage import Bucket


class NotOnRemoteError(HeadraceError):
    """What was written to the remote is not what the remote has."""


READ_ONLY = 0o444
"""DVC takes an object of this mode as complete and unchanged."""


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
    lent: "Remote | None" = None

    @classmethod
    def of(cls, root: Path, *, passes_on: bool = False) -> "Cache":
        """The cache of the workspace `root`, where its DVC configuration says, by default `.dvc/cache`."""
        directory = _config(root).get("cache", {}).get("dir", "cache")
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
        temporary = self.folder / "tmp" / uuid.uuid4().hex
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            keep = self._pass_on if self.passes_on else self._keep
            return keep(temporary, md5_of(temporary))
        finally:
            temporary.unlink(missing_ok=True)

    def add_bytes(self, content: bytes, *, suffix: str = "") -> Stored:
        """Keep `content`; `suffix` is `.dir` for a folder's list."""
        temporary = self.folder / "tmp" / uuid.uuid4().hex
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            return self._keep(temporary, hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix)
        finally:
            temporary.unlink(missing_ok=True)

    def _keep(self, temporary: Path, md5: str) -> Stored:
        size = temporary.stat().st_size
        target = self.path(md5)
        if not target.exists() or target.stat().st_size != size:
            faults.point("object into the cache", lambda: os.truncate(temporary, size // 2))
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
        content = self.remote.read(md5)
        got = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if got != md5.removesuffix(".dir"):
            raise MissingObjectError(
                f"{self.remote.where(md5)} is corrupt: expected md5 {md5}, seen {got}."
                " Run `headrace doctor` in a workspace that still has it."
            )
        self.add_bytes(content, suffix=".dir" if md5.endswith(".dir") else "")
        return path

    def where(self, md5: str) -> str:
        """Where a person finds the object."""
        return self.remote.where(md5) if self.passes_on else str(self.path(md5))

    def copy_to(self, md5: str, path: Path) -> None:
        """Put the object's bytes at `path`, whole or not at all, as a file of the reader's own."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        faults.point("copy into the workspace", lambda: temporary.write_bytes(b"half"))
        shutil.copyfile(self.fetch(md5), temporary)
        faults.point("file of the workspace")
        temporary.replace(path)

    @cached_property
    def remote(self) -> "Remote":
        """The DVC remote of the workspace.

        Raises:
            NotConfiguredError: There is none, or it is not on S3.
        """
        return self.lent or Remote.of(self.root)


@dataclass(frozen=True)
class Remote:
    """The DVC remote: the same objects below a prefix of a bucket.

    Attributes:
        bucket: The bucket.
        prefix: What every key begins with.
        is_verified: Whether `dvc pull` hashes what it gets (`verify = true`).
    """

    bucket: Bucket
    prefix: str
    is_verified: bool = False

    @classmethod
    def of(cls, root: Path) -> "Remote":
        """The default remote of the workspace `root`."""
        config = _config(root)
        name = config.get("core", {}).get("remote", "")
        remote = config.get(f'remote "{name}"', {})
        url = remote.get("url", "")
        if not url.startswith("s3://"):
            raise NotConfiguredError(
                f"{root}/.dvc/config: expected a default remote on S3 (url = s3://bucket/prefix), seen"
                f" remote {name!r} with url {url!r}. `dvc remote add --default storage s3://…` sets one."
            )
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return cls(
            Bucket(
                bucket,
                endpoint=remote.get("endpointurl"),
                access_key=remote.get("access_key_id"),
                secret_key=remote.get("secret_access_key"),
                region=remote.get("region"),
            ),
            prefix.strip("/"),
            remote.get("verify") == "true",
        )

    def key(self, md5: str) -> str:
        """Key of the object on the bucket."""
        return f"{self.prefix}/{object_key(md5)}".lstrip("/")

    def where(self, md5: str) -> str:
        """Address of the object, for people."""
        return f"s3://{self.bucket.name}/{self.key(md5)}"

    def ensure(self, md5: str, size: int, path: Path) -> int:
        """Have the object there, looked at again after it was written; bytes written, none if it was there already.

        Raises:
            NotOnRemoteError: It is not there with its size and hash after it was written.
        """
        wanted = (size, md5.removesuffix(".dir"))
        if self._seen(md5) == wanted:
            return 0
        self.write(md5, path)
        if (seen := self._seen(md5)) != wanted:
            raise NotOnRemoteError(
                f"{self.where(md5)}: expected {size:,} bytes with md5 {md5} after writing them, seen {seen}."
                " Nothing was released. Check the server, then run the same command again."
            )
        return size

    def write(self, md5: str, path: Path) -> None:
        """Put the object there, whatever is there."""
        faults.point(f"object onto the remote{' (a list of files)' if md5.endswith('.dir') else ''}")
        self.bucket.write(self.key(md5), path)

    def has(self, md5: str, size: int) -> bool:
        """Whether the object is there, with that size and hash."""
        return self._seen(md5) == (size, md5.removesuffix(".dir"))

    def _seen(self, md5: str) -> tuple[int, str] | None:
        """Size and md5 of what is there: its ETag where that is the md5, else the hash of the bytes themselves."""
        found = self.bucket.head(self.key(md5))
        if found is None:
            return None
        if (etag := found.etag.strip('"')) == md5.removesuffix(".dir"):
            return found.size, etag
        return found.size, hashlib.md5(self.bucket.read(found), usedforsecurity=False).hexdigest()

    def without_keys(self) -> "Remote":
        """The same place, for somebody who has keys of their own."""
        bucket = Bucket(self.bucket.name, endpoint=self.bucket.endpoint, region=self.bucket.region)
        return replace(self, bucket=bucket)

    def read(self, md5: str) -> bytes:
        """Bytes of the object.

        Raises:
            MissingObjectError: It is not there.
        """
        found = self.bucket.head(self.key(md5))
        if found is None:
            raise MissingObjectError(
                f"{self.where(md5)} is not on the remote, nor in this workspace's cache."
                " Whoever has it can `dvc push`; `headrace doctor` says what else is missing."
            )
        return self.bucket.read(found)


def object_key(md5: str) -> str:
    """Place of an object in a DVC cache or remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def md5_of(path: Path) -> str:
    """The md5 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def directory_bytes(files: Mapping[str, str]) -> bytes:
    """The `.dir` object of a folder: relative path → md5, as DVC writes it."""
    order = sorted(files, key=lambda path: tuple(path.split("/")))
    return json.dumps([{"md5": files[path], "relpath": path} for path in order], sort_keys=True).encode()


def read_directory(cache: Cache, md5: str) -> dict[str, str]:
    """Relative path → md5 of the folder whose `.dir` object is `md5`."""
    return {item["relpath"]: item["md5"] for item in json.loads(cache.fetch(md5).read_bytes())}


def recorded_outs(root: Path, revision: str | None = None) -> dict[str, dict[str, Any]]:
    """Path → output entry (`md5`, `size`, `nfiles`), of `dvc.lock` and of every `.dvc` file below `data/`.

    Args:
        root: The workspace.
        revision: A git revision; by default the files as they lie in the workspace.
    """
    return dict(_outs(_lock_bytes(root, revision), tuple(_pointers(root, revision))))


@lru_cache(maxsize=8)
def _outs(lock: bytes, pointers: tuple[tuple[str, bytes], ...]) -> dict[str, dict[str, Any]]:
    """The entries in these files; the YAML is parsed once, however many tables a run asks for."""
    outs: dict[str, dict[str, Any]] = {}
    for stage in parse_yaml(lock).get("stages", {}).values():
        outs |= {out["path"]: out for out in stage.get("outs", ())}
    for name, text in pointers:
        outs |= {f"{name.rsplit('/', 1)[0]}/{out['path']}": out for out in parse_yaml(text)["outs"]}
    return outs


def read_lock(root: Path, revision: str | None = None) -> dict[str, Any]:
    """`dvc.lock`, with no stages where there is none."""
    return {"schema": "2.0", "stages": {}, **parse_yaml(_lock_bytes(root, revision))}


def _lock_bytes(root: Path, revision: str | None) -> bytes:
    if revision is not None:
        return git.show(root, revision, "dvc.lock") or b""
    return (root / "dvc.lock").read_bytes() if (root / "dvc.lock").exists() else b""


def write_lock(root: Path, lock: Mapping[str, Any]) -> None:
    """Write `dvc.lock`, whole or not at all."""
    write_whole(root / "dvc.lock", dump_yaml(lock))


def write_pointer(root: Path, out: Mapping[str, Any]) -> str:
    """Write the `.dvc` file of a tracked folder, whose output entry has its path from the root; returns its path."""
    folder, _, name = str(out["path"]).rpartition("/")
    write_whole(root / folder / f"{name}.dvc", dump_yaml({"outs": [_pointer_out(out, name)]}))
    return f"{folder}/{name}.dvc"


def _pointer_out(out: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {field: out[field] for field in ("md5", "size", "nfiles", "hash")} | {"path": name}


def _pointers(root: Path, revision: str | None) -> Iterator[tuple[str, bytes]]:
    if revision is None:
        for path in sorted((root / "data").glob("*/*/*.dvc")):
            yield path.relative_to(root).as_posix(), path.read_bytes()
        return
    blobs = {name: blob for name, blob in git.tree(root, revision, "data").items() if name.endswith(".dvc")}
    texts = dict(git.blobs(root, blobs.values()))
    yield from ((name, texts[blob]) for name, blob in blobs.items())


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old bytes or the new, whatever dies."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    faults.point(f"write {path.name}", lambda: temporary.write_bytes(content[: len(content) // 2]))
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    faults.point(f"rename {path.name}")
    temporary.replace(path)
    _sweep(path)


def _sweep(path: Path) -> None:
    """Remove what writers of `path` that died left beside it."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        try:
            os.kill(int(left.suffixes[-2][1:]), 0)
        except (ProcessLookupError, ValueError):
            left.unlink(missing_ok=True)


def dump_yaml(content: Mapping[str, Any]) -> bytes:
    """YAML as DVC lays it out: block style, in the order given."""
    dumped: bytes = yaml.dump(
        content, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=False, width=10_000, encoding="utf-8"
    )
    return dumped


def parse_yaml(text: bytes) -> dict[str, Any]:
    """A YAML text, with the C parser."""
    found: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader) or {}
    return found


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file."""
    return parse_yaml(path.read_bytes())


def _config(root: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    return {name.strip("'"): dict(parser[name]) for name in parser.sections()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
