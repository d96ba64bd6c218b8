"""Releases that were pruned: the tombstones that the release branch keeps of them.

The folder `releases/<dataset>/` of the release branch holds `pruned.json`, the ranges of the pruned numbers, and the
tombstones, 100 numbers per file: `1-100.jsonl`, one line each. To know whether a release was pruned costs one small
file, however many were. A tombstone counts for more than a tag: a clone may still have the tag, or push it again.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

import msgspec

from headrace.errors import HeadraceError
from headrace.settings import load_settings
from headrace.storage import git
from headrace.storage.partition_entry import ENCODER

FORMAT = 1
FOLDER = "releases"
NUMBERS_FILE = "pruned.json"
BLOCK = 100
"""Tombstones in one file: as many as a prune rewrites at most for one more."""

RELEASE = re.compile(r"(?P<dataset>[a-z][a-z0-9_]*)/(?P<number>[1-9][0-9]*)")


class PrunedReleaseError(HeadraceError):
    """The release was pruned: its tables are not available any more."""


class ReleasedTable(msgspec.Struct, frozen=True):
    """A table of a release.

    Attributes:
        directory: md5 of its directory object, `<md5>.dir`.
        manifest: md5 of the head of its manifest; None if it had none.
        rows: Its rows, as far as they were counted.
        bytes: Its bytes, manifest included.
    """

    directory: str
    manifest: str | None
    rows: int
    bytes: int


class TableTotals:
    """The sums over the tables of a release."""

    tables: Mapping[str, ReleasedTable]

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def bytes(self) -> int:
        """Bytes of all tables."""
        return sum(table.bytes for table in self.tables.values())


class Tombstone(TableTotals, msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a release that was pruned.

    Attributes:
        release: Its name.
        commit: The commit that its tag named. The commit stays in the history of the release branch.
        released_at: When it was released (UTC), in ISO 8601.
        tables: Table → what it was.
        reason: Why it was pruned.
        pruned_by: Name and address of who pruned it, as git knows them.
        pruned_at: When (UTC), in ISO 8601.
    """

    release: str
    commit: str
    released_at: str
    tables: Mapping[str, ReleasedTable]
    reason: str
    pruned_by: str
    pruned_at: str


class _Numbers(msgspec.Struct, frozen=True):
    pruned: tuple[tuple[int, int], ...]
    format: int = FORMAT


def release_number(release: str) -> int:
    """The number of a release."""
    return int(release.rpartition("/")[2])


def release_branch_tip(root: Path) -> str:
    """The tip of the release branch as the workspace has fetched it, else HEAD; empty before the first commit."""
    settings = load_settings(root)
    branch = settings.release_branch or settings.code_branch
    return git.resolve(root, f"refs/remotes/{git.REMOTE}/{branch}") or git.resolve(root, "HEAD")


def kept_releases(root: Path, dataset: str) -> list[str]:
    """The releases of `dataset` that the workspace has fetched, oldest first.

    A tag is a release if its name is `<dataset>/<number>`, its commit is on the release branch, and it was not pruned.
    """
    branch = release_branch_tip(root)
    if not branch:
        return []
    pruned = read_pruned_numbers(root, dataset, branch)
    tags = numbered_tags(git.tags(root, f"{dataset}/", branch), dataset)
    return [name for name in tags if release_number(name) not in pruned]


def numbered_tags(names: Iterable[str], dataset: str) -> list[str]:
    """Those of the tags that are called `<dataset>/<number>`, by number."""
    return sorted((name for name in names if re.fullmatch(rf"{dataset}/[1-9][0-9]*", name)), key=release_number)


def read_pruned_numbers(root: Path, dataset: str, commit: str | None = None) -> set[int]:
    """Numbers of the pruned releases of a dataset.

    Args:
        root: The workspace.
        dataset: Name of the dataset.
        commit: Commit of the release branch; by default its tip as it was fetched.
    """
    tip = release_branch_tip(root) if commit is None else commit
    content = git.show(root, tip, f"{FOLDER}/{dataset}/{NUMBERS_FILE}") if tip else None
    return _parse_numbers(content) if content else set()


def read_all_pruned(root: Path) -> set[str]:
    """Names of the pruned releases of all datasets."""
    tip = release_branch_tip(root)
    blobs = git.tree(root, tip, FOLDER) if tip else {}
    files = {blob: path.split("/")[1] for path, blob in blobs.items() if path.endswith(f"/{NUMBERS_FILE}")}
    numbers = {files[blob]: _parse_numbers(content) for blob, content in git.blobs(root, files)} if files else {}
    return {f"{dataset}/{number}" for dataset, pruned in numbers.items() for number in pruned}


def read_tombstones(root: Path, dataset: str, commit: str | None = None) -> dict[str, Tombstone]:
    """Release → tombstone, of every pruned release of a dataset, oldest first."""
    tip = release_branch_tip(root) if commit is None else commit
    blobs = git.tree(root, tip, f"{FOLDER}/{dataset}") if tip else {}
    wanted = [blob for path, blob in blobs.items() if path.endswith(".jsonl")]
    tombstones = [each for _, content in git.blobs(root, wanted) for each in _parse_tombstones(content)]
    return {each.release: each for each in sorted(tombstones, key=lambda each: release_number(each.release))}


def find_tombstone(root: Path, release: str) -> Tombstone | None:
    """The tombstone of a release; None if it was not pruned, or is not the name of a release."""
    named = RELEASE.fullmatch(release)
    if not named or release_number(release) not in read_pruned_numbers(root, named["dataset"]):
        return None
    path = f"{FOLDER}/{named['dataset']}/{_block_file(release_number(release))}"
    tombstones = _parse_tombstones(git.show(root, release_branch_tip(root), path) or b"")
    return next((each for each in tombstones if each.release == release), None)


def check_not_pruned(root: Path, release: str) -> None:
    """Refuse a release that was pruned.

    Raises:
        PrunedReleaseError: It was; the message says when, why, and what to use instead.
    """
    tombstone = find_tombstone(root, release)
    if tombstone is None:
        return
    dataset = release.partition("/")[0]
    raise PrunedReleaseError(
        f"{release} was pruned on {tombstone.pruned_at[:10]} by {tombstone.pruned_by}: {tombstone.reason}. It was"
        f" released on {tombstone.released_at[:10]} with {len(tombstone.tables)} tables and {tombstone.rows:,} rows."
        f" {_describe_neighbors(root, release)} `headrace releases {dataset}` lists all. While nobody has run `headrace"
        f" gc`, the tables are still there at its commit: `git switch --detach {tombstone.commit[:10]} && dvc pull`."
    )


def _describe_neighbors(root: Path, release: str) -> str:
    """The releases before and after one that are still there."""
    dataset, number = release.partition("/")[0], release_number(release)
    tags = (name.removeprefix("refs/tags/") for name in git.refs(root, f"refs/tags/{dataset}/"))
    pruned = read_pruned_numbers(root, dataset)
    there = {release_number(name) for name in tags if RELEASE.fullmatch(name)} - pruned
    before, after = max((n for n in there if n < number), default=0), min((n for n in there if n > number), default=0)
    nearest = [f"{dataset}/{n}" for n in (after, before) if n]
    return f"Use the nearest release that is kept: {' or '.join(nearest)}." if nearest else "No other release is here."


def tombstone_files(root: Path, commit: str, dataset: str, added: Iterable[Tombstone]) -> dict[str, bytes]:
    """Path → new content of the files of the release branch that change with more tombstones.

    Args:
        root: The workspace.
        commit: The tip of the release branch.
        dataset: Name of the dataset.
        added: The new tombstones.
    """
    folder = f"{FOLDER}/{dataset}"
    new = sorted(added, key=lambda each: release_number(each.release))
    files = {}
    for name, group in groupby(new, key=lambda each: _block_file(release_number(each.release))):
        there = _parse_tombstones(git.show(root, commit, f"{folder}/{name}") or b"")
        merged = {each.release: each for each in (*there, *group)}
        ordered = sorted(merged.values(), key=lambda each: release_number(each.release))
        files[f"{folder}/{name}"] = b"".join(ENCODER.encode(each) + b"\n" for each in ordered)
    numbers = read_pruned_numbers(root, dataset, commit) | {release_number(each.release) for each in new}
    files[f"{folder}/{NUMBERS_FILE}"] = ENCODER.encode(_Numbers(_ranges(numbers))) + b"\n"
    return files


def _block_file(number: int) -> str:
    first = (number - 1) // BLOCK * BLOCK + 1
    return f"{first}-{first + BLOCK - 1}.jsonl"


def _ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Runs of consecutive numbers, as first and last."""
    ordered = sorted(numbers)
    runs = groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])
    lists = [[number for _, number in run] for _, run in runs]
    return tuple((run[0], run[-1]) for run in lists)


def _parse_numbers(content: bytes) -> set[int]:
    numbers = _NUMBERS.decode(content)
    if numbers.format > FORMAT:
        raise HeadraceError(
            f"{FOLDER}/…/{NUMBERS_FILE}: expected format {FORMAT}, found {numbers.format}. A later version of Headrace"
            " wrote it: upgrade this environment."
        )
    return {number for first, last in numbers.pruned for number in range(first, last + 1)}


def _parse_tombstones(content: bytes) -> list[Tombstone]:
    return [_TOMBSTONE.decode(line) for line in content.splitlines()]


_NUMBERS = msgspec.json.Decoder(_Numbers)
_TOMBSTONE = msgspec.json.Decoder(Tombstone)
