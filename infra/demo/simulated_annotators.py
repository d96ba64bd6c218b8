"""Stands in for the people who label: real accounts, wrong as often as stated, and called simulated."""

import secrets
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx

from headrace.stack.annotator import annotator
from infra.demo.errors import DemoError

ERROR_RATES = {"careful": 0.05, "usual": 0.15, "hasty": 0.3}
"""Simulated annotator → share of answers that are wrong; the careful one skips now and then."""
EVERY_WHICH_IS_SKIPPED = 12
STRONG_WIND_MPH, LOW_VISIBILITY_MILES, WET_IN = 20.0, 3.0, 0.05

Json = dict[str, Any]
Truth = Callable[[Mapping[str, Any]], str]
"""Data of a task → the answer that is right; hidden from whoever measures."""


@dataclass
class Team:
    """The simulated annotators.

    Attributes:
        people: Name → who.
        truth: Sample id → the right answer, of all tasks that anybody saw.
    """

    people: Mapping[str, "SimulatedAnnotator"]
    truth: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Team":
        """With accounts on the Label Studio of a running stack."""
        return cls({name: SimulatedAnnotator(env, name) for name in ERROR_RATES})

    def answer_all(self, project: str, truth: Truth) -> dict[str, int]:
        """Each answers what they are handed until there is no more; name → answers."""
        with ThreadPoolExecutor(len(self.people)) as pool:
            done = {name: pool.submit(self._work, person, project, truth) for name, person in self.people.items()}
        return {name: work.result() for name, work in done.items()}

    def _work(self, person: "SimulatedAnnotator", project: str, truth: Truth) -> int:
        answers = 0
        while task := person.answer_next(project, truth):
            self.truth[task["sample_id"]] = truth(task)
            answers += 1
        return answers


class SimulatedAnnotator:
    """Takes what Label Studio hands out next, and answers as the annotator that it is."""

    def __init__(self, env: Mapping[str, str], name: str) -> None:
        url = env["LABEL_STUDIO_URL"]
        token = annotator(url, env["LABEL_STUDIO_API_KEY"], f"simulated-{name}@localhost", secrets.token_hex(8))
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=60)
        self.name = name
        self.questions: dict[str, tuple[str, str, list[str]]] = {}

    def answer_next(self, project: str, truth: Truth) -> Json | None:
        """Answer the next task of the project (its address); its data, None if there is none for this person."""
        number = project.rstrip("/").rsplit("/", 1)[-1]
        task = self._next(number)
        if not task:
            return None
        if number not in self.questions:
            self.questions[number] = self._question(number)
        control, shown, choices = self.questions[number]
        data: Json = task["data"]
        answer = self._answer(data["sample_id"], truth(data), choices)
        result = {"from_name": control, "to_name": shown, "type": "choices", "value": {"choices": [answer]}}
        content = {
            "result": [result] if answer else [],
            "was_cancelled": answer is None,
            "unique_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/{task['id']}/{self.name}")),
            "lead_time": 5.0,
        }
        self._ask("POST", f"/api/tasks/{task['id']}/annotations/", content)
        return data

    def _answer(self, item: str, right: str, choices: list[str]) -> str | None:
        """By lot, the same every time: right, or another choice; None skips."""
        others = [choice for choice in choices if choice != right]
        if self.name == "careful" and _lot(f"skip {item}") % EVERY_WHICH_IS_SKIPPED == 0:
            return None
        return others[_lot(item) % len(others)] if _errs(self.name, item) else right

    def _question(self, project: str) -> tuple[str, str, list[str]]:
        """The control that takes the answer, the object that it is about, and the choices."""
        controls = self._ask("GET", f"/api/projects/{project}")["parsed_label_config"]
        found = ((name, item) for name, item in controls.items() if item["type"] == "Choices")
        return next((name, item["to_name"][0], list(item["labels"])) for name, item in found)

    def _next(self, project: str) -> Json | None:
        answer = self.client.get(f"/api/projects/{project}/next")
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._content(answer)

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        return self._content(self.client.request(method, path, json=body))

    def _content(self, answer: httpx.Response) -> Json:
        if answer.is_error:
            request = f"{answer.request.method} {answer.request.url.path}"
            raise DemoError(f"Label Studio refuses {request}: HTTP {answer.status_code} {answer.text[:300]}")
        content: Json = answer.json()
        return content


def cause_of(record: Mapping[str, Any]) -> str:
    """The rule: bad weather if it was seen, else the aircraft if it was already very late, else the airline."""
    windy = (record.get("wind_speed_mph") or 0) >= STRONG_WIND_MPH
    blind = (record.get("visibility_miles") or 10) < LOW_VISIBILITY_MILES
    if windy or blind or (record.get("precipitation_in") or 0) >= WET_IN:
        return "weather"
    return "late_aircraft" if record["dep_delay_min"] % 2 else "carrier"


def _errs(name: str, item: str) -> bool:
    """Whether the annotator is wrong about an item."""
    return _lot(f"{name}:{item}") % 1000 < 1000 * ERROR_RATES[name]


def _lot(text: str) -> int:
    return int(sha256(text.encode()).hexdigest()[:16], 16)
