"""What a dataset's declaration says for people: owner, description, schedule, tags.

They are read from the text of `pipelines/<name>/__init__.py`, since loading it imports data libraries, which no DAG
file may pay for. A value that the text does not show, because it is computed or imported, keeps its default, and the
DAG's documentation says so.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.sdk import CronTriggerTimetable

from headrace.airflow.defaults import DAG_DEFAULTS, NOT_AT_ONCE, OWNER
from headrace.workspace import PACKAGE

SCHEDULE = "0 6 * * *"
"""Not `@daily`: midnight UTC is 19:00 in New York, and the day's object would be half a day."""

KINDS: Mapping[str, type] = {"owner": str, "description": str, "schedule": str, "tags": dict}
MOST_TAG_CHARACTERS = 100
EMAIL = re.compile(r"[^@\s<>]+@[^@\s<>]+")


@dataclass(frozen=True)
class DatasetFacts:
    """What Airflow shows of a dataset.

    Attributes:
        owner: The team or person responsible for it.
        description: One sentence.
        schedule: When it is refreshed: a cron expression in UTC; empty for never by itself.
        tags: Key → value.
        notes: Sentences about what the text of the declaration does not show.
    """

    owner: str = OWNER
    description: str = ""
    schedule: str = SCHEDULE
    tags: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def timetable(self) -> CronTriggerTimetable | None:
        """The schedule, as Airflow has it."""
        return _timetable(self.schedule) if self.schedule else None

    def dag_settings(self) -> dict[str, Any]:
        """The settings of all DAGs, with the dataset's owner."""
        arguments = {**DAG_DEFAULTS["default_args"], "owner": self.owner}
        return {**DAG_DEFAULTS, "owner_links": self._links(), "default_args": arguments}

    def dag_tags(self) -> list[str]:
        """Tags as `key: value`."""
        return [f"{name}: {value}"[:MOST_TAG_CHARACTERS] for name, value in self.tags.items()]

    def introduction(self) -> str:
        """Markdown for the beginning of a DAG's documentation."""
        lines = [self.description, *(f"*{note}*" for note in self.notes)]
        return "".join(f"{line}\n\n" for line in lines if line)

    def _links(self) -> Mapping[str, str]:
        if EMAIL.fullmatch(self.owner):
            return {self.owner: f"mailto:{self.owner}"}
        return {name: link for name, link in DAG_DEFAULTS["owner_links"].items() if name == self.owner}


def daily_timetable() -> CronTriggerTimetable:
    """The schedule of a dataset that declares none."""
    return _timetable(SCHEDULE)


def _timetable(schedule: str) -> CronTriggerTimetable:
    return CronTriggerTimetable(schedule, timezone="UTC", run_immediately=NOT_AT_ONCE)


def read_facts(project: Path, dataset: str) -> DatasetFacts:
    """The facts that the text of a declaration shows; the defaults where it cannot be read."""
    path = project / PACKAGE / dataset / "__init__.py"
    try:
        module = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # `dataset_problems` reports it
        return DatasetFacts()
    found: dict[str, Any] = {}
    notes = []
    for name, value in _keywords(module).items():
        try:
            found[name] = _checked(name, _literal(value, module))
        except (ValueError, TypeError) as error:
            where = f"{PACKAGE}/{dataset}/__init__.py:{value.lineno}"
            notes.append(f"Airflow does not show the `{name}` that {where} declares: {error}.")
    return DatasetFacts(**found, notes=tuple(notes))


def _keywords(module: ast.Module) -> dict[str, ast.expr]:
    """The arguments of `Dataset(...)` that are read here."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Dataset":
            return {word.arg: word.value for word in node.keywords if word.arg and word.arg in KINDS}
    return {}


def _literal(value: ast.expr, module: ast.Module) -> Any:  # noqa: ANN401  any literal
    """The value of an expression: a literal, or a name that the module assigns one to."""
    if isinstance(value, ast.Name):
        assigned = [node.value for node in module.body if isinstance(node, ast.Assign) and _assigns(node, value.id)]
        if len(assigned) != 1:
            raise ValueError("expected a literal, found a name that this file does not assign once")
        value = assigned[0]
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise ValueError(f"expected a literal, found `{ast.unparse(value)}`") from None


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def _checked(name: str, value: Any) -> Any:  # noqa: ANN401  any literal
    kind: Any = KINDS[name]
    if not isinstance(value, kind):
        raise TypeError(f"expected a {kind.__name__}, found {type(value).__name__}")
    if name == "schedule" and value:
        try:
            CronTriggerTimetable(value, timezone="UTC").validate()
        except Exception as error:  # noqa: BLE001  of Airflow, or of the library that it parses cron with
            raise ValueError(f"{value!r} is not a cron expression: {error}") from None
    if name == "owner" and not value:
        raise ValueError("it is empty")
    return value
