"""Git: commands in a repository, and what is committed there.

Every call is made with a clean configuration: signatures, hooks, columns and colors that a user has switched on change
nothing here. A git that is killed leaves a lock file behind, and later ones refuse to go on: a lock that nobody holds
is removed.
"""

import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from headrace import failpoints
from headrace.errors import HeadraceError, TransientError

log = logging.getLogger(__name__)

REMOTE = "origin"
FALLBACK_IDENTITY = {"user.name": "Headrace", "user.email": "headrace@localhost"}

CLEAN = {
    "color.ui": "false",
    "column.ui": "never",
    "commit.gpgSign": "false",
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "tag.gpgSign": "false",
}
"""Options of the user's configuration that would change what git prints or does, and their values here."""

NETWORK_COMMANDS = frozenset({"clone", "fetch", "ls-remote", "pull", "push"})
"""Commands that talk to a remote, which may accept the connection and never answer: git itself waits without end."""

LOCKED = re.compile(r"Unable to create '(.+\.lock)': File exists")
TRIES = 4
"""One git takes several locks in turn."""

HALF_ADDED = re.compile(r"failed to read .*worktrees/[^/]+/(commondir|HEAD|gitdir)|bad object worktrees/[^/]+/HEAD")
"""What git prints where it meets a worktree that another one is adding: it reads them all."""

HALF_ADDED_S = 0.3
"""Seconds after which it will be added."""

STALE_AFTER_S = 5.0
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

REF_LOCKED = re.compile(
    r"cannot lock ref|failed to (lock|update) ref|incorrect old value|reference already exists", re.IGNORECASE
)
"""Of these, what they print where two gits of one repository met at a ref: fetches of two releases do."""

REFUSED = re.compile(
    r"permission denied|authentication failed|could not read (username|password)|host key verification failed"
    r"|repository .*not found|does not appear to be a git repository|returned error: 4(?!08|29)\d\d"
    r"|certificate|hook declined|protected branch",
    re.IGNORECASE,
)
"""What they print where the server refuses. It comes first: a refused ssh connection, too, was "closed"."""


class GitError(HeadraceError):
    """Git refused."""


class GitUnavailableError(GitError, TransientError):
    """The git remote did not answer, or another git held a lock or a ref."""


class RefLockedError(GitUnavailableError):
    """Another git wrote a ref at the same time."""


def is_transient_output(text: str) -> bool:
    """Whether a git that printed this and failed may succeed a little later."""
    return bool(TRANSIENT.search(text) or HALF_ADDED.search(text)) and not REFUSED.search(text)


def git(root: Path, *arguments: str, given: str | None = None, index: Path | None = None) -> str:
    """What `git` prints, run in `root`.

    Args:
        root: The workspace.
        arguments: Command and options.
        given: What git reads from its standard input.
        index: The index file to use instead of the workspace's.

    Raises:
        GitError: It exited with another code than 0.
        GitUnavailableError: The remote did not answer, or another git held a lock until we gave up.
    """
    for _ in range(TRIES):
        done = _run(root, arguments, given, index)
        if done.returncode and HALF_ADDED.search(done.stderr):
            time.sleep(HALF_ADDED_S)
            continue
        lock = LOCKED.search(done.stderr) if done.returncode else None
        if not (lock and _wait_for_lock(root, Path(lock[1]))):
            break
    if done.returncode:
        printed = done.stderr.strip() or done.stdout.strip()
        raise _kind_of_failure(printed)(f"git {' '.join(arguments)} in {root} failed: {printed}")
    return done.stdout.strip()


def _kind_of_failure(printed: str) -> type[GitError]:
    if not is_transient_output(printed):
        return GitError
    return RefLockedError if REF_LOCKED.search(printed) else GitUnavailableError


def _run(
    root: Path, arguments: Sequence[str], given: str | None = None, index: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    done = run(root, *arguments, given=given.encode() if given is not None else None, index=index)
    printed = [text.decode(errors="surrogateescape") for text in (done.stdout, done.stderr)]
    return subprocess.CompletedProcess(done.args, done.returncode, *printed)


# no failpoint: those who call a command that writes have one
def run(
    root: Path, *arguments: str, given: bytes | None = None, index: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run `git`, with the clean configuration; whether it failed is for the caller to see."""
    environment = {**os.environ, "LC_ALL": "C"}  # what it says is read here
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    command = ["git", *clean_options(), *arguments]
    pipe = subprocess.PIPE
    stdin = None if given is None else pipe
    with subprocess.Popen(command, cwd=root, env=environment, stdin=stdin, stdout=pipe, stderr=pipe) as process:
        limit_s = _time_limit(arguments)
        try:
            stdout, stderr = process.communicate(given, timeout=limit_s)
        except subprocess.TimeoutExpired:
            _kill_with_children(process.pid)
            process.communicate()
            setting = " (HEADRACE_GIT_TIMEOUT_S)" if _longest_wait_s.get() == math.inf else ""
            stdout, stderr = b"", f"operation timed out after {limit_s:g} s{setting}".encode()
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _time_limit(arguments: Sequence[str]) -> float | None:
    """Seconds that a command may take; None for one that works in the repository alone."""
    if not NETWORK_COMMANDS.intersection(arguments[:1]):
        return None
    from headrace.settings import Settings  # noqa: PLC0415  DAG files import this module

    return min(Settings().git_timeout_s, _longest_wait_s.get())


@contextmanager
def wait_at_most(seconds: float) -> Iterator[None]:
    """Give up a remote that does not answer earlier than the setting says, where there is more to show."""
    before = _longest_wait_s.set(seconds)
    try:
        yield
    finally:
        _longest_wait_s.reset(before)


_longest_wait_s = ContextVar("longest wait for the remote, in seconds", default=math.inf)


def _kill_with_children(pid: int) -> None:
    """Kill git and what it has started for the transport, which holds the pipes open."""
    import psutil  # noqa: PLC0415  as in `_is_git_running`

    with suppress(psutil.NoSuchProcess):
        git_process = psutil.Process(pid)
        for process in (*git_process.children(recursive=True), git_process):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def clean_options() -> list[str]:
    """Options of a `git` that is run elsewhere, for the clean configuration."""
    return _options(CLEAN)


def _options(values: Mapping[str, str]) -> list[str]:
    return [part for name, value in values.items() for part in ("-c", f"{name}={value}")]


def stale_locks(root: Path) -> list[Path]:
    """Lock files of the repository that no running git can hold, and that are too old to be a library's."""
    folders = git(root, "rev-parse", "--absolute-git-dir", "--path-format=absolute", "--git-common-dir").splitlines()
    places = ((Path(folder), pattern) for folder in dict.fromkeys(folders) for pattern in ("*.lock", "refs/**/*.lock"))
    found = sorted({path for folder, pattern in places for path in folder.glob(pattern)})
    return [path for path in found if _age(path) > STALE_AFTER_S] if found and not _is_git_running(root) else []


def remove_stale_lock(root: Path, lock: Path) -> None:
    """Remove a lock that is dead, if it still is."""
    if lock in stale_locks(root):
        with failpoints.failpoint("git's lock that is dead"):
            lock.unlink(missing_ok=True)
        log.warning("removed %s: no running git holds it", lock)


def _wait_for_lock(root: Path, lock: Path) -> bool:
    """Whether to try again: the lock was let go of, or found dead and removed; False if somebody goes on holding it."""
    until = time.monotonic() + 2 * STALE_AFTER_S
    log.info("git's lock %s exists: waiting up to %.0f s for the process that holds it", lock, 2 * STALE_AFTER_S)
    while lock.exists() and time.monotonic() < until:
        remove_stale_lock(root, lock)
        time.sleep(STALE_AFTER_S / 25)
    return not lock.exists()


def _age(path: Path) -> float:
    """Seconds since the file was written; none for one that is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_git_running(root: Path) -> bool:
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
    done = run(root, "show", f"{revision}:{path}")
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
    done = run(root, "cat-file", "--batch", given=wanted)
    done.check_returncode()
    at = 0
    while at < len(done.stdout):
        begin = done.stdout.index(b"\n", at) + 1
        name, _, size = done.stdout[at : begin - 1].decode().split(" ")
        at = begin + int(size) + 1
        yield name, done.stdout[begin : at - 1]


def commit(root: Path, paths: Iterable[str], message: str) -> bool:
    """Commit these paths; False if nothing in them differs from HEAD."""
    wanted = sorted(paths)
    with failpoints.failpoint("git add", lambda: simulate_stale_lock(root, "index")):
        git(root, "add", "--all", "--", *wanted)
    if not git(root, "diff", "--cached", "--name-only", "--", *wanted):
        return False
    with failpoints.failpoint("git commit", lambda: simulate_stale_lock(root, "index", "HEAD")):
        git(root, *identity(root), "commit", "--quiet", "--message", message, "--", *wanted)
    return True


def config_value(root: Path, name: str) -> str:
    """A setting of git's configuration, as it holds in `root`; empty if it is not set."""
    return _run(root, ("config", name)).stdout.strip()


def has_remote(root: Path) -> bool:
    """Whether the repository has the remote that releases are pushed to."""
    return bool(config_value(root, f"remote.{REMOTE}.url"))


def uncommitted_files(root: Path) -> tuple[str, ...]:
    """Paths of the files that differ from the last commit or are not in it, less those that git ignores."""
    fields = _run(root, ("status", "--porcelain", "--no-renames", "-z")).stdout.split("\0")
    return tuple(field[3:] for field in fields if field)


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


def tags(root: Path, prefix: str, branch: str) -> list[str]:
    """Tags below `prefix` that are here and whose commit is on `branch`."""
    options = ("--format=%(refname)", f"--merged={branch}")
    return [
        name.removeprefix("refs/tags/")
        for name in git(root, "for-each-ref", *options, f"refs/tags/{prefix}").splitlines()
    ]


def resolve(root: Path, name: str) -> str:
    """The commit that a ref or revision names; empty if there is none."""
    done = _run(root, ("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"))
    return done.stdout.strip()


def checked_out_branch(root: Path) -> str:
    """Name of the branch that is checked out; empty on a detached HEAD."""
    return _run(root, ("symbolic-ref", "--quiet", "--short", "HEAD")).stdout.strip()


def merge_base(root: Path, one: str, other: str) -> str:
    """The newest commit that two commits have in common; empty if there is none."""
    return _run(root, ("merge-base", one, other)).stdout.strip()


def is_ancestor(root: Path, commit: str, of: str) -> bool:
    """Whether `commit` is `of` or one of its ancestors."""
    return _run(root, ("merge-base", "--is-ancestor", commit, of)).returncode == 0


def hash_files(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Path → the blob that git would store for the file as it is in the workspace; files that are gone are left out."""
    there = [path for path in paths if (root / path).is_file()]
    hashes = git(root, "hash-object", "--stdin-paths", given="".join(f"{path}\n" for path in there)) if there else ""
    return dict(zip(there, hashes.splitlines(), strict=True))


# no failpoint: what a killed git does, in a test only
def simulate_stale_lock(root: Path, *names: str) -> None:
    """What git leaves when it is killed."""
    for name in names:
        lock = Path(root, git(root, "rev-parse", "--git-path", f"{name}.lock"))
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()


@cache
def identity(root: Path) -> list[str]:
    """Options that name an author where git has none."""
    return [] if config_value(root, "user.email") else _options(FALLBACK_IDENTITY)
