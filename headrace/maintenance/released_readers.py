"""Which releases of a dataset other datasets read: they are kept as long as what reads them.

The manifests of raw tables name the release. They are found through the `.dvc` files of tags and branches, and in the
workspace and the worktrees of its runs; equal files are read once.
"""

from collections.abc import Iterator
from pathlib import Path

from headrace.maintenance.references import WORKSPACE, read_workspace_manifests, without_pruned
from headrace.storage import git
from headrace.storage.dvc.lock import pointer_outs
from headrace.storage.pruned_releases import RELEASE
from headrace.storage.released_inputs import ReleasedInput
from headrace.storage.table_store import TableStore

RAW = "data/raw"
TAGS = "refs/tags/"
REFS = (TAGS, "refs/heads/", "refs/remotes/")
"""Where releases and branches are; what a run keeps for itself is elsewhere."""


def find_readers(table_store: TableStore, dataset: str) -> dict[str, list[str]]:
    """Release of the dataset → names of the releases, other refs and workspace that read a table of it.

    Releases that were pruned do not count.
    """
    readers: dict[str, dict[str, None]] = {}
    for name, directory in _pointers(table_store.root, dataset):
        manifest = table_store.manifest_of_directory(directory)
        if manifest and (released := ReleasedInput.of_manifest(manifest)):
            readers.setdefault(released.release, {})[name] = None
    for manifest in read_workspace_manifests(table_store):
        if released := ReleasedInput.of_manifest(manifest):
            readers.setdefault(released.release, {})[WORKSPACE] = None
    return {release: sorted(names) for release, names in readers.items() if release.startswith(f"{dataset}/")}


def _pointers(root: Path, dataset: str) -> Iterator[tuple[str, str]]:
    """Name of a revision, and md5 of the list of files of a raw table in it that may be a table of the dataset."""
    refs = {**without_pruned(root, git.refs(root, *REFS)), "HEAD": git.head(root)}
    trees = {commit: git.tree(root, commit, RAW) for commit in {*refs.values()}}
    blobs: dict[str, dict[str, str]] = {}
    for name, commit in refs.items():
        for path, blob in trees[commit].items():
            if _may_read(path, name, dataset):
                blobs.setdefault(blob, {})[name.removeprefix(TAGS)] = path
    for blob, content in git.blobs(root, blobs):
        for name, path in blobs[blob].items():
            yield from ((name, str(out["md5"])) for out in pointer_outs(content, Path(path)))


def _may_read(path: str, ref: str, dataset: str) -> bool:
    """Whether a file may be the pointer of a table of the dataset; of a release, only tables of its own dataset are."""
    _, _, owner, name = path.split("/")
    release = RELEASE.fullmatch(ref.removeprefix(TAGS))
    is_own = release is None or not ref.startswith(TAGS) or release["dataset"] == owner
    return is_own and name.endswith(".dvc") and name.startswith(f"{dataset}__")
