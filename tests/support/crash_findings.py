"""Crash cases of the record of findings: a refusal, an acceptance, a release that forgets both, a damaged record."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crash_harness import State
from minimal_dataset import create_table_store
from msgspec import structs
from workspaces import git

from headrace.guards.finding import FindingRecord, GuardFinding, record_file
from headrace.guards.finding_log import FileLog, FindingLog, RefLog
from headrace.guards.gate import FindingsError, accept_finding, enforce
from headrace.maintenance.damaged_files import find_damaged_files, repair_file
from headrace.maintenance.repair import QUARANTINE
from headrace.storage.git_refs import RemoteRefs

Step = Literal["refuse", "accept", "forget", "repair"]
Place = Literal["workspace", "git"]
REF = "refs/headrace/runs/tiny/r1/findings"
FOUND = GuardFinding(check="vanished", table="raw/tiny/sales", state_hash="0" * 12, text="29 of 30 partitions")
DAMAGED = b"[1,2]"


@dataclass(frozen=True)
class FindingsCase:
    """A workspace, and its git remote beside it."""

    root: Path
    step: Step
    place: Place

    @property
    def log(self) -> FindingLog:
        """Where the record is."""
        if self.place == "git":
            return RefLog(self.root / "clone", RemoteRefs(self.root / "clone"), REF)
        return FileLog(create_table_store(self.root / "clone"), "tiny")

    def run(self) -> None:
        match self.step:
            case "refuse":
                self.refuse()
            case "accept":
                accept_finding(self.log, FOUND.id, by="ann", reason="moved")
            case "forget":
                self.log.update(lambda record: record.without({FOUND.id}))
            case "repair":
                for damaged in find_damaged_files(self.root / "clone"):
                    repair_file(self.root / "clone", damaged)
                self.refuse()

    def refuse(self) -> None:
        """A step with the finding, which nobody has accepted."""
        store = create_table_store(self.root / "clone")
        with suppress(FindingsError):
            enforce([FOUND], dataset="tiny", step="ingest", tables=[FOUND.table], table_store=store,
                    consequence="", log=self.log)  # fmt: skip

    def read_visible_state(self) -> State:
        """The record, less the time of its acceptance; of the damaged one, nothing: it is put aside, or it is there."""
        path, kept = (self.root / "clone" / name for name in (record_file(Path(), "tiny"), QUARANTINE))
        if self.step == "repair" and path.exists() and path.read_bytes() == DAMAGED:
            return {"record": DAMAGED}
        if self.step == "repair":
            assert [each.read_bytes() for each in kept.rglob("*.json")] == [DAMAGED]
            if not path.exists():
                return {"record": DAMAGED}  # moved: the next run finds again what there is
        record = self.log.read()
        accepted = tuple(structs.replace(each, at="") for each in record.acceptances)
        return {"record": repr(FindingRecord(record.findings, accepted))}

    def read_final_state(self) -> State:
        return self.read_visible_state()


@dataclass(frozen=True)
class FindingsScenario:
    """What each step begins with."""

    template: FindingsCase

    def prepare(self) -> None:
        case = self.template
        (case.root / "clone").mkdir(parents=True)
        git(case.root, "init", "--quiet", "--bare", "origin.git")
        git(case.root / "clone", "init", "--quiet")
        git(case.root / "clone", "remote", "add", "origin", "../origin.git")
        if case.step in ("accept", "forget"):
            case.refuse()
        if case.step == "forget":
            accept_finding(case.log, FOUND.id, by="ann", reason="moved")
        if case.step == "repair":
            path = record_file(case.root / "clone", "tiny")
            path.parent.mkdir(parents=True)
            path.write_bytes(DAMAGED)

    def new_case(self, name: str) -> FindingsCase:
        root = self.template.root.with_name(name)
        shutil.copytree(self.template.root, root, symlinks=True)
        return FindingsCase(root, self.template.step, self.template.place)

    def remove_case(self, name: str) -> None:
        shutil.rmtree(self.template.root.with_name(name))


def scenario(folder: Path, step: Step, place: Place) -> FindingsScenario:
    """The crash scenario of one step on the record in one place."""
    return FindingsScenario(FindingsCase(folder / "template", step, place))
