"""Refs that are compared and swapped, all of them or none: on the git remote, or in the clone for one machine alone.

Both kinds behave alike: a change names the commit that the ref must have, and a ref that has another one refuses the
whole set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headrace import failpoints
from headrace.errors import NotConfiguredError, TransientError
from headrace.storage import git, git_remote

READ_ATTEMPTS = 4
"""Refs may be deleted or moved between their listing and the fetch of their commits."""


class RefMovedError(TransientError):
    """A ref does not have the commit that a change expects, so nothing was changed."""


class RefsRefusedError(NotConfiguredError):
    """The git remote does not take refs with these names."""


@dataclass(frozen=True)
class RefChange:
    """What becomes of a ref.

    Attributes:
        expected: The commit that it must have; empty if it must not exist.
        new: The commit that it gets; empty if it is deleted. The expected one: the ref is only compared.
    """

    expected: str
    new: str


class RefStore(Protocol):
    """Where refs are read and swapped."""

    def read(self, below: str) -> dict[str, str]:
        """Full name → commit of the refs below a prefix; the commits are in the clone afterwards."""

    def match(self, *patterns: str) -> dict[str, str]:
        """The same of the refs that match; `*` stands for any text, with slashes or without as the store has it."""

    def swap(self, changes: Mapping[str, RefChange]) -> None:
        """Change refs: all of them, or none.

        Raises:
            RefMovedError: A ref does not have the expected commit.
        """


@dataclass(frozen=True)
class RemoteRefs:
    """Refs of the git remote, which every machine sees.

    Attributes:
        root: A clone.
    """

    root: Path

    def read(self, below: str) -> dict[str, str]:
        """Full name → commit of the refs below a prefix, with their commits fetched.

        Raises:
            GitUnavailableError: The remote does not answer, or the refs change again and again.
        """
        return self.match(f"{below}/*")

    def match(self, *patterns: str) -> dict[str, str]:
        """The same of the refs that match.

        Raises:
            GitUnavailableError: As `read`.
        """
        shown = ", ".join(patterns)
        error: git.GitError = git.GitUnavailableError(f"{self.root}: the refs {shown} of {git.REMOTE} keep moving")
        for _ in range(READ_ATTEMPTS):
            there = git_remote.remote_refs(self.root, *patterns)
            missing = self._missing(there)
            if not missing:
                return there
            try:
                # Without a refmap, refs below refs/heads would leave remote-tracking branches behind.
                with failpoints.failpoint("git fetch"):
                    options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=", "--stdin")
                    git.git(self.root, "fetch", *options, git.REMOTE, given="".join(f"{name}\n" for name in missing))
            except git.GitError as failure:
                error = failure
        raise error

    def _missing(self, refs: Mapping[str, str]) -> list[str]:
        """Refs whose commits are not in the clone."""
        if not refs:
            return []
        asked = "".join(f"{commit}\n" for commit in refs.values())
        lines = git.git(self.root, "cat-file", "--batch-check=%(objecttype)", given=asked).splitlines()
        return [name for name, line in zip(refs, lines, strict=True) if line != "commit"]

    def swap(self, changes: Mapping[str, RefChange]) -> None:
        """Change refs in one atomic push.

        Raises:
            RefMovedError: A ref does not have the expected commit.
            RefsRefusedError: The remote does not take such refs.
            GitUnavailableError: The remote does not answer.
        """
        leases = [f"--force-with-lease={name}:{change.expected}" for name, change in changes.items()]
        specs = [f"{change.new}:{name}" for name, change in changes.items()]
        try:
            with failpoints.failpoint("git push"):
                git.git(self.root, "push", "--quiet", "--atomic", *leases, git.REMOTE, *specs)
        except git.GitError as error:
            if git_remote.LOST_RACE.search(str(error)):
                raise RefMovedError(f"{self.root}: refs of {git.REMOTE} moved meanwhile: {error}") from None
            if error.is_transient:
                raise
            raise RefsRefusedError(
                f"{git.REMOTE} refuses pushes to {next(iter(changes))}; nothing was changed. Let this user push there,"
                f" or name another place with HEADRACE_RUN_REFS, for example refs/heads/headrace-runs. ({error})"
            ) from None


@dataclass(frozen=True)
class LocalRefs:
    """Refs of the clone itself, which its worktrees share: enough where all tasks of a run are on one machine.

    Attributes:
        root: The clone.
    """

    root: Path

    def read(self, below: str) -> dict[str, str]:
        """Full name → commit of the refs below a prefix."""
        return self.match(below)

    def match(self, *patterns: str) -> dict[str, str]:
        """The same of the refs that match."""
        return git.refs(self.root, *patterns)

    def swap(self, changes: Mapping[str, RefChange]) -> None:
        """Change refs in one transaction.

        Raises:
            RefMovedError: A ref does not have the expected commit.
        """
        lines = "".join(f"{_instruction(name, change)}\n" for name, change in changes.items())
        try:
            with failpoints.failpoint("git update-ref"):
                git.git(self.root, "update-ref", "--stdin", given=lines)
        except git.RefLockedError as error:
            raise RefMovedError(f"{self.root}: refs moved meanwhile: {error}") from None


def _instruction(name: str, change: RefChange) -> str:
    """A line that `git update-ref --stdin` reads."""
    if change.new == change.expected:
        return f"verify {name} {change.expected}"
    if not change.new:
        return f"delete {name} {change.expected}"
    return f"update {name} {change.new} {change.expected}" if change.expected else f"create {name} {change.new}"
