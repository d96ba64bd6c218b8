"""What a stack serves: the last commit of a clone, with the releases that were made since.

`origin.git` is the origin of the stack's workspace. Its branch `main` follows the clone's HEAD, whatever is checked out
there. Releases are commits on `main`, which the clone has not; so where both have moved, `main` gets a merge of them.
The clone's commit is always one of its ancestors: `git pull` brings the releases home by a fast-forward.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from headrace.stack.errors import StackError
from headrace.stack.paths import StackPaths
from headrace.storage import git
from headrace.storage.files import dump_yaml
from headrace.storage.git_refs import LocalRefs, RefChange, RefMovedError
from headrace.workspace import SERVED_REF

BRANCH = "main"
TIP = f"refs/heads/{BRANCH}"
FETCHED = "refs/headrace/clone"
TRIES = 5
MOST_SHOWN = 3


class CloneConflictError(StackError):
    """The clone and the stack's origin have changed the same files in different ways."""


@dataclass(frozen=True)
class ServedClone:
    """What a stack serves now.

    Attributes:
        project: The clone.
        commit: The commit of it that runs work on; empty if none is served yet.
        subject: The first line of its message.
        newest: The clone's last commit; the same as `commit` once the stack has followed.
        uncommitted: Files of the clone with changes that no commit has.
    """

    project: Path
    commit: str
    subject: str
    newest: str
    uncommitted: tuple[str, ...]

    @property
    def is_newest(self) -> bool:
        """Whether runs work on the clone's last commit."""
        return self.commit == self.newest

    def describe(self) -> Iterator[str]:
        """Sentences for people."""
        if not self.commit:
            yield f"No commit of {self.project} is served yet."
            return
        which = "last commit" if self.is_newest else f"commit before the last one, {self.newest[:10]},"
        yield f'Runs work on the {which} of {self.project}: {self.commit[:10]} "{self.subject}".'
        if self.uncommitted:
            shown = ", ".join(self.uncommitted[:MOST_SHOWN])
            more = f" and {len(self.uncommitted) - MOST_SHOWN} more" if len(self.uncommitted) > MOST_SHOWN else ""
            yield f"Not in it are uncommitted changes, which only commands in the clone see: {shown}{more}."


def served_clone(paths: StackPaths, project: Path) -> ServedClone:
    """What the stack serves of the clone `project`."""
    commit = git.resolve(paths.origin, SERVED_REF) if paths.origin.exists() else ""
    subject = git.git(paths.origin, "log", "-1", "--format=%s", commit) if commit else ""
    return ServedClone(project, commit, subject, git.resolve(project, "HEAD"), git.uncommitted_files(project))


def check_clone(project: Path) -> None:
    """Check that a project can be served.

    Raises:
        StackError: It has no commit, or is not the top of its repository.
    """
    if not git.resolve(project, "HEAD"):
        raise StackError(
            f"{project} has no commit yet, so there is nothing to clone a workspace from.\n"
            "Next: `git add --all && git commit`, with `git init` before it if this is not a git repository."
        )
    if prefix := git.git(project, "rev-parse", "--show-prefix"):
        raise StackError(
            f"{project} is the folder {prefix} of a git repository: expected a project at the top of its repository.\n"
            "Next: give the project a repository of its own."
        )


def serve_last_commit(paths: StackPaths, project: Path) -> str:
    """Have the branch of the origin contain the last commit of the clone, and its code; the branch's tip.

    Raises:
        CloneConflictError: The origin has other changes of the same files. The branch stays as it was.
        RefMovedError: Releases moved the branch again and again.
    """
    origin = paths.origin
    if not origin.exists():
        git.git(project, "init", "--quiet", "--bare", "--initial-branch", BRANCH, str(origin))
    git.git(origin, "fetch", "--quiet", "--no-tags", "--update-shallow", str(project), f"+HEAD:{FETCHED}")
    for attempt in range(TRIES):
        clone, tip, served = (git.resolve(origin, name) for name in (FETCHED, TIP, SERVED_REF))
        new = _next_tip(origin, clone, tip, served, paths)
        if (new, clone) == (tip, served):
            return tip
        try:
            LocalRefs(origin).swap({TIP: RefChange(tip, new), SERVED_REF: RefChange(served, clone)})
        except RefMovedError:
            if attempt == TRIES - 1:
                raise
        else:
            return new
    return tip


def _next_tip(origin: Path, clone: str, tip: str, served: str, paths: StackPaths) -> str:
    if not tip or git.is_ancestor(origin, tip, clone):
        return clone
    if served == clone:
        return tip  # since then, only releases have moved the branch
    base = served or git.merge_base(origin, clone, tip)
    tree = merge_trees(origin, base, clone, tip, paths)
    is_contained = git.is_ancestor(origin, clone, tip)
    if is_contained and tree == git.git(origin, "rev-parse", f"{tip}^{{tree}}"):
        return tip
    message = f"Merge the clone's commit {clone[:10]}"
    return git.git(origin, *git.identity(origin), "commit-tree", tree, "-p", tip, "-p", clone, "-m", message)


def merge_trees(origin: Path, base: str, clone: str, tip: str, paths: StackPaths) -> str:
    """The tree with the changes of both since `base`, file by file; what DVC records is merged table by table.

    Not `git merge`: after `git commit --amend` or `git switch` in the clone, the branch has commits that the clone has
    no more, and they must not come back.

    Raises:
        CloneConflictError: Both have changed another file.
    """
    empty = git.git(origin, "hash-object", "-w", "-t", "tree", "/dev/null")
    with TemporaryDirectory(prefix="headrace-") as folder:
        index = Path(folder) / "index"
        git.git(origin, "read-tree", "-i", "-m", "--aggressive", base or empty, clone, tip, index=index)
        unmerged = {line.split("\t")[1] for line in _lines(git.git(origin, "ls-files", "-u", "-z", index=index))}
        if unmerged:
            records = _merge_records(origin, clone, tip)
            if others := sorted(unmerged - records.keys()):
                raise CloneConflictError(_conflict_message(paths, clone, tip, others))
            lines = _index_lines(origin, {path: records[path] for path in unmerged})
            git.git(origin, "update-index", "--index-info", given=lines, index=index)
        return git.git(origin, "write-tree", index=index)


def _lines(output: str) -> Sequence[str]:
    return [line for line in output.split("\0") if line]


def _merge_records(origin: Path, clone: str, tip: str) -> dict[str, bytes]:
    """Path → content of what DVC records: the clone's declarations, and the tables and metrics of the releases."""
    from headrace.release.records import Records  # noqa: PLC0415  seldom needed, and it loads data libraries

    ours, released = Records.at_commit(origin, clone), Records.at_commit(origin, tip)
    merged = ours.with_stages_of(released)
    return {**merged.files, "dvc.yaml": dump_yaml(merged.stages), "dvc.lock": dump_yaml(merged.lock)}


def _index_lines(origin: Path, files: Mapping[str, bytes]) -> str:
    """Input of `git update-index --index-info`, which replaces what was not merged."""
    lines = []
    for path, content in sorted(files.items()):
        blob = git.run(origin, "hash-object", "-w", "--no-filters", "--stdin", given=content).stdout.decode().strip()
        lines += [f"0 {'0' * len(blob)}\t{path}\n", f"100644 {blob}\t{path}\n"]
    return "".join(lines)


def _conflict_message(paths: StackPaths, clone: str, tip: str, files: Sequence[str]) -> str:
    shown = ", ".join(files[:MOST_SHOWN]) + (f" and {len(files) - MOST_SHOWN} more" if files[MOST_SHOWN:] else "")
    return (
        f"Your clone ({clone[:10]}) and the stack's origin ({tip[:10]}) have diverged: both have changed {shown}. Runs"
        f" work on the commit that was served before.\n"
        f"Next: `git pull --no-rebase --tags {paths.origin} {BRANCH}` in your clone, resolve the conflicts, commit."
    )
