"""The branches of the git remote that releases are made from and pushed to, and the tags there that are releases."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import HeadraceError
from headrace.settings import load_settings
from headrace.storage import git
from headrace.storage.pruned_releases import kept_releases, numbered_tags, read_pruned_numbers, release_number
from headrace.storage.table_store import TableStore


@dataclass(frozen=True)
class Branches:
    """Names of branches on the git remote; both are one unless the code branch is protected.

    Attributes:
        code: The branch with the code that releases are made with.
        release: The branch that releases are pushed to.
    """

    code: str
    release: str

    @classmethod
    def configured(cls, root: Path) -> "Branches":
        """Those that the settings of the workspace `root` name."""
        settings = load_settings(root)
        return cls(settings.code_branch, settings.release_branch or settings.code_branch)


def list_releases(table_store: TableStore, dataset: str) -> list[str]:
    """The releases of `dataset` that the workspace has fetched and that were not pruned, oldest first."""
    return kept_releases(table_store.root, dataset)


def latest_local_release(table_store: TableStore, dataset: str) -> str:
    """The latest release that the workspace has fetched.

    Raises:
        HeadraceError: There is none.
    """
    releases = list_releases(table_store, dataset)
    if not releases:
        raise HeadraceError(
            f"{dataset} has no release in {table_store.root}. `headrace release {dataset}` creates the first one."
        )
    return releases[-1]


def latest_release(root: Path, dataset: str, remote_refs: Mapping[str, str], branch_tip: str) -> str:
    """The latest of the remote's releases of `dataset`, all on the branch with this tip; empty if there is none."""
    pruned = read_pruned_numbers(root, dataset, branch_tip)
    for name in reversed(numbered_tags(_tag_names(remote_refs), dataset)):
        is_on_branch = branch_tip and git.is_ancestor(root, remote_refs[f"refs/tags/{name}"], branch_tip)
        if is_on_branch and release_number(name) not in pruned:
            return name
    return ""


def next_release(root: Path, dataset: str, remote_refs: Mapping[str, str], branch_tip: str) -> str:
    """The name of the next release: a number that no tag has, whether that is a release or not, and no tombstone."""
    tags = numbered_tags(_tag_names(remote_refs), dataset)
    taken = {0, *map(release_number, tags), *read_pruned_numbers(root, dataset, branch_tip)}
    return f"{dataset}/{max(taken) + 1}"


def _tag_names(remote_refs: Iterable[str]) -> list[str]:
    return [name.removeprefix("refs/tags/") for name in remote_refs if name.startswith("refs/tags/")]
