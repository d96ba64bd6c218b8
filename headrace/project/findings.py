"""What a check finds in a project: file, line, level, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, order=True)
class Finding:
    """Something in a project that is wrong, or that no fingerprint follows.

    Attributes:
        file: The file, relative to the project.
        line: The line, from 1; 0 if it is unknown.
        problem: What it is, and how to fix it.
        level: `error` if the dataset cannot do what is declared, else `warning`.
        dataset: The dataset; empty where only a file was checked.
    """

    file: str
    line: int
    problem: str
    level: Level = "error"
    dataset: str = ""

    def __str__(self) -> str:
        """`file:line: level: problem`, as compilers print it."""
        return f"{self.file}:{self.line}: {self.level}: {self.problem}"


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The findings of level `error`."""
    return [finding for finding in findings if finding.level == "error"]
