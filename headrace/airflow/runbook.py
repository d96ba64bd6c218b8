"""The runbook of a DAG: the documentation of its module, without the rows about tasks that this DAG does not have."""

import re
from collections.abc import Set as AbstractSet

ROW = re.compile(r"\| (?P<tasks>[a-z_]+(, [a-z_]+)*) \|")


def runbook(doc: str, tasks: AbstractSet[str]) -> str:
    """The Markdown text `doc`, its table reduced to the rows that begin with names of `tasks`."""
    return "\n".join(line for line in doc.splitlines() if _concerns(line, tasks))


def _concerns(line: str, tasks: AbstractSet[str]) -> bool:
    row = ROW.match(line)
    return row is None or not tasks.isdisjoint(row["tasks"].split(", "))
