"""Run refs: what a run has made so far, in git.

`<namespace>/<dataset>/<run>/start` names the commit that the run works on. `<namespace>/<dataset>/<run>/<table>` names
a commit whose tree holds the table's `.dvc` file, and whose parent is the commit before it: the start, or the table's
own. `<namespace>/<dataset>/<run>/findings` names what guards found and what was accepted. All of them together are the
state of the run. Each is changed by compare-and-swap only, so no task can overwrite what another has written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.guards.finding_log import FINDINGS
from headrace.settings import Settings
from headrace.storage import git, git_commits
from headrace.storage.dvc.lock import pointer_file, recorded_outs
from headrace.storage.git_refs import LocalRefs, RefChange, RefStore, RemoteRefs

START = "start"
REF = re.compile(r"(?P<dataset>[^/]+)/(?P<run>[^/]+)/(?P<what>.+)")


@dataclass(frozen=True)
class RunState:
    """A run: where it started, and its tables.

    Attributes:
        dataset: The dataset.
        name: The run.
        start: The commit that it works on; empty if its ref is gone and tables are left over.
        tables: Table → commit with its output entry.
        outdated: The same of tables that were made from an earlier start. They do not count, and end with the run.
        findings: The commit with its findings and acceptances; empty if there are none.
    """

    dataset: str
    name: str
    start: str
    tables: Mapping[str, str] = field(default_factory=dict)
    outdated: Mapping[str, str] = field(default_factory=dict)
    findings: str = ""

    def commit(self, table: str) -> str:
        """The commit of a table's ref, whether it counts or not; empty if there is none."""
        return self.tables.get(table) or self.outdated.get(table, "")


@dataclass(frozen=True)
class RunRefs:
    """The refs of all runs.

    Attributes:
        root: The clone, which gets the objects.
        store: Where the refs are.
        namespace: What all their names begin with.
    """

    root: Path
    store: RefStore
    namespace: str

    @classmethod
    def configured(cls, root: Path, settings: Settings) -> "RunRefs":
        """Those of the settings: on the git remote, or in the clone where runs are not pushed."""
        return cls.pushed(root, settings) if settings.push_runs else cls.local(root, settings)

    @classmethod
    def pushed(cls, root: Path, settings: Settings) -> "RunRefs":
        """Those on the git remote."""
        return cls(root, RemoteRefs(root), settings.run_refs)

    @classmethod
    def local(cls, root: Path, settings: Settings) -> "RunRefs":
        """Those in the clone."""
        return cls(root, LocalRefs(root), settings.run_refs)

    @property
    def is_pushed(self) -> bool:
        """Whether other machines see them."""
        return isinstance(self.store, RemoteRefs)

    def ref(self, dataset: str, run: str, what: str = START) -> str:
        """Full name of the ref of a table, or of the start."""
        return f"{self.namespace}/{dataset}/{run}/{what}"

    def refs(self, state: RunState) -> dict[str, str]:
        """Full name → commit of every ref of a run."""
        found = {START: state.start, FINDINGS: state.findings, **state.outdated, **state.tables}
        return {self.ref(state.dataset, state.name, what): commit for what, commit in found.items() if commit}

    def list(self, dataset: str = "") -> list[RunState]:
        """Every run of a dataset, or of all, sorted by name."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for name, commit in self.store.read(f"{self.namespace}/{dataset}".rstrip("/")).items():
            if hit := REF.fullmatch(name.removeprefix(f"{self.namespace}/")):
                found.setdefault((hit["dataset"], hit["run"]), {})[hit["what"]] = commit
        return [self._state(*run, commits) for run, commits in sorted(found.items())]

    def find(self, dataset: str, run: str) -> RunState | None:
        """A run; None if it has not started, or has ended."""
        return next((state for state in self.list(dataset) if state.name == run), None)

    def _state(self, dataset: str, run: str, commits: dict[str, str]) -> RunState:
        start, findings = commits.pop(START, ""), commits.pop(FINDINGS, "")
        counts = {what for what, commit in commits.items() if start and git.is_ancestor(self.root, start, commit)}
        return RunState(
            dataset,
            run,
            start,
            {table: commit for table, commit in commits.items() if table in counts},
            {table: commit for table, commit in commits.items() if table not in counts},
            findings,
        )

    def outs(self, state: RunState) -> dict[str, dict[str, Any]]:
        """Path → output entry of every table of a run."""
        outs: dict[str, dict[str, Any]] = {}
        for commit in state.tables.values():
            outs |= recorded_outs(self.root, commit)
        return outs

    def write_tables(self, state: RunState, outs: Mapping[str, Mapping[str, Any]]) -> RunState:
        """Add output entries (path → entry) to a run, all of them or none; the state afterwards.

        Raises:
            RefMovedError: Another task has written one of the tables since `state` was read, or the run has ended.
        """
        commits = self.commit_tables(state, outs)
        changes = {
            self.ref(state.dataset, state.name, table): RefChange(state.commit(table), commit)
            for table, commit in commits.items()
        }
        # git only compares the start, since it stays: tables of a run that ended meanwhile are not written.
        start = {self.ref(state.dataset, state.name): RefChange(state.start, state.start)}
        self.store.swap({**start, **changes})
        outdated = {table: commit for table, commit in state.outdated.items() if table not in commits}
        return replace(state, tables={**state.tables, **commits}, outdated=outdated)

    def commit_tables(self, state: RunState, outs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Table → a new commit with its output entry, which continues `state`; no ref names it yet."""
        return {path.removeprefix("data/"): self._commit_table(state, path, out) for path, out in outs.items()}

    def _commit_table(self, state: RunState, path: str, out: Mapping[str, Any]) -> str:
        table = path.removeprefix("data/")
        parent = state.tables.get(table, state.start)
        files = dict([pointer_file({**out, "path": path})])
        return git_commits.build_commit(self.root, [parent], "", files, f"{state.name}: {table}")

    def end(self, state: RunState) -> None:
        """Delete every ref of a run.

        Raises:
            RefMovedError: A task has written one meanwhile.
        """
        if refs := self.refs(state):
            self.store.swap({name: RefChange(commit, "") for name, commit in refs.items()})

    def last_written(self, state: RunState) -> datetime:
        """When the run started or, later, wrote a table."""
        lines = git.git(self.root, "show", "--no-patch", "--format=%ct", *self.refs(state).values()).splitlines()
        return datetime.fromtimestamp(max(int(line) for line in lines), UTC)
