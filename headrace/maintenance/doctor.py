"""Can this machine and workspace do the work? Each check looks at one thing and says what it saw, and what mends it.

Then what stock DVC does not see: objects that are lost or corrupt, and what half attempts left behind; found, and
mended where that is asked for.
"""

import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from headrace.errors import HeadraceError
from headrace.maintenance import integrity, stale_files
from headrace.maintenance.references import Holdings, releases
from headrace.maintenance.repair import Repaired, repair
from headrace.maintenance.stale_files import Leftover
from headrace.project import dvc_stages
from headrace.settings import Settings
from headrace.storage import git
from headrace.storage.dvc.cache import Cache
from headrace.storage.table_store import Lake

PYTHON = ((3, 11), (3, 14))
REMOTE = "DVC remote"
OPEN_FILES = 1024
FREE_BYTES = 1024**3
ROUNDS = 3
"""A list that is mended names files that may be damaged themselves."""

VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; what is only noted keeps somebody from something, but not everybody."""

    name: str
    is_well: bool
    seen: str
    is_note: bool = False


class NotedError(HeadraceError):
    """Something that not every use needs."""


@dataclass(frozen=True)
class Cleared:
    """What became of something that was left behind."""

    leftover: Leftover
    mended: str = ""
    left: str = ""


@dataclass(frozen=True)
class Care:
    """What was found in the objects and the workspace, and what was done.

    Attributes:
        objects: Objects that were looked at.
        revisions: Releases that name them, and HEAD.
        repaired: Damaged objects.
        cleared: What half attempts left behind.
    """

    objects: int
    revisions: int
    repaired: Sequence[Repaired]
    cleared: Sequence[Cleared]

    @property
    def is_well(self) -> bool:
        """Whether nothing is left to mend."""
        return all(item.mended for item in self.repaired) and all(item.mended for item in self.cleared)


def care(lake: Lake, *, deep: bool = False, mend: bool = False) -> Care:
    """Look at every object that a release, HEAD or the workspace names, and at what was left behind; mend on demand.

    Args:
        lake: The workspace.
        deep: Hash every byte, instead of comparing sizes.
        mend: Mend what can be mended.
    """
    with suppress(HeadraceError):  # one that does not answer is a check of its own
        git.fetch(lake.root)
    cleared = [_clear(item) if mend else Cleared(item) for item in stale_files.find(lake)]
    done: dict[str, Repaired] = {}
    for _ in range(ROUNDS):
        revisions = releases(lake)
        holdings = Holdings.of(lake, revisions)
        found = [item for item in integrity.look(lake, holdings, deep=deep) if item.md5 not in done]
        done |= {item.damage.md5: item for item in (repair(lake, found) if mend else map(Repaired, found))}
        if not (mend and found):
            break
    return Care(len(holdings.sizes), len(revisions), list(done.values()), cleared)


def can_care(checks: Iterable[Check]) -> bool:
    """Whether the remote answers: without it there is nothing to compare with."""
    return all(item.is_well for item in checks if item.name == REMOTE)


def _clear(item: Leftover) -> Cleared:
    try:
        item.clear()
    except (HeadraceError, OSError) as error:
        return Cleared(item, left=str(error))
    return Cleared(item, "removed")


def examine(settings: Settings) -> list[Check]:
    """Everything a run needs, looked at in turn; a check that fails does not keep the others from being made."""
    return [_made(name, look) for name, look in _checks(settings)]


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    root = settings.workspace
    yield "Python", _python
    yield "libraries", _libraries
    yield "workspace", lambda: f"{root.resolve()} at {git.head(root)[:10]}"
    yield "dvc.yaml", lambda: f"{dvc_stages.check(root)} stages, as the datasets declare"
    yield "DVC remote verifies what it pulls", lambda: _verifies(settings)
    yield REMOTE, lambda: _remote(settings)
    yield "git remote", lambda: f"{len(git.remote_tags(root, ''))} tags on {git.REMOTE}"
    yield "Feast's configuration", lambda: _feast(settings)
    yield "open files", _open_files
    yield "disk", lambda: _disk(settings)


def _made(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, is_well=True, seen=look())
    except NotedError as note:
        return Check(name, is_well=False, seen=str(note), is_note=True)
    except HeadraceError as error:
        return Check(name, is_well=False, seen=str(error))


def _python() -> str:
    low, high = PYTHON
    seen = sys.version.split()[0]
    if not low <= sys.version_info[:2] < high:
        raise HeadraceError(f"expected 3.11 to 3.13, seen {seen}. Run `make install PYTHON=python3.12`.")
    return seen


def _libraries() -> str:
    names = ("apache-airflow", "dask", "dvc", "feast", "polars", "pyarrow")
    try:
        return ", ".join(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError as error:
        raise HeadraceError(f"{error.name} is not installed. Run `make install`.") from None


def _verifies(settings: Settings) -> str:
    if not Cache.of(settings.workspace.resolve()).remote.is_verified:
        raise HeadraceError(
            "verify is not set, so that `dvc pull` hands out a corrupt object as good."
            " Run `dvc remote modify storage verify true`."
        )
    return "verify = true"


def _remote(settings: Settings) -> str:
    remote = Cache.of(settings.workspace.resolve()).remote
    next(remote.bucket.list(remote.prefix + "/"), None)
    return f"s3://{remote.bucket.name}/{remote.prefix} answers"


def _feast(settings: Settings) -> str:
    path = settings.workspace / "feature_repo" / "feature_store.yaml"
    text = re.sub(r"(^|\s)#.*", r"\1", path.read_text("utf-8"), flags=re.MULTILINE) if path.exists() else ""
    names = sorted(set(VARIABLE.findall(text)))
    if unset := [name for name in names if not os.environ.get(name)]:
        raise NotedError(
            f"{' and '.join(unset)} not set, which publish and retrieve need. `headrace stack up` writes them for the"
            " local stack; elsewhere put them into .env."
        )
    return f"{', '.join(names) or 'no variable'} set"


def _open_files() -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        raise NotedError(
            f"expected {OPEN_FILES:,} at once, seen a limit of {soft:,}. `ulimit -n {OPEN_FILES}` sets it."
        )
    return "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} at once"


def _disk(settings: Settings) -> str:
    cache = Cache.of(settings.workspace.resolve()).folder
    places = (settings.workspace, cache if cache.exists() else settings.workspace)
    free = min(shutil.disk_usage(place).free for place in places)
    if free < FREE_BYTES:
        raise HeadraceError(f"expected 1 GiB free or more, seen {free:,} bytes. `headrace gc` shows what nobody needs.")
    return f"{free / FREE_BYTES:,.1f} GiB free"
