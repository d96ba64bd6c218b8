"""Commits that are built without a working tree, and a working tree that follows a commit.

Blobs, a tree from an index file of its own, a commit, a tag: objects that nobody sees before they are pushed. What a
process that dies leaves of them is unreachable, and git removes it in time.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from headrace import failpoints
from headrace.storage import git
from headrace.storage.files import atomic_write

REGULAR_FILE = "100644"
GONE = "0" * 40
"""What `git update-index` takes as the object of a path that is removed."""


def build_commit(  # noqa: PLR0913  what one commit is made of
    root: Path,
    parents: Sequence[str],
    base: str,
    files: Mapping[str, bytes | None],
    message: str,
    *,
    carried: Mapping[str, str] | None = None,
) -> str:
    """A commit with the tree of `base`, in which `files` are replaced.

    Args:
        root: The workspace, whose repository gets the objects; its files and its index are not touched.
        parents: The parents, oldest history first.
        base: The commit whose tree it begins with; empty for a tree of `files` alone.
        files: Path → content; None removes the file.
        message: The message.
        carried: Path → blob of files of another commit, which are taken as they are.

    Returns:
        The commit.
    """
    with TemporaryDirectory(prefix="headrace-") as folder:
        index = Path(folder) / "index"
        blobs = _write_blobs(root, Path(folder), [content for content in files.values() if content is not None])
        lines = [
            f"0 {GONE}\t{path}\n" if content is None else f"{REGULAR_FILE} {next(blobs)}\t{path}\n"
            for path, content in files.items()
        ]
        lines += [f"{REGULAR_FILE} {blob}\t{path}\n" for path, blob in (carried or {}).items()]
        git.git(root, "read-tree", base or "--empty", index=index)
        git.git(root, "update-index", "--index-info", given="".join(lines), index=index)
        # The objects that a partial clone lacks are on the remote; without the option, git would fetch all of them.
        tree = git.git(root, "write-tree", "--missing-ok", index=index)
    named = [part for parent in parents for part in ("-p", parent)]
    with failpoints.failpoint("git commit-tree"):
        return git.git(root, *git.identity(root), "commit-tree", tree, *named, given=message)


# no failpoint: temporaries that git reads, and objects that nothing refers to
def _write_blobs(root: Path, folder: Path, contents: Sequence[bytes]) -> Iterator[str]:
    paths = [folder / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    names = "".join(f"{path}\n" for path in paths)
    return iter(git.git(root, "hash-object", "-w", "--no-filters", "--stdin-paths", given=names).splitlines())


def build_tag(root: Path, name: str, commit: str, message: str) -> str:
    """An annotated tag of `commit`, as an object: no ref names it yet."""
    tagger = f"{committer(root)} {int(time.time())} +0000"
    content = f"object {commit}\ntype commit\ntag {name}\ntagger {tagger}\n\n{message.strip()}\n"
    with failpoints.failpoint("git mktag"):
        return git.git(root, "mktag", given=content)


@cache
def committer(root: Path) -> str:
    """Name and address."""
    return git.git(root, *git.identity(root), "var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]


def fast_forward(root: Path, commit: str, replaceable: Iterable[str]) -> list[str]:
    """Move the branch that is checked out, its index and its files forward to `commit`.

    Nothing is changed if somebody's work would be lost. A process that dies midway is finished by calling this again.

    Args:
        root: The workspace.
        commit: A descendant of HEAD.
        replaceable: Changed files whose changes `commit` contains, written in another way.

    Returns:
        The changed files that prevent it; none if it was done.
    """
    head = git.head(root)
    coming = _changes(root, head, commit)
    changed = _changed_files(root) & coming.keys()
    hashes = git.hash_files(root, changed)
    settled = {path for path in changed if hashes.get(path, "") == coming[path][1]} | (changed & {*replaceable})
    if changed - settled:
        return sorted(changed - settled)
    for path in sorted(settled):
        _settle(root, path, *coming[path])
    with failpoints.failpoint("git read-tree"):
        git.git(root, "read-tree", "-m", "-u", head, commit)
    with failpoints.failpoint("git update-ref"):
        git.git(root, "update-ref", "-m", "headrace: fast-forward", "HEAD", commit, head)
    return []


def _changes(root: Path, before: str, after: str) -> dict[str, tuple[str, str]]:
    """Path → mode and blob in `after` of the files that differ from `before`; the blob is empty for those removed."""
    fields = git.git(root, "diff-tree", "-r", "--no-renames", "-z", before, after).split("\0")
    changes = {}
    for line, path in zip(fields[::2], fields[1::2], strict=False):
        _, mode, _, blob, status = line.split(" ")
        changes[path] = mode, ("" if status == "D" else blob)
    return changes


def _changed_files(root: Path) -> set[str]:
    """Files whose content or index entry is not that of HEAD, those that git does not know among them."""
    git._run(root, ("update-index", "-q", "--refresh"))  # noqa: SLF001  it fails where a file has changed
    tracked = git.git(root, "diff-index", "--name-only", "--no-renames", "-z", "HEAD").split("\0")
    staged = git.git(root, "diff-index", "--cached", "--name-only", "--no-renames", "-z", "HEAD").split("\0")
    unknown = git.git(root, "ls-files", "--others", "-z", "--exclude-standard").split("\0")
    return {*tracked, *staged, *unknown} - {""}


def _settle(root: Path, path: str, mode: str, blob: str) -> None:
    """Have file and index entry as the commit has them: then `read-tree` takes them as they are."""
    with failpoints.failpoint("git update-index"):
        if blob:
            (content,) = (text for _, text in git.blobs(root, [blob]))
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(root / path, content)
            git.git(root, "update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}")
        else:
            git.git(root, "update-index", "--force-remove", "--", path)
