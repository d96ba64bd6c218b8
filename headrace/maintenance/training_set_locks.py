"""Lock files of training sets in git, and the releases that they need.

Searched are the files of the code branch, of the other branches of the remote that are not merged into it, and those in
the workspace, committed or not.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headrace.release.branches import Branches
from headrace.storage import git
from headrace.storage.pruned_releases import RELEASE

MAX_BYTES = 1 << 20
"""A lock file has a few kilobytes."""

MAX_PATTERNS = 1000
"""Files that a branch may have changed before all of its files are searched: a command line has a limit."""


def find_locks(root: Path, dataset: str, branches: Branches) -> dict[str, list[str]]:
    """Release → the lock files that need it, each as its path, or as branch and path: `origin/trial:rf.lock.json`.

    Args:
        root: The workspace, which has fetched the branches of the remote.
        dataset: Name of the dataset.
        branches: The code branch; and the release branch, which has only copies of its files.
    """
    found: dict[str, dict[str, None]] = {}
    for location, content in (*_in_workspace(root, dataset), *_in_branches(root, dataset, branches)):
        release = locked_release(content)
        if release and release.startswith(f"{dataset}/"):
            found.setdefault(release, {})[location] = None
    return {release: list(locations) for release, locations in found.items()}


def locked_release(content: bytes) -> str:
    """The release that a lock file names; empty if the content is no lock file.

    Files that were edited by hand, or that another version wrote, count as well.
    """
    try:
        lock: Any = json.loads(content)
        release = (lock.get("spec") or lock["question"])["release"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return release if isinstance(release, str) and RELEASE.fullmatch(release) else ""


def _in_workspace(root: Path, dataset: str) -> Iterator[tuple[str, bytes]]:
    """Path → content, of tracked and untracked files; ignored ones are not searched."""
    for path in (root / name for name in _grep(root, dataset, "--untracked")):
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            yield path.relative_to(root).as_posix(), path.read_bytes()


def _in_branches(root: Path, dataset: str, branches: Branches) -> Iterator[tuple[str, bytes]]:
    remote = f"refs/remotes/{git.REMOTE}"
    code = git.resolve(root, f"{remote}/{branches.code}")
    if code:
        yield from ((path, git.show(root, code, path) or b"") for path in _grep_commit(root, dataset, code))
    unmerged = (f"--no-merged={code}",) if code else ()
    refs = git.git(root, "for-each-ref", "--format=%(refname)", *unmerged, f"{remote}/").splitlines()
    for ref in (ref for ref in refs if ref != f"{remote}/{branches.release}"):
        changed = _changed_files(root, code, ref) if code else ["."]
        for path in _grep_commit(root, dataset, ref, changed):
            yield f"{ref.removeprefix('refs/remotes/')}:{path}", git.show(root, ref, path) or b""


def _changed_files(root: Path, code: str, ref: str) -> list[str]:
    """Path patterns of the files of a branch that the code branch does not have with the same content."""
    options = ("-r", "--no-renames", "--name-only", "--diff-filter=AM", "-z")
    changed = [f":(literal){name}" for name in git.git(root, "diff-tree", *options, code, ref).split("\0") if name]
    return changed if len(changed) <= MAX_PATTERNS else ["."]


def _grep_commit(root: Path, dataset: str, commit: str, patterns: Sequence[str] = (".",)) -> list[str]:
    names = _grep(root, dataset, commit, "--", *patterns) if patterns else []
    return [name.removeprefix(f"{commit}:") for name in names]


def _grep(root: Path, dataset: str, *where: str) -> list[str]:
    """Names of the files that name a release of the dataset as a lock file does."""
    pattern = rf'"release": *"{dataset}/[1-9][0-9]*"'
    options = ("--files-with-matches", "-I", "-z", "--full-name", "--extended-regexp", "-e", pattern)
    done = git.run(root, "grep", *options, *where)
    if done.returncode > 1:  # 1: no file has it. A search that failed must not pass as one that found nothing
        raise git.GitError(f"git grep in {root} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="surrogateescape").split("\0")[:-1]
