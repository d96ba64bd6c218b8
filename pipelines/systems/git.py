"""Git: what is committed, and the one atomic push that makes a release."""

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines import faults
from pipelines.errors import HeadraceError, NotConfiguredError

REMOTE = "origin"
FALLBACK_IDENTITY = {"user.name": "Headrace", "user.email": "headrace@localhost"}


class GitError(HeadraceError):
    """Git refused."""


class StaleReleaseError(HeadraceError):
    """Somebody else's commit came first."""


def git(root: Path, *arguments: str) -> str:
    """What `git` prints, run in `root`.

    Raises:
        GitError: It exited with another code than 0.
    """
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GitError(f"git {' '.join(arguments)} in {root} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def show(root: Path, revision: str, path: str) -> bytes | None:
    """A file as it is at `revision`; None if it is not there."""
    done = subprocess.run(["git", "show", f"{revision}:{path}"], cwd=root, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def files(root: Path, revision: str, folder: str) -> list[str]:
    """Paths of the files below `folder` at `revision`."""
    return git(root, "ls-tree", "-r", "--name-only", "-z", revision, "--", folder).split("\0")[:-1]


def refs(root: Path, *below: str) -> dict[str, str]:
    """Full name → commit of the refs below these prefixes, or of all, newest first, less those that name no commit."""
    form = "%(refname) %(if)%(*objectname)%(then)%(*objecttype) %(*objectname)%(else)%(objecttype) %(objectname)%(end)"
    lines = git(root, "for-each-ref", "--sort=-creatordate", f"--format={form}", *below).splitlines()
    found = (line.split(" ") for line in lines)
    return {name: commit for name, kind, commit in found if kind == "commit"}


def stashes(root: Path) -> dict[str, str]:
    """What was put aside with `git stash`: of each the commit and its parents, which hold the index and new files."""
    if not git(root, "for-each-ref", "refs/stash"):
        return {}
    lines = git(root, "log", "--walk-reflogs", "--format=%H %P", "refs/stash").splitlines()
    return {f"stash {commit[:10]}": commit for line in lines for commit in line.split()}


def tree(root: Path, revision: str, *paths: str) -> dict[str, str]:
    """Path → blob of the files at and below `paths` at `revision`."""
    lines = git(root, "ls-tree", "-r", "-z", revision, "--", *paths).split("\0")
    return {line.split("\t")[1]: line.split("\t")[0].split(" ")[2] for line in lines if line}


def blobs(root: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The bytes of each blob, by one process of git."""
    wanted = "".join(f"{name}\n" for name in names).encode()
    done = subprocess.run(["git", "cat-file", "--batch"], cwd=root, input=wanted, capture_output=True, check=True)
    at = 0
    while at < len(done.stdout):
        begin = done.stdout.index(b"\n", at) + 1
        name, _, size = done.stdout[at : begin - 1].decode().split(" ")
        at = begin + int(size) + 1
        yield name, done.stdout[begin : at - 1]


def commit(root: Path, paths: Iterable[str], message: str) -> bool:
    """Commit these paths; False if nothing in them differs from HEAD."""
    wanted = sorted(paths)
    faults.point("git add")
    git(root, "add", "--all", "--", *wanted)
    if not git(root, "diff", "--cached", "--name-only", "--", *wanted):
        return False
    faults.point("git commit")
    git(root, *_identity(root), "commit", "--quiet", "--message", message, "--", *wanted)
    return True


def tag(root: Path, name: str, message: str) -> None:
    """Tag HEAD, with a note; a tag of that name that was never pushed makes way."""
    faults.point("git tag")
    git(root, *_identity(root), "tag", "--force", "--annotate", name, "--message", message)


def remote_tags(root: Path, prefix: str) -> list[str]:
    """Tags below `prefix` on the remote: what is there is released, whatever is here."""
    lines = git(root, "ls-remote", "--tags", "--refs", REMOTE, f"refs/tags/{prefix}*").splitlines()
    return [line.split("\t")[1].removeprefix("refs/tags/") for line in lines]


def push(root: Path, *tags: str) -> None:
    """Push HEAD and `tags` in one step that happens whole or not at all.

    Raises:
        StaleReleaseError: The remote's branch has commits that HEAD does not have.
    """
    branch = git(root, "rev-parse", "--abbrev-ref", "HEAD")
    names = [f"refs/tags/{name}" for name in tags]
    faults.point("git push")
    try:
        git(root, "push", "--quiet", "--atomic", REMOTE, f"HEAD:refs/heads/{branch}", *names)
    except GitError as error:
        raise StaleReleaseError(
            f"{root}: {REMOTE}/{branch} moved on since this run began, so its release was refused; nothing was pushed."
            f" `git pull --rebase`, then run the same command again. ({error})"
        ) from None
    faults.point("after the push")


def fetch(root: Path) -> None:
    """Bring the remote's branches and tags here.

    Raises:
        NotConfiguredError: The workspace has no remote called `origin`, or it does not answer.
    """
    try:
        git(root, "fetch", "--quiet", "--tags", "--force", REMOTE)
    except GitError as error:
        raise NotConfiguredError(
            f"{root}: releases are pushed to the git remote {REMOTE!r}, and it does not answer."
            f" Set it with `git remote add {REMOTE} …`. ({error})"
        ) from None


def head(root: Path) -> str:
    """The commit that is checked out."""
    return git(root, "rev-parse", "HEAD")


def commit_of(root: Path, name: str) -> str:
    """The commit that a tag or branch names."""
    return git(root, "rev-parse", f"{name}^{{commit}}")


def tags(root: Path, prefix: str) -> list[str]:
    """Tags below `prefix` that are here."""
    return git(root, "tag", "--list", f"{prefix}*").splitlines()


def _identity(root: Path) -> list[str]:
    """Options that name an author where git has none."""
    known = subprocess.run(["git", "config", "user.email"], cwd=root, capture_output=True, check=False).returncode == 0
    return [] if known else [part for name, value in FALLBACK_IDENTITY.items() for part in ("-c", f"{name}={value}")]
