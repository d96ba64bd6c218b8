"""The release commit: built on the tip of the release branch, compared with what others released, pushed atomically.

No working tree is touched. A push that loses the race is built again on the new tip, a bounded number of times.
"""

import logging
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from headrace.errors import HeadraceError, TransientError
from headrace.release.branches import Branches
from headrace.release.records import DatasetRecords, Records
from headrace.release.retired_tables import retired_datasets
from headrace.storage import git, git_commits, git_remote, pruned_releases

T = TypeVar("T")

log = logging.getLogger(__name__)

ATTEMPTS = 60
"""Pushes before a release gives up; it never comes first while others push as often as a commit can be built."""

LONGEST_WAIT_S = 2.0


class ReleasedMeanwhileError(TransientError):
    """Somebody else has released the dataset since this run began.

    Attributes:
        found: What was found, without the command to run next.
    """

    def __init__(self, found: str, next_step: str) -> None:
        super().__init__(f"{found} {next_step}")
        self.found = found


class HistoryGrewError(ReleasedMeanwhileError):
    """Somebody else has released annotations since, and nothing else that this run does not know.

    Attributes:
        commit: The commit whose histories are to be merged.
    """

    def __init__(self, found: str, next_step: str, commit: str) -> None:
        super().__init__(found, next_step)
        self.commit = commit


class NoCodeBranchError(HeadraceError):
    """The git remote does not have the code branch."""


@dataclass(frozen=True)
class BranchTips:
    """Where a release is built.

    Attributes:
        code: Tip of the code branch.
        release: Tip of the release branch; empty if the remote does not have it yet.
    """

    code: str
    release: str

    @classmethod
    def of(cls, remote_refs: Mapping[str, str], branches: Branches) -> "BranchTips":
        """Those of the remote.

        Raises:
            NoCodeBranchError: There is no code branch.
        """
        code = remote_refs.get(f"refs/heads/{branches.code}")
        if not code:
            raise NoCodeBranchError(
                f"{git.REMOTE} has no branch {branches.code!r}: a release names committed code there. Push the code"
                f" first: `git push {git.REMOTE} HEAD:{branches.code}`; HEADRACE_CODE_BRANCH names another branch."
            )
        return cls(code, remote_refs.get(f"refs/heads/{branches.release}", ""))

    @property
    def parents(self) -> list[str]:
        """The parents of a release commit: the last release and, on another branch, the code."""
        return list(dict.fromkeys(commit for commit in (self.release, self.code) if commit))


@dataclass(frozen=True)
class StartingPoint:
    """What a run started from, which the release may replace.

    Attributes:
        head: What HEAD records: the base for what hand-written stages recorded.
        raw: Releases that the raw tables here are newer than.
        histories: Releases whose annotations and histories of database tables the tables here contain.
        history_tables: Raw tables that are histories.
    """

    head: Records
    raw: Sequence[Records]
    histories: Sequence[Records]
    history_tables: Collection[str] = ()


def build_release(root: Path, tips: BranchTips, own: DatasetRecords, start: StartingPoint, message: str) -> str:
    """Build a commit that records `own`; the tip of the release branch if it records that already.

    Args:
        root: The workspace.
        tips: Where it is built.
        own: What was audited.
        start: What the run started from.
        message: The commit's message.

    Raises:
        ReleasedMeanwhileError: The branch has other raw tables of the dataset than the run started from.
        HistoryGrewError: It has other annotations.
    """
    code = Records.at_commit(root, tips.code)
    last = Records.at_commit(root, tips.release) if tips.release not in ("", tips.code) else code
    merged = merge_hand_written(own, last, start.head)
    check_input_tables(own, last, start, tips.release)
    on_code = code if tips.code == tips.release else code.with_stages_of(last)
    on_code = on_code.without(retired_datasets(root, tips.code))
    wanted = on_code.with_dataset(merged)
    if tips.release and not wanted.changed_files(last):
        return tips.release
    files, tombstones = wanted.changed_files(code), _tombstones_to_carry(root, tips)
    return git_commits.build_commit(root, tips.parents, tips.code, files, message, carried=tombstones)


def _tombstones_to_carry(root: Path, tips: BranchTips) -> dict[str, str]:
    """Path → blob of what the release branch, where it is not the code branch, keeps of pruned releases."""
    return git.tree(root, tips.release, pruned_releases.FOLDER) if tips.release not in ("", tips.code) else {}


def check_input_tables(own: DatasetRecords, last: Records, start: StartingPoint, commit: str) -> None:
    """The three-way check: what the branch has is what the run started from, or what the run has itself.

    Tables that stages compute need none: they follow from these tables and from the code, which was compared before.

    Args:
        own: What was audited.
        last: What the tip of the release branch records.
        start: What the run started from.
        commit: That tip.

    Raises:
        ReleasedMeanwhileError: Raw tables differ: those of the branch may come from a later look at the source.
        HistoryGrewError: Only annotations and histories of database tables differ. They can be merged.
    """
    ours = own.input_tables
    raw: list[str] = []
    histories: list[str] = []
    for table, md5 in last.input_tables(own.dataset).items():
        is_history = table.startswith("annotations/") or table in start.history_tables
        known = start.histories if is_history else start.raw
        if md5 not in (ours.get(table), *(records.input_tables(own.dataset).get(table) for records in known)):
            (histories if is_history else raw).append(table)
    if raw:
        raise ReleasedMeanwhileError(
            f"{own.dataset}: expected {', '.join(raw)} on the release branch as it was when the source was listed here,"
            f" found another. Somebody released {own.dataset} meanwhile, and that release may have newer data.",
            f"Nothing was released. `headrace run {own.dataset} --release` reads the source again.",
        )
    if histories:
        raise HistoryGrewError(
            f"{own.dataset}: {', '.join(histories)} on the release branch had other rows each time they were merged.",
            f"Nothing was released. Run `headrace release {own.dataset}` again.",
            commit,
        )


def merge_hand_written(own: DatasetRecords, theirs: Records, base: Records) -> DatasetRecords:
    """Take what hand-written stages recorded from who changed it since `base`.

    Raises:
        ReleasedMeanwhileError: Both sides changed the same.
    """
    before, there = base.hand_written(own.dataset), theirs.hand_written(own.dataset)
    merged: dict[str, Any] = {}
    for name in sorted({*own.hand_written, *there}):
        mine, other = own.hand_written.get(name, before.get(name)), there.get(name)
        if mine != other and before.get(name) not in (mine, other):
            raise ReleasedMeanwhileError(
                f"{own.dataset}: {name} was recorded here and, otherwise, on the release branch.",
                "Nothing was released. Run `git stash`, `git pull --rebase`, `git stash drop`, then `dvc repro` and the"
                " release again.",
            )
        chosen = other if mine == before.get(name) else mine
        if chosen is not None:
            merged[name] = chosen
    return replace(own, hand_written=merged)


def retry_races(attempt: Callable[[], T], root: Path) -> T:
    """What `attempt` returns, tried again where another push came first.

    Raises:
        StaleReleaseError: Others came first every time.
    """
    for wait in _waits():
        try:
            return attempt()
        except git_remote.StaleReleaseError as error:
            log.debug("the release is built again in %.2f s: %s", wait, error)
            time.sleep(wait)
    raise git_remote.StaleReleaseError(
        f"{root}: the release branch moved {ATTEMPTS} times while the release was built; nothing was pushed. Run the"
        " same command again."
    )


def _waits() -> Iterator[float]:
    """Seconds between attempts: random, so that those who met do not meet again, and longer each time."""
    for attempt in range(ATTEMPTS):
        yield random.uniform(0, min(LONGEST_WAIT_S, 0.05 * 1.5**attempt))  # noqa: S311  no secret
