"""A real Label Studio for the session, annotators with accounts on it, and a proxy that loses its responses."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from label_campaign import DAYS, Campaign

from headrace.settings import Settings
from headrace.stack.annotator import create_annotator
from headrace.stack.control import running

CONTROL = "cause"


@dataclass
class Annotator:
    """An annotator with an account and a token."""

    url: str
    token: str

    @cached_property
    def http(self) -> httpx.Client:
        """The annotator's connection."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Token {self.token}"}, timeout=30)

    def submit(self, task: int, choice: str, **more: Any) -> int:  # noqa: ANN401  fields of the API
        """Submit `choice`; returns the annotation's number."""
        reply = self.http.post(
            f"/api/tasks/{task}/annotations/", json={**answer_body(choice), "lead_time": 2.5, **more}
        )
        return int(reply.raise_for_status().json()["id"])

    def skip(self, task: int, choice: str) -> int:
        """Skip the task; as in the browser, the choice that was suggested is stored with the skip."""
        return self.submit(task, choice, was_cancelled=True)

    def edit(self, annotation: int, choice: str) -> None:
        """Edit an answer that was given."""
        self.http.patch(f"/api/annotations/{annotation}/", json=answer_body(choice)).raise_for_status()

    def delete(self, annotation: int) -> None:
        """Delete an answer."""
        self.http.delete(f"/api/annotations/{annotation}/").raise_for_status()


def answer_body(choice: str) -> dict[str, Any]:
    """An answer as the page submits it."""
    value = {"choices": [choice]}
    return {"result": [{"from_name": CONTROL, "to_name": "text", "type": "choices", "value": value}]}


@dataclass
class LabelServer:
    """The server, as its administrator sees it."""

    url: str
    token: str
    people: dict[str, Annotator] = field(default_factory=dict)

    @cached_property
    def http(self) -> httpx.Client:
        """The administrator's connection."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Token {self.token}"}, timeout=30)

    def settings(self, **other: str) -> Settings:
        """Settings that name this server."""
        return Settings.model_validate(
            {
                "LABEL_STUDIO_URL": self.url,
                "LABEL_STUDIO_API_KEY": self.token,
                "HEADRACE_PSEUDONYM_KEY": "a long random text",
                **other,
            }
        )

    def close(self) -> None:
        """Close the connections of the administrator and of all annotators."""
        for client in (self.http, *(person.http for person in self.people.values())):
            client.close()

    def person(self, name: str) -> Annotator:
        """The annotator `name`, whose account is created on first use."""
        if name not in self.people:
            token = create_annotator(self.url, self.token, f"{name}@example.com", f"{name}'s own password")
            self.people[name] = Annotator(self.url, token)
        return self.people[name]

    def import_task(self, project: int, data: dict[str, Any]) -> int:
        """Import a task past `label send`; its number."""
        where, query = f"/api/projects/{project}/import", {"return_task_ids": "true"}
        reply = self.http.post(where, params=query, json=[{"data": data}])
        return int(reply.raise_for_status().json()["task_ids"][0])

    def task_data(self, task: int) -> dict[str, Any]:
        """The data of a task."""
        data: dict[str, Any] = self.http.get(f"/api/tasks/{task}/").raise_for_status().json()["data"]
        return data

    def count(self, project: int) -> int:
        """How many tasks the project holds, duplicates included."""
        query: dict[str, str | int] = {"project": project, "page_size": 1, "include": "id"}
        return int(self.http.get("/api/tasks/", params=query).raise_for_status().json()["total"])

    def tasks(self, project: int) -> dict[str, list[int]]:
        """Sample id → task numbers."""
        query: dict[str, str | int] = {"project": project, "page_size": 50_000, "include": "id,data"}
        found: dict[str, list[int]] = {}
        for task in self.http.get("/api/tasks/", params=query).raise_for_status().json()["tasks"]:
            found.setdefault(task["data"].get("sample_id"), []).append(task["id"])
        return found


class _LossyHandler(BaseHTTPRequestHandler):
    """Forwards requests, but loses the responses to the first imports."""

    server: "_Proxy"

    def handle_any(self) -> None:
        """Forward the request."""
        if self.server.gone:
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {"Authorization": self.headers["Authorization"], "Content-Type": "application/json"}
        answer = httpx.request(self.command, self.server.target + self.path, content=body, headers=headers, timeout=30)
        if self.path.endswith("/import") and self.server.imports_to_lose > 0:
            self.server.imports_to_lose -= 1
            self.server.gone = self.server.then_gone
            self.close_connection = True
            if self.server.status:
                self.send_error(self.server.status)
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815  names of the standard library

    def log_message(self, *_: object) -> None:
        pass


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    target: str
    imports_to_lose: int
    then_gone: bool
    status: int | None
    gone = False


@contextmanager
def lossy_proxy(url: str, imports_to_lose: int, *, then_gone: bool = False, status: int | None = None) -> Iterator[str]:
    """Address of a proxy to `url` that loses the responses to that many imports, although the server executes them.

    Args:
        url: The server.
        imports_to_lose: How many.
        then_gone: Answer nothing after the first of them.
        status: What the proxy answers in place of the server; nothing by default, it closes the connection.
    """
    with _Proxy(("127.0.0.1", 0), _LossyHandler) as proxy:
        proxy.target, proxy.imports_to_lose, proxy.then_gone, proxy.status = url, imports_to_lose, then_gone, status
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}"
        finally:
            proxy.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """The server, started for the session."""
    with running(tmp_path_factory.mktemp("label-studio"), only=("label-studio",)) as env:
        server = LabelServer(env["LABEL_STUDIO_URL"], env["LABEL_STUDIO_API_KEY"])
        with closing(server):
            yield server


@pytest.fixture
def campaign(label_studio: LabelServer, tmp_path: Path, request: pytest.FixtureRequest) -> Campaign:
    """A new project, and a workspace with rides of which none is sent."""
    made = Campaign(label_studio, tmp_path, request.node.name)
    made.write_rides(DAYS)
    return made


@pytest.fixture
def ann(label_studio: LabelServer) -> Annotator:
    """An annotator."""
    return label_studio.person("ann")


@pytest.fixture
def bob(label_studio: LabelServer) -> Annotator:
    """Another annotator."""
    return label_studio.person("bob")


@pytest.fixture(params=["few", "many"])
def changes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the changes since the last collect are few enough to be read in the request that finds them."""
    if request.param == "many":
        monkeypatch.setattr("headrace.label.label_studio.tasks.INLINE_LIMIT", 1)
    return str(request.param)
