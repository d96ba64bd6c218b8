"""Findings and acceptances, as they are stored.

A check is a name and a function that returns findings; a finding says itself what it is about. New checks need nothing
here: `enforce` takes whatever findings a step has.
"""

import hashlib
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import structs


class GuardFinding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a check found in a table or in one of its partitions.

    Attributes:
        check: Name of the check, for example `vanished`.
        table: The table, `<state>/<dataset>/<name>`.
        partition: The partition; empty if the table as a whole is meant.
        state_hash: Hash of the bytes that were found (`hash_state`): other bytes are another finding.
        text: What was found, expected and where: one sentence without its period.
        level: `error` refuses the step until it is accepted; `warning` is only shown.
        step: The command that found it, for example `ingest`.
    """

    check: str
    table: str
    state_hash: str
    text: str
    partition: str = ""
    level: Literal["error", "warning"] = "error"
    step: str = ""

    def to_dict(self) -> dict[str, str]:
        """As JSON, with the id."""
        return {"id": self.id, **structs.asdict(self)}

    @property
    def id(self) -> str:
        """What `headrace accept` takes: `vanished:raw/flights/flights@4be0643f1d98`."""
        place = f"{self.table}/{self.partition}" if self.partition else self.table
        return f"{self.check}:{place}@{self.state_hash}"


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """A person's decision that a finding may pass.

    Attributes:
        finding: Id of the finding.
        text: What was found.
        by: Who accepted it.
        at: When (UTC), in ISO 8601.
        reason: Why.
    """

    finding: str
    text: str
    by: str
    at: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """As JSON."""
        return structs.asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.finding} accepted by {self.by} on {self.at[:16].replace('T', ' ')} UTC: {self.reason}"


class FindingRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The findings and acceptances of one dataset, as a run or a workspace keeps them.

    Attributes:
        findings: What the steps found last.
        acceptances: What was accepted since the last release.
    """

    findings: tuple[GuardFinding, ...] = ()
    acceptances: tuple[Acceptance, ...] = ()

    @property
    def open(self) -> list[GuardFinding]:
        """The findings that nobody has accepted."""
        accepted = {each.finding for each in self.acceptances}
        return [finding for finding in self.findings if finding.id not in accepted]

    def accepted(self, findings: Iterable[GuardFinding]) -> list[Acceptance]:
        """The acceptances of these findings."""
        ids = {finding.id for finding in findings}
        return [each for each in self.acceptances if each.finding in ids]

    def without(self, ids: Container[str]) -> "FindingRecord":
        """The record less these findings and their acceptances."""
        return FindingRecord(
            tuple(finding for finding in self.findings if finding.id not in ids),
            tuple(each for each in self.acceptances if each.finding not in ids),
        )


RECORDS = Path(".headrace/findings")
"""Folder of a workspace with a file of findings and acceptances per dataset."""


def record_file(root: Path, dataset: str) -> Path:
    """The file of a workspace that holds the findings and acceptances of a dataset."""
    return root / RECORDS / f"{dataset}.json"


def hash_state(parts: Iterable[str]) -> str:
    """Hash of what a finding is about: names of partitions with the md5 of their bytes, in any order."""
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:12]
