"""Where the findings and acceptances of a dataset are kept between the step that found them and its next attempt.

A run keeps them in git, in its ref `findings`, where every machine of the run reads and changes them by
compare-and-swap. A workspace keeps them in a file. What is found by a publish, which belongs to no run, is kept in git
for all machines (`<namespace>-findings/<dataset>/publish`), if the workspace has a git remote.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from headrace import failpoints
from headrace.errors import HeadraceError
from headrace.guards.finding import FindingRecord, record_file
from headrace.settings import Settings, load_settings
from headrace.storage import git, git_commits
from headrace.storage.files import atomic_write
from headrace.storage.git_refs import LocalRefs, RefChange, RefMovedError, RefStore, RemoteRefs
from headrace.storage.locks import wait_for_lock
from headrace.storage.partition_entry import ENCODER
from headrace.storage.table_store import TableStore

FILE = "findings.json"
FINDINGS = "findings"
"""The last part of the name of a run's ref."""

PUBLISH = ""
"""Stands for the record of the publish, which belongs to no run."""

SWAPS = 20
"""Attempts to change a ref that others change at the same time."""

Change = Callable[[FindingRecord], FindingRecord]


class DamagedFindingsError(HeadraceError):
    """The record of findings cannot be read."""


class FindingLog(Protocol):
    """The findings and acceptances of one dataset."""

    @property
    def is_shared(self) -> bool:
        """Whether other machines read it."""

    def read(self) -> FindingRecord:
        """What is recorded."""

    def update(self, change: Change) -> FindingRecord:
        """Change the record, atomically; `change` may be called several times. Returns what is recorded afterwards."""


@dataclass(frozen=True)
class FileLog:
    """The record in a file of the workspace.

    Attributes:
        table_store: The workspace.
        dataset: Name of the dataset.
    """

    table_store: TableStore
    dataset: str

    @property
    def is_shared(self) -> bool:
        return False

    @property
    def path(self) -> Path:
        """The file."""
        return record_file(self.table_store.root, self.dataset)

    def read(self) -> FindingRecord:
        """What is recorded."""
        return read_record(self.table_store.root, self.dataset)

    def update(self, change: Change) -> FindingRecord:
        """Change the record under a lock of the workspace."""
        with wait_for_lock(self.table_store, f"findings/{self.dataset}"):
            before = self.read()
            after = change(before)
            if after == FindingRecord():
                with failpoints.failpoint("record of findings"):
                    self.path.unlink(missing_ok=True)
            elif after != before:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self.path, _encode(after))
        return after


@dataclass(frozen=True)
class RefLog:
    """The record in a git ref.

    Attributes:
        root: The clone.
        store: Where the ref is.
        ref: Its full name.
    """

    root: Path
    store: RefStore
    ref: str

    @property
    def is_shared(self) -> bool:
        return True

    def read(self) -> FindingRecord:
        """What is recorded; nothing if there is no such ref."""
        return self._read()[1]

    def _read(self) -> tuple[str, FindingRecord]:
        commit = self.store.match(self.ref).get(self.ref, "")
        return commit, _read_commit(self.root, commit, self.ref)

    def update(self, change: Change) -> FindingRecord:
        """Change the record by compare-and-swap.

        Raises:
            RefMovedError: Others changed it every time.
        """
        for attempt in range(SWAPS):
            commit, before = self._read()
            after = change(before)
            if after == before:
                return after
            new = ""
            if after != FindingRecord():
                parents = [commit] if commit else []
                new = git_commits.build_commit(self.root, parents, "", {FILE: _encode(after)}, "Record findings")
            try:
                self.store.swap({self.ref: RefChange(commit, new)})
            except RefMovedError:
                if attempt == SWAPS - 1:
                    raise
            else:
                return after
        raise AssertionError  # the last attempt returns or raises


def read_record(root: Path, dataset: str) -> FindingRecord:
    """What the file of a workspace records.

    Raises:
        DamagedFindingsError: The file is not what was written.
    """
    path = record_file(root, dataset)
    try:
        return _parse(path.read_bytes(), str(path), "`headrace doctor --repair` puts it aside")
    except FileNotFoundError:
        return FindingRecord()


def open_finding_log(table_store: TableStore, dataset: str) -> FindingLog:
    """The record that a step on these tables uses: that of their run, else that of the workspace."""
    if table_store.findings_ref:
        return RefLog(table_store.root, _ref_store(table_store.root), table_store.findings_ref)
    return FileLog(table_store, dataset)


def open_publish_log(table_store: TableStore, dataset: str) -> FindingLog:
    """The record that a publish uses: on the git remote, for every machine; in the workspace if it has no remote."""
    if not git.has_remote(table_store.root):
        return FileLog(table_store, dataset)
    settings = load_settings(table_store.root)
    return RefLog(table_store.root, _ref_store(table_store.root), _publish_ref(settings, dataset))


def read_shared_records(table_store: TableStore, dataset: str) -> Mapping[str, FindingRecord]:
    """What is recorded in git: name of a run → its record, and `PUBLISH` → that of the publish, which has no run.

    One question to the git remote, where there is one.

    Raises:
        GitUnavailableError: The remote does not answer.
    """
    root, settings = table_store.root, load_settings(table_store.root)
    if settings.push_runs and not git.has_remote(root):
        return {}
    publish, runs = _publish_ref(settings, dataset), f"{settings.run_refs}/{dataset}"
    refs = _ref_store(root).match(publish, f"{runs}/*/{FINDINGS}")
    names = {ref: ref.removeprefix(f"{runs}/").removesuffix(f"/{FINDINGS}") for ref in sorted(refs)}
    return {
        PUBLISH if ref == publish else name: _read_commit(root, refs[ref], ref)
        for ref, name in names.items()
        if ref == publish or "/" not in name  # else it is a table of that name
    }


def _read_commit(root: Path, commit: str, ref: str) -> FindingRecord:
    content = git.show(root, commit, FILE) if commit else None
    if content is None:
        return FindingRecord()
    delete = f"push {git.REMOTE} :{ref}" if load_settings(root).push_runs else f"update-ref -d {ref}"
    return _parse(content, ref, f"Delete it: `git {delete}`")


def _publish_ref(settings: Settings, dataset: str) -> str:
    return f"{settings.run_refs}-findings/{dataset}/publish"


def _ref_store(root: Path) -> RefStore:
    return RemoteRefs(root) if load_settings(root).push_runs else LocalRefs(root)


def _encode(record: FindingRecord) -> bytes:
    return msgspec.json.format(ENCODER.encode(record), indent=1) + b"\n"


def _parse(content: bytes, location: str, fix: str) -> FindingRecord:
    try:
        return _RECORD.decode(content)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamagedFindingsError(
            f"{location}: expected the findings and acceptances of a dataset, found {error}. {fix}. Then the next run"
            " finds again what there is, and what was accepted must be accepted again."
        ) from None


_RECORD = msgspec.json.Decoder(FindingRecord)
