"""Stands in for the people who label: a real annotator account that answers by a rule, and is called simulated."""

import secrets
import uuid
from collections.abc import Mapping
from typing import Any

import httpx

from infra.demo.errors import DemoError
from infra.stack.annotator import annotator

EMAIL = "simulated-annotator@localhost"
STRONG_WIND_MPH, LOW_VISIBILITY_MILES, WET_IN = 20.0, 3.0, 0.05
EVERY_WHICH_IS_SKIPPED = 12

Json = dict[str, Any]


class SimulatedAnnotator:
    """Takes what Label Studio hands out next, and answers as the annotator that it is."""

    def __init__(self, env: Mapping[str, str]) -> None:
        url = env["LABEL_STUDIO_URL"]
        token = annotator(url, env["LABEL_STUDIO_API_KEY"], EMAIL, secrets.token_hex(8))
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=60)

    def answer_all(self, project: str) -> dict[str, int]:
        """Answer every task of the project (its address); answer → how often."""
        number = project.rstrip("/").rsplit("/", 1)[-1]
        control, shown = self._question(number)
        given: dict[str, int] = {}
        while task := self._next(number):
            done = sum(given.values()) + 1
            cause = None if done % EVERY_WHICH_IS_SKIPPED == 0 else cause_of(task["data"])
            choice = {"from_name": control, "to_name": shown, "type": "choices", "value": {"choices": [cause]}}
            answer = {
                "result": [choice] if cause else [],
                "was_cancelled": cause is None,
                "unique_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/{task['id']}")),
                "lead_time": 5.0,
            }
            self._ask("POST", f"/api/tasks/{task['id']}/annotations/", answer)
            given[cause or "skipped"] = given.get(cause or "skipped", 0) + 1
        return given

    def _question(self, project: str) -> tuple[str, str]:
        """The control that takes the answer, and the object that it is about."""
        controls = self._ask("GET", f"/api/projects/{project}")["parsed_label_config"]
        return next((name, item["to_name"][0]) for name, item in controls.items() if item["type"] == "Choices")

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
