"""Git: what is committed, and the one atomic push that makes a release.

A git that is killed leaves a lock file behind, and later ones refuse to go on: a lock that nobody holds is removed.
"""

import logging
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from headrace import failpoints
from headrace.errors import HeadraceError, NotConfiguredError, TransientError

log = logging.getLogger(__name__)

REMOTE = "origin"
FALLBACK_IDENTITY = {"user.name": "Headrace", "user.email": "headrace@localhost"}
LOCKED = re.compile(r"Unable to create '(.+\.lock)': File exists")
TRIES = 4
"""One git takes several locks in turn."""

DEAD_AFTER_S = 5.0
"""Seconds after which a lock is dead that no process of git in the repository can hold: a library holds it shortly."""


TRANSIENT = re.compile(
    r"could not resolve (host|hostname|proxy)|temporary failure in name resolution"
    r"|failed to connect|couldn't connect to server|connection (refused|timed out|reset|closed)|operation timed out"
    r"|network is unreachable|no route to host"
    r"|recv failure|send failure|broken pipe|early eof|unexpected disconnect|hung up unexpectedly"
    r"|returned error: (408|429|5\d\d)|gnutls_handshake\(\) failed|ssl_error_syscall|tls connection was non-properly"
    r"|unable to create '.+\.lock': file exists"
    r"|cannot lock ref|failed to (lock|update) ref|incorrect old value|reference already exists"
    r"|cannot fast-forward to multiple branches",
    re.IGNORECASE,
)
"""What git, curl and ssh print where server or network are unavailable, or where two gits met at a lock or a ref.

The last is a `git pull` whose FETCH_HEAD another fetch in the same clone wrote, too.
"""

REFUSED = re.compile(
    r"permission denied|authentication failed|could not read (username|password)|host key verification failed"
    r"|repository .*not found|does not appear to be a git repository|returned error: 4(?!08|29)\d\d"
    r"|certificate|hook declined|protected branch",
    re.IGNORECASE,
)
"""What they print where the server refuses. It comes first: a refused ssh connection, too, was "closed"."""

LOST_RACE = re.compile(
    r"\[rejected\]"
    r"|is at [0-9a-f]{40,64} but expected [0-9a-f]{40,64}|incorrect old value provided|reference already exists"
    r"|\[remote rejected\].*\((cannot lock ref|failed to (lock|update))"
)
"""A push to a branch that moved: before git asked for it, or (the server says so) between its question and its push."""


class GitError(HeadraceError):
    """Git refused."""


class GitUnavailableError(GitError, TransientError):
    """The git remote did not answer, or another git held a lock or a ref."""


class StaleReleaseError(TransientError):
    """Somebody else's commit came first: the release lost the race for the branch."""


def is_transient_output(text: str) -> bool:
    """Whether a git that printed this and failed may succeed a little later."""
    return bool(TRANSIENT.search(text)) and not REFUSED.search(text)


def git(root: Path, *arguments: str) -> str:
    """What `git` prints, run in `root`.

    Raises:
        GitError: It exited with another code than 0.
        GitUnavailableError: The remote did not answer, or another git held a lock until we gave up.
    """
    for _ in range(TRIES):
        done = _run(root, arguments)
        lock = LOCKED.search(done.stderr) if done.returncode else None
        if not (lock and _waited_out(root, Path(lock[1]))):
            break
    if done.returncode:
        printed = done.stderr.strip() or done.stdout.strip()
        kind = GitUnavailableError if is_transient_output(printed) else GitError
        raise kind(f"git {' '.join(arguments)} in {root} failed: {printed}")
    return done.stdout.strip()


def _run(root: Path, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    english = {**os.environ, "LC_ALL": "C"}  # what it says is read here
    return subprocess.run(["git", *arguments], cwd=root, env=english, capture_output=True, text=True, check=False)


def dead_locks(root: Path) -> list[Path]:
    """Lock files of the repository that no running git can hold, and that are too old to be a library's."""
    folders = git(root, "rev-parse", "--absolute-git-dir", "--path-format=absolute", "--git-common-dir").splitlines()
    places = ((Path(folder), pattern) for folder in dict.fromkeys(folders) for pattern in ("*.lock", "refs/**/*.lock"))
    found = sorted({path for folder, pattern in places for path in folder.glob(pattern)})
    return [path for path in found if _age(path) > DEAD_AFTER_S] if found and not _at_work(root) else []


def unlock(root: Path, lock: Path) -> None:
    """Remove a lock that is dead, if it still is."""
    if lock in dead_locks(root):
        with failpoints.failpoint("git's lock that is dead"):
            lock.unlink(missing_ok=True)
        log.warning("removed %s: no running git holds it", lock)


def _waited_out(root: Path, lock: Path) -> bool:
    """Whether to try again: the lock was let go of, or found dead and removed; False if somebody goes on holding it."""
    until = time.monotonic() + 2 * DEAD_AFTER_S
    log.info("git's lock %s exists: waiting up to %.0f s for the process that holds it", lock, 2 * DEAD_AFTER_S)
    while lock.exists() and time.monotonic() < until:
        unlock(root, lock)
        time.sleep(DEAD_AFTER_S / 25)
    return not lock.exists()


def _age(path: Path) -> float:
    """Seconds since the file was written; none for one that is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _at_work(root: Path) -> bool:
    """Whether a process of git, or one that cannot be looked at, works in the repository."""
    import psutil  # noqa: PLC0415  DVC brings it; only who meets a lock pays

    for process in psutil.process_iter(["name", "cwd", "status"]):
        if re.match(r"git(-|$)", process.info["name"] or "") and process.info["status"] != psutil.STATUS_ZOMBIE:
            folder = process.info["cwd"]
            if folder is None or Path(folder).is_relative_to(root.resolve()):
                return True
    return False


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
    with failpoints.failpoint("git add", lambda: _leave_lock(root, "index")):
        git(root, "add", "--all", "--", *wanted)
    if not git(root, "diff", "--cached", "--name-only", "--", *wanted):
        return False
    with failpoints.failpoint("git commit", lambda: _leave_lock(root, "index", "HEAD")):
        git(root, *_identity(root), "commit", "--quiet", "--message", message, "--", *wanted)
    return True


def tag(root: Path, name: str, message: str) -> None:
    """Tag HEAD, with a note; a tag of that name that was never pushed makes way."""
    with failpoints.failpoint("git tag", lambda: _leave_lock(root, f"refs/tags/{name}")):
        git(root, *_identity(root), "tag", "--force", "--annotate", name, "--message", message)


def remote_tags(root: Path, prefix: str) -> list[str]:
    """Tags below `prefix` on the remote: what is there is released, whatever is here."""
    lines = git(root, "ls-remote", "--tags", "--refs", REMOTE, f"refs/tags/{prefix}*").splitlines()
    return [line.split("\t")[1].removeprefix("refs/tags/") for line in lines]


def push(root: Path, *tags: str) -> None:
    """Push HEAD and `tags` in one step that happens whole or not at all.

    Raises:
        StaleReleaseError: The remote's branch has commits that HEAD does not have.
        GitUnavailableError: The remote does not answer.
        GitError: It does not let us push.
    """
    branch = git(root, "rev-parse", "--abbrev-ref", "HEAD")
    names = [f"refs/tags/{name}" for name in tags]
    try:
        with failpoints.failpoint("git push"):
            git(root, "push", "--quiet", "--atomic", REMOTE, f"HEAD:refs/heads/{branch}", *names)
    except GitError as error:
        if not LOST_RACE.search(str(error)):
            raise
        raise StaleReleaseError(
            f"{root}: {REMOTE}/{branch} moved on since this run began, so its release was refused; nothing was pushed."
            f" `git pull --rebase`, then run the same command again. ({error})"
        ) from None


def fetch(root: Path) -> None:
    """Bring the remote's branches and tags here.

    Raises:
        GitUnavailableError: The remote does not answer.
        NotConfiguredError: The workspace has no remote called `origin`, or it refuses.
    """
    try:
        with failpoints.failpoint("git fetch", lambda: _leave_lock(root, f"refs/remotes/{REMOTE}/main")):
            git(root, "fetch", "--quiet", "--tags", "--force", REMOTE)
    except GitUnavailableError:
        raise
    except GitError as error:
        raise NotConfiguredError(
            f"{root}: releases are pushed to the git remote {REMOTE!r}, and it cannot be read."
            f" Set it with `git remote add {REMOTE} …`. ({error})"
        ) from None


def config_value(root: Path, name: str) -> str:
    """A setting of git's configuration, as it holds in `root`; empty if it is not set."""
    return _run(root, ("config", name)).stdout.strip()


def is_ignored(root: Path, path: str) -> bool:
    """Whether git ignores `path`; not so outside of a repository."""
    return _run(root, ("check-ignore", "--quiet", path)).returncode == 0


def find_repository(folder: Path) -> str:
    """The top folder of the repository that `folder` is in; empty if it is in none."""
    return _run(folder, ("rev-parse", "--show-toplevel")).stdout.strip()


def head(root: Path) -> str:
    """The commit that is checked out."""
    return git(root, "rev-parse", "HEAD")


def commit_of(root: Path, name: str) -> str:
    """The commit that a tag or branch names."""
    return git(root, "rev-parse", f"{name}^{{commit}}")


def tags(root: Path, prefix: str) -> list[str]:
    """Tags below `prefix` that are here."""
    return git(root, "tag", "--list", f"{prefix}*").splitlines()


# no failpoint: what a killed git does, in a test only
def _leave_lock(root: Path, *names: str) -> None:
    """What git leaves when it is killed."""
    for name in names:
        lock = Path(root, git(root, "rev-parse", "--git-path", f"{name}.lock"))
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()


def _identity(root: Path) -> list[str]:
    """Options that name an author where git has none."""
    if config_value(root, "user.email"):
        return []
    return [part for name, value in FALLBACK_IDENTITY.items() for part in ("-c", f"{name}={value}")]
