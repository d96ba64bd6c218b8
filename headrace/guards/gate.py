"""The gate of a step: findings refuse it until each is accepted."""

import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from headrace.errors import HeadraceError
from headrace.guards.finding import Acceptance, FindingRecord, GuardFinding, record_file
from headrace.storage import git
from headrace.storage.table_store import TableStore

if TYPE_CHECKING:
    from headrace.guards.finding_log import FindingLog

SHOWN = 5
"""Findings that a message names; `headrace status` shows all."""


class FindingsError(HeadraceError):
    """A step was refused: it has findings that nobody has accepted.

    Attributes:
        findings: These findings.
        consequence: What refusing means.
    """

    def __init__(self, dataset: str, findings: Sequence[GuardFinding], consequence: str) -> None:
        self.dataset = dataset
        self.findings = tuple(findings)
        self.consequence = consequence
        shown = "; ".join(finding.text for finding in findings[:SHOWN])
        more = f"; and {len(findings) - SHOWN:,} more, which `headrace status {dataset}` shows" * (
            len(findings) > SHOWN
        )
        ids = " ".join(shlex.quote(finding.id) for finding in findings)
        super().__init__(
            f"{shown}{more}. {consequence} Find out why. If it is intended, run `headrace accept {dataset} {ids}"
            ' --reason "…"`, and then the same command again.'
        )

    def details(self) -> dict[str, Any]:
        """The dataset, its findings and what refusing means."""
        findings = [finding.to_dict() for finding in self.findings]
        return {"dataset": self.dataset, "findings": findings, "consequence": self.consequence}


class UnknownFindingError(HeadraceError):
    """No step has such a finding."""


@dataclass(frozen=True)
class AcceptResult:
    """What became of a finding that was to be accepted.

    Attributes:
        acceptance: The acceptance that counts.
        is_new: Whether it was recorded now; False if somebody had accepted the finding before.
    """

    acceptance: Acceptance
    is_new: bool


def enforce(  # noqa: PLR0913  what a step knows of its findings
    findings: Sequence[GuardFinding],
    *,
    dataset: str,
    step: str,
    tables: Collection[str],
    table_store: TableStore,
    consequence: str,
    log: "FindingLog | None" = None,
    earlier: Iterable[Acceptance] = (),
) -> list[Acceptance]:
    """Let a step go on if each of its findings at level `error` was accepted; otherwise record them, and refuse it.

    Call it when the step knows what it would show, and before it shows anything. Without findings, and with none
    recorded, it costs the look for one file.

    Args:
        findings: What the step finds about `tables`; it replaces what the step found there before.
        dataset: Name of the dataset.
        step: The command, for example `ingest`.
        tables: The tables that the step has checked.
        table_store: The tables of the step: its run or workspace keeps the record.
        consequence: What refusing means, as a sentence: `The table stays as it was.`
        log: Where the record is kept, if elsewhere.
        earlier: Acceptances that count beside those of the record, for example those of the release.

    Returns:
        The acceptances of the findings, for the record of the step.

    Raises:
        FindingsError: A finding was not accepted. The message says how to accept it.
    """
    if not (findings or log or has_record(table_store, dataset)):
        return []
    from headrace.guards.finding_log import open_finding_log  # noqa: PLC0415  most steps have nothing to look up

    log = log or open_finding_log(table_store, dataset)
    found, checked = [structs.replace(finding, step=step) for finding in findings], set(tables)

    def replace_findings(record: FindingRecord) -> FindingRecord:
        kept = (each for each in record.findings if (each.step, each.table in checked) != (step, True))
        return FindingRecord((*kept, *found), record.acceptances)

    record = log.read()
    known = FindingRecord(acceptances=(*earlier, *record.acceptances)).accepted(found)
    accepted = {each.finding for each in known}
    refused = [each for each in found if each.level == "error" and each.id not in accepted]
    if refused or not log.is_shared:  # a ref that moves while its run is released would refuse the release
        log.update(replace_findings)
    if refused:
        raise FindingsError(dataset, refused, consequence)
    return known


def has_record(table_store: TableStore, dataset: str) -> bool:
    """Whether findings or acceptances are recorded in the run or the workspace, as it was when the task began."""
    return table_store.has_findings if table_store.findings_ref else record_file(table_store.root, dataset).exists()


def accept_finding(log: "FindingLog", finding: str, *, by: str, reason: str) -> AcceptResult:
    """Accept a finding. The first acceptance counts: a second one changes nothing.

    Raises:
        UnknownFindingError: The log has no such finding.
    """
    made: list[Acceptance] = []

    def accept(record: FindingRecord) -> FindingRecord:
        made.clear()
        if any(each.finding == finding for each in record.acceptances):
            return record
        check_known(record, finding)
        found = next(each for each in record.findings if each.id == finding)
        made.append(_acceptance(found, by, reason))
        return FindingRecord(record.findings, (*record.acceptances, *made))

    record = log.update(accept)
    counts = next(each for each in record.acceptances if each.finding == finding)
    return AcceptResult(counts, is_new=counts in made)


def check_known(record: FindingRecord, finding: str) -> None:
    """Raise unless a step has such a finding, or had it and it was accepted.

    Raises:
        UnknownFindingError: The record has no such finding.
    """
    known = {*(each.id for each in record.findings), *(each.finding for each in record.acceptances)}
    if finding not in known:
        raise UnknownFindingError(_describe_unknown(finding, record))


def accepting_person(root: Path) -> str:
    """Who accepts in this process: the author that git names in the workspace; without one, the user."""
    name, address = (git.config_value(root, f"user.{part}") for part in ("name", "email"))
    return f"{name} <{address}>" if name and address else name or address or getuser()


def _acceptance(finding: GuardFinding, by: str, reason: str) -> Acceptance:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Acceptance(finding=finding.id, text=finding.text, by=by, at=now, reason=reason)


def _describe_unknown(finding: str, record: FindingRecord) -> str:
    place = finding.rpartition("@")[0]
    same_place = [each.id for each in record.open if place and each.id.startswith(f"{place}@")]
    if same_place:
        return f"{finding}: expected the finding as it is now, {same_place[0]}: the bytes have changed since."
    ids = [each.id for each in record.open]
    found = f"{', '.join(ids[:SHOWN])}{' …' * (len(ids) > SHOWN)}" or "none"
    return f"{finding}: expected a finding that a step was refused for, found {found}."
