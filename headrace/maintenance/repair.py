"""Repairs damaged objects from wherever their bytes are still intact, and reads back what was written.

Sources in this order: the cache, the remote, the files in the workspace, a new computation. No bytes are used without
hashing them. Corrupt bytes in the cache are quarantined, so that DVC no longer trusts them.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.maintenance.integrity import GOOD, MISSING, ObjectDamage
from headrace.maintenance.recompute import recompute_object
from headrace.maintenance.references import WORKSPACE
from headrace.storage.digests import Digests
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.objects import directory_bytes, md5_of
from headrace.storage.manifest import FORMAT_1_FILE, HEAD_FILE, is_manifest_file
from headrace.storage.s3.errors import ObjectUnreadableError
from headrace.storage.table_store import TableStore

QUARANTINE = Path(".headrace/corrupt")
"""Folder for corrupt bytes of the cache, kept for an analysis of what happened to them."""


@dataclass(frozen=True)
class RepairResult:
    """What became of one damaged object.

    Attributes:
        damage: The damage.
        repaired: What was done; empty if it was not repaired.
        unrepaired: Why it could not be repaired, and the next command; empty if that was not tried.
    """

    damage: ObjectDamage
    repaired: str = ""
    unrepaired: str = ""


def repair_objects(table_store: TableStore, damages: Iterable[ObjectDamage]) -> list[RepairResult]:
    """Repair what can be repaired."""
    return [_repair_object(table_store, damage) for damage in sorted(damages, key=_repair_order)]


def _repair_order(damage: ObjectDamage) -> tuple[bool, bool, str]:
    """Directory objects and manifests first, because other objects are found through them; inputs before outputs."""
    path = min(damage.paths, default="")
    states = ("/raw/", "/annotations/", "/validated/", "/rejected/", "/features/", "/labels/")
    state = next((str(number) for number, state in enumerate(states) if state in f"/{path}"), "9")
    return not damage.md5.endswith(".dir"), not _is_manifest(path), state + path


def _repair_object(table_store: TableStore, damage: ObjectDamage) -> RepairResult:
    try:
        corrupt = _quarantine(table_store, damage) if damage.cache not in (GOOD, MISSING) else None
        if not damage.references:
            return RepairResult(damage, f"moved to {QUARANTINE}; the next run computes it again")
        source = _restore(table_store, damage)
        done = [f"cache: {source}"] if source else []
        if damage.is_released and damage.remote != GOOD:
            done.append(f"remote: {write_back(table_store.cache, damage.md5, damage.sha256)}")
        if corrupt:
            done += _replace_workspace_copies(table_store, damage, corrupt)
        return RepairResult(damage, "; ".join(done) or "intact when looked at again")
    except (HeadraceError, OSError) as error:
        return RepairResult(damage, unrepaired=str(error))


def _quarantine(table_store: TableStore, damage: ObjectDamage) -> Digests | None:
    """Move corrupt bytes out of the cache. Returns their hashes; None if they turn out to be intact."""
    path = table_store.cache.path(damage.md5)
    found = Digests.of_file(path)
    if not found.mismatch(damage.md5, damage.sha256):
        return None
    target = table_store.root / QUARANTINE / damage.md5
    target.parent.mkdir(parents=True, exist_ok=True)
    with failpoints.failpoint("quarantine corrupt object"):  # moved, not renamed: the cache may be on another disk
        shutil.move(path, target)
    return found


def _restore(table_store: TableStore, damage: ObjectDamage) -> str:
    """Put the right bytes into the cache. Returns where they came from; empty if the cache already has them.

    Raises:
        HeadraceError: They are nowhere, and could not be recomputed.
    """
    path = table_store.cache.path(damage.md5)
    if path.exists():
        if not Digests.of_file(path).mismatch(damage.md5, damage.sha256):
            return ""
        _quarantine(table_store, damage)  # the size was right, so the bytes were not looked at before
    sources = (("fetched from the remote", _from_remote), ("copied from the workspace", _from_workspace))
    for description, find_copies in sources:
        if any(_add_if_intact(table_store.cache, damage, write) for write in find_copies(table_store, damage)):
            return description
    return recompute_object(table_store, damage)


WriteCopy = Callable[[Path], object]
"""Writes a copy of an object to a path."""


def _from_remote(table_store: TableStore, damage: ObjectDamage) -> Iterator[WriteCopy]:
    remote = table_store.cache.remote
    if found := remote.bucket.head(remote.key(damage.md5)):
        yield lambda path: remote.bucket.download(found, path)


# no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
def _from_workspace(table_store: TableStore, damage: ObjectDamage) -> Iterator[WriteCopy]:
    for path in (table_store.root / name for name in damage.paths):
        if path.is_file():
            yield lambda target, path=path: shutil.copyfile(path, target)  # type: ignore[misc]
        elif damage.md5.endswith(".dir") and (directory := _build_directory(table_store, path)):
            yield lambda target, directory=directory: target.write_bytes(directory)  # type: ignore[misc]


def _build_directory(table_store: TableStore, folder: Path) -> bytes | None:
    """The directory object of a table, from its manifest in the workspace; None if there is none."""
    manifest = table_store.visible_manifest(folder.relative_to(table_store.root / "data").as_posix())
    if manifest is None:
        return None
    is_format_1 = not (folder / HEAD_FILE).exists()
    files = {FORMAT_1_FILE: md5_of(folder / FORMAT_1_FILE)} if is_format_1 else manifest.to_files().md5s
    return directory_bytes({**manifest.files, **files})


def _is_manifest(path: str) -> bool:
    return is_manifest_file("/".join(path.split("/")[4:]))  # data/<state>/<dataset>/<name>/<file>


# no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
def _add_if_intact(cache: Cache, damage: ObjectDamage, write: WriteCopy) -> bool:
    """Add the copy that `write` writes to the cache if it has the right hashes."""
    temporary = cache.folder / "tmp" / f"{damage.md5}.repair"
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        with suppress(ObjectUnreadableError):
            write(temporary)
        if not temporary.exists() or Digests.of_file(temporary).mismatch(damage.md5, damage.sha256):
            return False
        if damage.md5.endswith(".dir"):
            cache.add_bytes(temporary.read_bytes(), suffix=".dir")
        else:
            cache.add(lambda path: _move(temporary, path))
        return True
    finally:
        temporary.unlink(missing_ok=True)


# no failpoint: a temporary of the cache, which nobody reads before the failpoint that renames it
def _move(source: Path, target: Path) -> None:
    source.replace(target)


def write_back(cache: Cache, md5: str, sha256: str | None = None) -> str:
    """Upload the cache's object to the remote, and hash what the remote then returns.

    Raises:
        HeadraceError: The remote returns other bytes.
    """
    remote = cache.remote
    remote.write(md5, cache.path(md5))
    uploaded = remote.bucket.head(remote.key(md5))
    found = remote.bucket.digests(uploaded).mismatch(md5, sha256) if uploaded else MISSING
    if found:
        raise HeadraceError(
            f"{remote.where(md5)}: uploaded again, but expected md5 {md5[:32]} when reading it back, found {found}."
            " Check the server, then run `headrace doctor --repair` again."
        )
    return "uploaded again and read back"


def _replace_workspace_copies(table_store: TableStore, damage: ObjectDamage, corrupt: Digests) -> Iterator[str]:
    """Replace files of the workspace that have the same corrupt bytes: with links or copies, DVC spread them there."""
    for reference in damage.references:
        path = table_store.root / reference.path
        if reference.revision == WORKSPACE and path.is_file() and Digests.of_file(path) == corrupt:
            table_store.cache.copy_to(damage.md5, path)
            yield f"{reference.path}: copied again"
