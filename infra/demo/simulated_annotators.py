"""Simulated annotators: real accounts that answer through Label Studio's API, and err as often as stated.

Each errs by itself: whether an annotator is wrong about an item, and with which answer, does not depend on the others.
"""

import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from headrace.stack.annotator import create_annotator
from infra.demo.errors import DemoError
from pipelines.flights.local_time import NEW_YORK

ERROR_RATES = {"careful": 0.05, "usual": 0.15, "hasty": 0.3}
"""Simulated annotator → share of wrong answers; the careful one skips some items."""
SKIP_EVERY = 12
STRONG_WIND_MPH, LOW_VISIBILITY_MILES, WET_IN = 20.0, 3.0, 0.05
AFTERNOON, PASSED_ON_MIN = 15, 150

Json = dict[str, Any]
Truth = Callable[[Mapping[str, Any]], str]
"""Data of a task → the right answer, which whoever measures does not know."""


@dataclass
class AnnotatorTeam:
    """The simulated annotators.

    Attributes:
        annotators: Name → annotator.
        truth: Sample id → right answer, of all tasks that an annotator opened.
    """

    annotators: Mapping[str, "SimulatedAnnotator"]
    truth: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, env: Mapping[str, str]) -> "AnnotatorTeam":
        """With accounts on the Label Studio of a running stack."""
        return cls({name: SimulatedAnnotator(env, name) for name in ERROR_RATES})

    def answer_all(self, project: str, truth: Truth) -> dict[str, int]:
        """Let each answer tasks until there are none left for them; name → number of answers."""
        with ThreadPoolExecutor(len(self.annotators)) as pool:
            counts = {
                name: pool.submit(self._answer_each, annotator, project, truth)
                for name, annotator in self.annotators.items()
            }
        return {name: count.result() for name, count in counts.items()}

    def _answer_each(self, annotator: "SimulatedAnnotator", project: str, truth: Truth) -> int:
        answers = 0
        while task := annotator.answer_next(project, truth):
            self.truth[task["sample_id"]] = truth(task)
            answers += 1
        return answers


class SimulatedAnnotator:
    """Opens the task that Label Studio offers next, and answers it with this annotator's error rate."""

    def __init__(self, env: Mapping[str, str], name: str) -> None:
        url = env["LABEL_STUDIO_URL"]
        email = f"simulated-{name}@localhost"
        token = create_annotator(url, env["LABEL_STUDIO_API_KEY"], email, secrets.token_hex(8))
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=60)
        self.name = name
        self.forms: dict[str, tuple[str, str, list[str]]] = {}

    def answer_next(self, project: str, truth: Truth) -> Json | None:
        """Answer the next task of the project (its URL); the task's data, or None if there is no task left."""
        number = project.rstrip("/").rsplit("/", 1)[-1]
        task = self._next_task(number)
        if not task:
            return None
        if number not in self.forms:
            self.forms[number] = self._read_form(number)
        control, shown, choices = self.forms[number]
        data: Json = task["data"]
        answer = choose_answer(self.name, data["sample_id"], truth(data), choices)
        result = {"from_name": control, "to_name": shown, "type": "choices", "value": {"choices": [answer]}}
        annotation = {
            "result": [result] if answer else [],
            "was_cancelled": answer is None,
            "unique_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/{task['id']}/{self.name}")),
            "lead_time": 5.0,
        }
        self._request("POST", f"/api/tasks/{task['id']}/annotations/", annotation)
        return data

    def _read_form(self, project: str) -> tuple[str, str, list[str]]:
        """The control that takes the answer, the object that it is about, and the choices."""
        controls = self._request("GET", f"/api/projects/{project}")["parsed_label_config"]
        name, item = next((name, item) for name, item in controls.items() if item["type"] == "Choices")
        return name, item["to_name"][0], list(item["labels"])

    def _next_task(self, project: str) -> Json | None:
        response = self.client.get(f"/api/projects/{project}/next")
        return None if response.status_code == httpx.codes.NOT_FOUND else self._content(response)

    def _request(self, method: str, path: str, body: Json | None = None) -> Json:
        return self._content(self.client.request(method, path, json=body))

    def _content(self, response: httpx.Response) -> Json:
        if response.is_error:
            request = f"{response.request.method} {response.request.url.path}"
            raise DemoError(f"Label Studio rejected {request}: HTTP {response.status_code} {response.text[:300]}")
        content: Json = response.json()
        return content


def true_cause(record: Mapping[str, Any]) -> str:
    """The rule: the weather if it was bad; else the aircraft if it can have been late already; else the airline.

    Delays add up while an aircraft flies through the day, so one of less than 2 h 30 min in the afternoon or evening,
    from 15:00 in New York on, counts as passed on by an earlier flight. A longer one began here.
    """
    is_windy = (record.get("wind_speed_mph") or 0) >= STRONG_WIND_MPH
    is_foggy = (record.get("visibility_miles") or 10) < LOW_VISIBILITY_MILES
    if is_windy or is_foggy or (record.get("precipitation_in") or 0) >= WET_IN:
        return "weather"
    scheduled_at = datetime.fromisoformat(record["scheduled_at"]).replace(tzinfo=UTC)
    is_afternoon = scheduled_at.astimezone(ZoneInfo(NEW_YORK)).hour >= AFTERNOON
    return "late_aircraft" if is_afternoon and record["dep_delay_min"] < PASSED_ON_MIN else "carrier"


def choose_answer(name: str, item: str, right: str, choices: Sequence[str]) -> str | None:
    """An annotator's answer: right or wrong, pseudorandom and the same every time; None skips the task."""
    wrong = [choice for choice in choices if choice != right]
    if name == "careful" and _hash_number(f"skip {item}") % SKIP_EVERY == 0:
        return None
    return wrong[_hash_number(f"{name} answers {item}") % len(wrong)] if _errs(name, item) else right


def _errs(name: str, item: str) -> bool:
    """Whether the annotator is wrong about an item."""
    return _hash_number(f"{name}:{item}") % 1000 < 1000 * ERROR_RATES[name]


def _hash_number(text: str) -> int:
    return int(sha256(text.encode()).hexdigest()[:16], 16)
