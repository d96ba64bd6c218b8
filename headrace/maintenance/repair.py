"""damage → none: bytes written again from wherever they still are as they must be, and read back.

Tried in this order: the cache, the remote, the files that the workspace shows, and computing them again. Nothing is
believed without hashing it; corrupt bytes of the cache are set aside, so that DVC no longer trusts them.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.maintenance.integrity import GOOD, MISSING, Damage
from headrace.maintenance.recompute import make_again
from headrace.maintenance.references import WORKSPACE
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.objects import directory_bytes, md5_of
from headrace.storage.manifest import MANIFEST, Manifest
from headrace.storage.s3.errors import ObjectUnreadableError
from headrace.storage.table_store import Lake

ASIDE = Path(".headrace/corrupt")
"""Where corrupt bytes of the cache go, for whoever wants to know what happened to them."""


@dataclass(frozen=True)
class Repaired:
    """What became of one damaged object: what was done, or what is left and what to do about it."""

    damage: Damage
    mended: str = ""
    left: str = ""


def repair(lake: Lake, damages: Iterable[Damage]) -> list[Repaired]:
    """Mend what can be mended; lists and manifests first, for the others are found through them."""
    return [_mend(lake, item) for item in sorted(damages, key=_order)]


def _order(item: Damage) -> tuple[bool, bool, str]:
    path = min(item.paths, default="")
    states = ("/raw/", "/annotations/", "/validated/", "/rejected/", "/features/", "/labels/")
    place = next((str(number) for number, state in enumerate(states) if state in f"/{path}"), "9")
    return not item.md5.endswith(".dir"), not path.endswith(MANIFEST), place + path


def _mend(lake: Lake, item: Damage) -> Repaired:
    try:
        corrupt = _set_aside(lake, item) if item.cache not in (GOOD, MISSING) else None
        if not item.places:
            return Repaired(item, "set aside; the next run computes it again")
        source = _bring(lake, item)
        done = [f"cache: {source}"] if source else []
        if item.is_released and item.remote != GOOD:
            done.append(f"remote: {write_back(lake.cache, item.md5)}")
        if corrupt:
            done += _show_again(lake, item, corrupt)
        return Repaired(item, "; ".join(done) or "is well again")
    except (HeadraceError, OSError) as error:
        return Repaired(item, left=str(error))


def _set_aside(lake: Lake, item: Damage) -> str | None:
    """Take corrupt bytes out of the cache; their md5, or None if they turn out to be good."""
    path = lake.cache.path(item.md5)
    if (seen := md5_of(path)) == item.md5[:32]:
        return None
    aside = lake.root / ASIDE / item.md5
    aside.parent.mkdir(parents=True, exist_ok=True)
    with failpoints.failpoint("corrupt bytes set aside"):
        shutil.move(path, aside)
    return seen


def _bring(lake: Lake, item: Damage) -> str:
    """Have the right bytes in the cache; says where they came from, nothing if they were there.

    Raises:
        HeadraceError: They are nowhere, and could not be made again.
    """
    path = lake.cache.path(item.md5)
    if path.exists():
        if md5_of(path) == item.md5[:32]:
            return ""
        _set_aside(lake, item)
    for word, offer in (("fetched from the remote", _from_remote), ("taken from the workspace", _from_workspace)):
        if any(_adopt(lake.cache, item.md5, write) for write in offer(lake, item)):
            return word
    return make_again(lake, item)


Write = Callable[[Path], object]
"""Writes the bytes to a path."""


def _from_remote(lake: Lake, item: Damage) -> Iterator[Write]:
    remote = lake.cache.remote
    if found := remote.bucket.head(remote.key(item.md5)):
        yield lambda path: remote.bucket.download(found, path)


# no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
def _from_workspace(lake: Lake, item: Damage) -> Iterator[Write]:
    for path in (lake.root / name for name in item.paths):
        if path.is_file():
            yield lambda into, path=path: shutil.copyfile(path, into)  # type: ignore[misc]
        elif item.md5.endswith(".dir") and (path / MANIFEST).exists():
            yield lambda into, path=path: into.write_bytes(_list_of(path))  # type: ignore[misc]


def _list_of(folder: Path) -> bytes:
    """The list of a table's folder as its manifest says."""
    shown = Manifest.at(folder / MANIFEST)
    return directory_bytes({**shown.files, MANIFEST: md5_of(folder / MANIFEST)})


# no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
def _adopt(cache: Cache, md5: str, write: Write) -> bool:
    """Keep what `write` writes if it is the object that is wanted."""
    temporary = cache.folder / "tmp" / f"{md5}.repair"
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        with suppress(ObjectUnreadableError):
            write(temporary)
        if not temporary.exists() or md5_of(temporary) != md5[:32]:
            return False
        if md5.endswith(".dir"):
            cache.add_bytes(temporary.read_bytes(), suffix=".dir")
        else:
            cache.add(lambda path: _move(temporary, path))
        return True
    finally:
        temporary.unlink(missing_ok=True)


# no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
def _move(source: Path, to: Path) -> None:
    source.replace(to)


def write_back(cache: Cache, md5: str) -> str:
    """Write the cache's object to the remote and hash what the remote then gives.

    Raises:
        HeadraceError: It gives something else.
    """
    remote = cache.remote
    remote.write(md5, cache.path(md5))
    found = remote.bucket.head(remote.key(md5))
    seen = remote.bucket.md5(found) if found else MISSING
    if seen != md5[:32]:
        raise HeadraceError(f"{remote.where(md5)}: written again, but reading it back gave {seen}. Check the server.")
    return "written again and read back"


def _show_again(lake: Lake, item: Damage, corrupt: str) -> Iterator[str]:
    """Replace the workspace's copies of the corrupt bytes."""
    for place in item.places:
        path = lake.root / place.path
        if place.holder == WORKSPACE and path.is_file() and md5_of(path) == corrupt:
            lake.cache.copy_to(item.md5, path)
            yield f"{place.path}: copied again"
