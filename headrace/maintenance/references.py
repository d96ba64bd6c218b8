"""git and manifests → objects: which objects of the cache and the remote are named, by whom, and how large they are.

What is not among them, nobody who is asked here would miss. Lists and manifests are hashed before they are believed.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from headrace.storage import git
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.dvc.push import PARALLEL
from headrace.storage.files import parse_yaml
from headrace.storage.manifest import MANIFEST, Entry, Manifest
from headrace.storage.s3.errors import ObjectUnreadableError
from headrace.storage.table_store import Lake

T = TypeVar("T")

WORKSPACE = "the workspace"
RECORDS = ("dvc.lock", "data")
"""Where a revision records its outputs."""

AT_ONCE = 4 * PARALLEL
"""Lists held in memory at a time: each names every partition of a table."""


@dataclass(frozen=True)
class Place:
    """Where an object stands: in a revision (or the workspace), under a path."""

    holder: str
    path: str


@dataclass(frozen=True)
class Holdings:
    """What is named.

    Attributes:
        outs: Output → where it is recorded; a folder is its list, `<md5>.dir`.
        sizes: Object → bytes; None where nothing says how many.
        released: Objects that the remote must have: a revision names them, not only the workspace.
        unreadable: Lists whose bytes are nowhere, so that what they name is unknown.
    """

    outs: Mapping[str, tuple[Place, ...]]
    sizes: dict[str, int | None] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, lake: Lake, revisions: Mapping[str, str]) -> "Holdings":
        """What `revisions` (name → commit) and the workspace with its journals name."""
        found = cls(_outs(lake, revisions))
        for shown in shown_manifests(lake):
            found.sizes.update(shown.objects)
        for entry in remembered(lake):
            found.sizes.update({part.md5: part.size for part in (entry, *entry.beside.values())})
        for md5, places in found.outs.items():
            found.sizes.setdefault(md5, None)
            if any(place.holder != WORKSPACE for place in places):
                found.released.add(md5)
        for md5, content in _lists(lake.cache, found.outs):
            found._add(lake.cache, md5, content)
        return found

    def _add(self, cache: Cache, md5: str, content: bytes | None) -> None:
        """Take in what the list `md5` names; its manifest is read only if that says something new."""
        if content is None:
            self.unreadable.add(md5)
            return
        files = listed(content)
        self.sizes[md5] = len(content)
        if md5 in self.released:
            self.released.update(files.values())
        if any(self.sizes.get(name) is None for path, name in files.items() if path != MANIFEST):
            text = verified(cache, files[MANIFEST]) if MANIFEST in files else None
            if text:
                self.sizes[files[MANIFEST]] = len(text)
                self.sizes.update(Manifest.from_bytes(text).objects)
        for name in files.values():
            self.sizes.setdefault(name, None)

    def places(self, lake: Lake, wanted: Iterable[str]) -> dict[str, list[Place]]:
        """Where each of these objects stands. Reads the lists again: nobody keeps that for objects that are well."""
        found: dict[str, list[Place]] = {md5: list(self.outs.get(md5, ())) for md5 in wanted}
        for md5, content in _lists(lake.cache, self.outs):
            for path, name in listed(content).items() if content else ():
                if name in found:
                    found[name] += [Place(place.holder, f"{place.path}/{path}") for place in self.outs[md5]]
        for shown in shown_manifests(lake):
            for name, md5 in shown.files.items():
                place = Place(WORKSPACE, f"data/{shown.table}/{name}")
                if md5 in found and place not in found[md5]:
                    found[md5].append(place)
        return found


def releases(lake: Lake) -> dict[str, str]:
    """Every tag that the workspace has fetched, newest first, and HEAD: name → commit."""
    lines = git.refs(lake.root, "refs/tags")
    return {name.removeprefix("refs/tags/"): commit for name, commit in lines.items()} | {"HEAD": git.head(lake.root)}


def shown_manifests(lake: Lake) -> Iterator[Manifest]:
    """Manifest of every table that the workspace shows, whichever dataset's."""
    for path in sorted((lake.root / "data").glob(f"*/*/*/{MANIFEST}")):
        yield Manifest.at(path)


def remembered(lake: Lake) -> Iterator[Entry]:
    """Entries that a run has computed and not shown yet."""
    for path in sorted((lake.root / ".headrace" / "journal").glob("*.jsonl")):
        yield from journal(path.read_bytes())


def journal(text: bytes) -> Iterator[Entry]:
    """Entries of one journal; a line that a crash tore is none."""
    for line in text.splitlines():
        with suppress(ValueError):
            yield Entry.from_line(line)


def verified(cache: Cache, md5: str) -> bytes | None:
    """Bytes of a small object, from the cache or else the remote, whichever has them as they must be."""
    path = cache.path(md5)
    if path.exists() and is_named(content := path.read_bytes(), md5):
        return content
    found = cache.remote.bucket.head(cache.remote.key(md5))
    with suppress(ObjectUnreadableError):
        if found and is_named(content := cache.remote.bucket.read(found), md5):
            return content
    return None


def is_named(content: bytes, md5: str) -> bool:
    """Whether these are the bytes that the name says."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")


def listed(content: bytes) -> dict[str, str]:
    """Path → md5 of the files that a folder's list names."""
    return {item["relpath"]: item["md5"] for item in json.loads(content)}


def _lists(cache: Cache, outs: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """The lists among `outs` and their bytes; None where nobody has them."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        for some in _batches((md5 for md5 in outs if md5.endswith(".dir")), AT_ONCE):
            yield from zip(some, pool.map(lambda name: verified(cache, name), some), strict=True)


def _outs(lake: Lake, revisions: Mapping[str, str]) -> dict[str, tuple[Place, ...]]:
    found: dict[str, list[Place]] = {}
    blobs: dict[str, list[Place]] = {}
    for holder, commit in revisions.items():
        for path, blob in git.tree(lake.root, commit, *RECORDS).items():
            if path == "dvc.lock" or path.endswith(".dvc"):
                blobs.setdefault(blob, []).append(Place(holder, path))
    for blob, content in git.blobs(lake.root, blobs):
        for place in blobs[blob]:
            for path, md5 in _recorded(place.path, content):
                found.setdefault(md5, []).append(Place(place.holder, path))
    for path, out in recorded_outs(lake.root).items():
        found.setdefault(str(out["md5"]), []).append(Place(WORKSPACE, path))
    return {md5: tuple(places) for md5, places in found.items()}


def _recorded(path: str, content: bytes) -> list[tuple[str, str]]:
    """Path and md5 of every output that a `dvc.lock` or a `.dvc` file records."""
    found = parse_yaml(content)
    if path == "dvc.lock":
        stages = found.get("stages", {}).values()
        return [(out["path"], out["md5"]) for stage in stages for out in stage.get("outs", ()) if "md5" in out]
    folder = path.rpartition("/")[0]
    return [(f"{folder}/{out['path']}", out["md5"]) for out in found.get("outs", ()) if "md5" in out]


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
