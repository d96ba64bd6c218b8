"""Git: what is committed, what the remote has, and the one atomic push that makes a release.

Every call is made with a clean configuration: signatures, hooks, columns and colors that a user has switched on change
nothing here. A git that is killed leaves a lock file behind, and later ones refuse to go on: a lock that nobody holds
is removed.
"""

import logging
import os
import random
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from headrace import failpoints
from headrace.errors import HeadraceError, NotConfiguredError, TransientError

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

FETCHES = 8
"""Fetches of one clone at the same time meet at its remote-tracking refs; the later ones begin again."""

FIXED_TAG = re.compile(r"refs/tags/[a-z][a-z0-9_]*/[1-9][0-9]*")
"""Tags that are numbered below a dataset's name: releases, which never move."""

LOCKED = re.compile(r"Unable to create '(.+\.lock)': File exists")
TRIES = 4
"""One git takes several locks in turn."""

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

PROTECTED = re.compile(r"hook declined|protected branch", re.IGNORECASE)
"""What the server prints where a branch does not take the push."""

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


class RefLockedError(GitUnavailableError):
    """Another git wrote a ref at the same time."""


class StaleReleaseError(TransientError):
    """Somebody else's commit came first: the release lost the race for the branch."""


class MovedTagError(GitError):
    """The tag of a release names another commit here than on the remote."""


def is_transient_output(text: str) -> bool:
    """Whether a git that printed this and failed may succeed a little later."""
    return bool(TRANSIENT.search(text)) and not REFUSED.search(text)


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


def run(
    root: Path, *arguments: str, given: bytes | None = None, index: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run `git`, with the clean configuration; whether it failed is for the caller to see."""
    environment = {**os.environ, "LC_ALL": "C"}  # what it says is read here
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    command = ["git", *clean_options(), *arguments]
    return subprocess.run(command, cwd=root, env=environment, input=given, capture_output=True, check=False)


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
    with failpoints.failpoint("git add", lambda: _simulate_stale_lock(root, "index")):
        git(root, "add", "--all", "--", *wanted)
    if not git(root, "diff", "--cached", "--name-only", "--", *wanted):
        return False
    with failpoints.failpoint("git commit", lambda: _simulate_stale_lock(root, "index", "HEAD")):
        git(root, *identity(root), "commit", "--quiet", "--message", message, "--", *wanted)
    return True


def remote_refs(root: Path, *patterns: str) -> dict[str, str]:
    """Full name → commit of the refs on the remote that match: what is there is released, whatever is here."""
    lines = git(root, "ls-remote", REMOTE, *patterns).splitlines()
    found = {name: commit for commit, name in (line.split("\t") for line in lines)}
    return {name: found.get(f"{name}^{{}}", commit) for name, commit in found.items() if not name.endswith("^{}")}


def push(  # noqa: PLR0913  what one push does
    root: Path,
    commit: str,
    branch: str,
    expected: str = "",
    tags: Mapping[str, str] | None = None,
    *,
    deleted: Mapping[str, str] | None = None,
) -> None:
    """Push a commit to a branch of the remote, and tags, in one step that happens whole or not at all.

    Args:
        root: The workspace.
        commit: The commit; nothing needs to be checked out.
        branch: Name of the branch.
        expected: The commit that the branch must have there; empty if it must not exist.
        tags: Name → object.
        deleted: Full names of refs that the same step deletes → the commits that they must have there.

    Raises:
        StaleReleaseError: The branch has another commit, a tag exists, or a ref to delete has another commit.
        GitUnavailableError: The remote does not answer.
        GitError: It does not let us push.
    """
    names = [f"{name}:refs/tags/{tag}" for tag, name in (tags or {}).items()]
    names += [f":{ref}" for ref in deleted or {}]
    known = {f"refs/heads/{branch}": expected, **(deleted or {})}
    leases = [f"--force-with-lease={ref}:{value}" for ref, value in known.items()]
    try:
        with failpoints.failpoint("git push"):
            git(root, "push", "--quiet", "--atomic", *leases, REMOTE, f"{commit}:refs/heads/{branch}", *names)
    except GitError as error:
        if PROTECTED.search(str(error)):
            raise GitError(
                f"{REMOTE} refuses pushes to {branch}; nothing was released. Let this user push there, or push releases"
                f" to a branch of their own: HEADRACE_RELEASE_BRANCH=releases. ({error})"
            ) from None
        if not LOST_RACE.search(str(error)):
            raise
        raise StaleReleaseError(
            f"{root}: {REMOTE}/{branch} moved on while the release was pushed; nothing was pushed. Run the same command"
            f" again. ({error})"
        ) from None


def fetch(root: Path, *branches: str) -> dict[str, str]:
    """Bring branches (by default all) and tags of the remote here, and the history that a shallow clone lacks.

    Returns:
        Full name → commit of the remote's branches and tags, all as they were at one moment.

    Raises:
        GitUnavailableError: The remote does not answer.
        NotConfiguredError: The workspace has no remote called `origin`, or it refuses.
        MovedTagError: The tag of a release names another commit there than here.
        RefLockedError: Other fetches of this clone came first every time.
    """
    for attempt in range(FETCHES - 1):
        with suppress(RefLockedError):  # another fetch of this clone has brought a ref meanwhile
            return _fetch_once(root, branches)
        time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311  no secret
    return _fetch_once(root, branches)


def _fetch_once(root: Path, branches: Sequence[str]) -> dict[str, str]:
    try:
        there = remote_refs(root, "refs/heads/*", "refs/tags/*")
    except GitUnavailableError:
        raise
    except GitError as error:
        raise NotConfiguredError(
            f"{root}: releases are pushed to the git remote {REMOTE!r}, and it cannot be read."
            f" Set it with `git remote add {REMOTE} …`. ({error})"
        ) from None
    here = refs(root, "refs/tags", f"refs/remotes/{REMOTE}")
    _refuse_moved_tags(root, here, there)
    wanted = [f"refs/heads/{name}" for name in branches] or [name for name in there if name.startswith("refs/heads/")]
    tracked = {name: f"refs/remotes/{REMOTE}/{name.removeprefix('refs/heads/')}" for name in wanted if name in there}
    local = tracked | {name: name for name in there if name.startswith("refs/tags/")}
    refspecs = [f"+{name}:{mine}" for name, mine in local.items() if here.get(mine) != there[name]]
    depth = ["--unshallow"] if git(root, "rev-parse", "--is-shallow-repository") == "true" else []
    if depth or refspecs:
        with failpoints.failpoint("git fetch", lambda: _simulate_stale_lock(root, f"refs/remotes/{REMOTE}/main")):
            options = ("--quiet", "--no-tags", "--no-write-fetch-head", *depth, "--stdin")
            git(root, "fetch", *options, REMOTE, given="".join(f"{line}\n" for line in refspecs))
    return there


def _refuse_moved_tags(root: Path, here: Mapping[str, str], there: Mapping[str, str]) -> None:
    for name, commit in there.items():
        if FIXED_TAG.fullmatch(name) and here.get(name, commit) != commit:
            tag = name.removeprefix("refs/tags/")
            raise MovedTagError(
                f"{root}: expected the tag {tag} to name one commit, found {here[name]} here and {commit} on {REMOTE}."
                f" The tag of a release never moves. Find out who moved it; if {REMOTE} is right:"
                f" `git fetch {REMOTE} +{name}:{name}`."
            )


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
def _simulate_stale_lock(root: Path, *names: str) -> None:
    """What git leaves when it is killed."""
    for name in names:
        lock = Path(root, git(root, "rev-parse", "--git-path", f"{name}.lock"))
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()


@cache
def identity(root: Path) -> list[str]:
    """Options that name an author where git has none."""
    return [] if config_value(root, "user.email") else _options(FALLBACK_IDENTITY)
