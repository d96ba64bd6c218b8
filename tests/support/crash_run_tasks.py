"""Crash case of an isolated run: its start, its tasks and its release, on a real git origin and S3 remote."""

from dataclasses import dataclass
from pathlib import Path

import minimal_dataset
from crash_harness import State
from crash_release import CopiedWorkspaceScenario, ReleaseCase, assert_tagged_objects_on_remote
from crash_state import hash_files
from release_clones import Clone
from run_clones import RunOfClone, days
from workspaces import git

from headrace.storage.git_remote import fetch


@dataclass(frozen=True)
class RunCase(ReleaseCase):
    """A run of three tasks and a release, in a clone that shows no tables."""

    @property
    def run_in_clone(self) -> RunOfClone:
        """The run."""
        return RunOfClone(Clone(self.root), minimal_dataset.DATASET, "r1")

    def configure(self) -> None:
        """Point the clone at its own origin, too: a worktree cannot use a relative path."""
        super().configure()
        git(self.root, "remote", "set-url", "origin", str(self.folder / "origin.git"))

    def run(self) -> None:
        run = self.run_in_clone
        run.ingest(days(2, 3, amount=7))
        run.compute("validate")
        run.compute("transform")
        run.release()

    def read_visible_state(self) -> State:
        """Every object of a tag, and of what the run has recorded so far, is on the remote."""
        fetch(self.root)
        tags = git(self.root, "tag", "--list").split()
        state = self.run_in_clone.state
        assert_tagged_objects_on_remote(self, [*tags, *(state.tables.values() if state else ())])
        return {"origin": self.read_origin()}

    def read_final_state(self) -> State:
        """One more release, nothing of the run left, and a clone that has followed."""
        left = git(self.folder, "--git-dir", "origin.git", "for-each-ref", "refs/headrace")
        worktrees = [path.name for path in (self.root / ".headrace/runs").glob("*/*")]
        followed = git(self.root, "rev-parse", "HEAD") == git(self.root, "rev-parse", "origin/main")
        place = {"refs": left, "worktrees": (worktrees, git(self.root, "worktree", "list").count("\n")), "ff": followed}
        return {**hash_files(self.root, "data"), **place, "origin": self.read_origin()}


@dataclass(frozen=True)
class RunScenario(CopiedWorkspaceScenario):
    """One day is released by a run; then two days arrive, and another run begins."""

    template: RunCase

    def prepare(self) -> None:
        self.template.create()
        run = self.template.run_in_clone
        run.ingest(days(1, 2))
        run.compute("validate", "transform")
        run.release()


def scenario(folder: Path, remote: dict[str, str], commit: str) -> RunScenario:
    """The crash scenario of a run."""
    return RunScenario(RunCase(folder / "template", remote, commit))
