"""Requests to Label Studio: what is retried, what is sent once, and what the errors say, against a scripted server.

The last tests hold the names of the SDK that we rely on, and its faults that we work around: a new version that changes
one fails here, with what to do.
"""

import inspect
import json
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
from workspaces import REPOSITORY

from headrace.label.label_studio.errors import (
    LabelStudioError,
    LabelStudioServerError,
    LabelStudioUnavailableError,
    UnknownOutcomeError,
)

if typing.TYPE_CHECKING:
    from headrace.label.label_studio.client import LabelStudioClient

TOKEN = "a-token"  # noqa: S105  no account has it
TASKS = b'{"tasks": [], "total": 3}'
Answer = tuple[int, bytes]


@contextmanager
def scripted_server(*answers: Answer) -> Iterator[tuple[str, list[str]]]:
    """Address of a server that gives these answers, the last one for ever, and the requests that it received."""
    script, requests = list(answers), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            requests.append(f"{self.command} {self.path.partition('?')[0]}")
            status, body = script.pop(0) if len(script) > 1 else script[0]
            self.send_response(status)
            self.send_header("Set-Cookie", "sessionid=a-secret-session")
            self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  names of the standard library

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()


@contextmanager
def client(url: str, token: str = TOKEN, **more: float) -> Iterator["LabelStudioClient"]:
    """A client of the server."""
    from headrace.label.label_studio.client import open_label_studio  # noqa: PLC0415  imports the SDK

    with open_label_studio(url, token, **more) as opened:
        yield opened


def count_tasks(opened: "LabelStudioClient") -> int:
    from headrace.label.label_studio.client import LabelStudioProject  # noqa: PLC0415  imports the SDK

    return opened.project_tasks(LabelStudioProject(7, "Rides")).count()


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_read_is_retried_while_the_server_is_busy_or_starting(status: int) -> None:
    with scripted_server((status, b"busy"), (200, TASKS)) as (url, requests), client(url) as opened:
        assert count_tasks(opened) == 3

    assert requests == ["GET /api/tasks/"] * 2


def test_a_read_that_the_server_fails_at_is_not_retried() -> None:
    with (
        scripted_server((500, b'{"detail": "a bug"}')) as (url, requests),
        client(url) as opened,
        pytest.raises(LabelStudioServerError, match=r'HTTP 500: \{"detail": "a bug"\}'),
    ):
        count_tasks(opened)

    assert len(requests) == 1


@pytest.mark.parametrize("status", [400, 408, 409, 429, 500, 502, 503, 504])
def test_a_write_is_sent_once_whatever_is_answered_and_the_error_says_whether_to_try_later(status: int) -> None:
    with (
        scripted_server((status, b"{}")) as (url, requests),
        client(url) as opened,
        pytest.raises(LabelStudioError) as raised,
    ):
        opened.call_once(opened.sdk.projects.create, title="Rides", label_config="<View/>")

    assert requests == ["POST /api/projects/"]
    assert isinstance(raised.value, UnknownOutcomeError) == (status in (429, 502, 503, 504))
    assert raised.value.is_transient == (status == 429 or status >= 500)


def test_a_redirect_is_not_followed_because_a_redirected_write_would_become_a_read() -> None:
    with (
        scripted_server((301, b"")) as (url, requests),
        client(url) as opened,
        pytest.raises(LabelStudioError, match=r"found a redirect to https://elsewhere.example/\. Set LABEL_STUDIO_URL"),
    ):
        opened.call_once(opened.sdk.projects.create, title="Rides", label_config="<View/>")

    assert requests == ["POST /api/projects/"]


@pytest.mark.parametrize("call", ["by the SDK", "plain"])
def test_a_page_in_place_of_json_is_named(call: str) -> None:
    with (
        scripted_server((200, b"<html>")) as (url, _),
        client(url) as opened,
        pytest.raises(LabelStudioError, match="found a page of 6 bytes that is not JSON"),
    ):
        count_tasks(opened) if call == "plain" else opened.count_users()


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_no_message_holds_the_token_or_the_session(status: int) -> None:
    with (
        scripted_server((status, b'{"detail": "no"}')) as (url, _),
        client(url) as opened,
        pytest.raises(LabelStudioError) as raised,
    ):
        opened.count_users()

    assert '{"detail": "no"}' in str(raised.value)
    assert not {"a-secret-session", "a-token"} & set(str(raised.value).replace("=", " ").split())
    assert "a-token" not in repr(opened)


def test_without_a_token_nothing_is_asked() -> None:
    with (
        scripted_server((200, TASKS)) as (url, requests),
        pytest.raises(LabelStudioError, match="set LABEL_STUDIO_API_KEY"),
        client(url, token=""),
    ):
        pass

    assert requests == []


def test_an_expired_personal_token_is_named_before_anything_is_asked() -> None:
    expired = jwt.encode({"exp": int(time.time()) - 60}, "key of the server, which is 32 bytes long")

    with (
        pytest.raises(LabelStudioError, match=r"has expired\..*Access Token"),
        client("http://127.0.0.1:9", token=expired),
    ):
        pass


def test_a_proxy_that_answers_for_the_token_endpoint_is_named() -> None:
    token = jwt.encode({"exp": int(time.time()) + 60}, "key of the server, which is 32 bytes long")

    with (
        scripted_server((502, b"<html>")) as (url, _),
        client(url, token=token, retry_timeout_s=0) as opened,
        pytest.raises(LabelStudioError, match="found a page of 6 bytes that is not JSON"),
    ):
        opened.count_users()


def test_a_server_below_a_path_is_asked_there_for_tokens_too() -> None:
    token = jwt.encode({"exp": int(time.time()) + 60}, "key of the server, which is 32 bytes long")
    access = json.dumps({"access": token}).encode()

    with (
        scripted_server((200, access), (200, TASKS)) as (url, requests),
        client(f"{url}/labels", token=token) as opened,
    ):
        count_tasks(opened)

    assert requests == ["POST /labels/api/token/refresh/", "GET /labels/api/tasks/"]


def test_a_server_that_is_away_is_unavailable_and_a_write_to_it_has_an_unknown_outcome() -> None:
    with client("http://127.0.0.1:9", retry_timeout_s=0) as opened:
        with pytest.raises(LabelStudioUnavailableError) as on_read:
            opened.count_users()
        with pytest.raises(UnknownOutcomeError, match="headrace stack up"):
            opened.call_once(opened.sdk.projects.create, title="Rides", label_config="<View/>")

    assert not isinstance(on_read.value, UnknownOutcomeError)


# What we rely on


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("headrace.label.stage", ("label_studio_sdk", "httpx", "sklearn", "numpy", "cleanlab")),
        ("headrace.project.graph", ("label_studio_sdk", "httpx", "sklearn", "cleanlab")),
        ("headrace.label.report", ("label_studio_sdk", "httpx", "sklearn", "cleanlab")),
        ("headrace.airflow.label_studio_sensor", ("label_studio_sdk",)),
    ],
)
def test_planning_releasing_and_dag_files_never_import_the_sdk(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert not set(done.stdout.split()) & set(heavy)


def test_the_private_names_of_the_sdk_that_api_py_uses_are_there() -> None:
    from label_studio_sdk import LabelStudio  # noqa: PLC0415

    wrapper = LabelStudio(base_url="http://127.0.0.1:9/", api_key="a-token")._client_wrapper  # noqa: SLF001

    parameters = inspect.signature(wrapper.httpx_client.request).parameters
    assert {"path", "method", "params", "request_options"} <= parameters.keys(), (
        "api.py reads what the SDK gets wrong through its HTTP client: find its new name there"
    )
    assert hasattr(wrapper._tokens_client, "_access_token"), (  # noqa: SLF001
        "api.py renews a rejected access token by forgetting it: see how the SDK keeps it now"
    )


def test_the_sdk_still_lacks_or_misreads_what_we_read_ourselves() -> None:
    from label_studio_sdk.projects.client import ProjectsClient  # noqa: PLC0415
    from label_studio_sdk.types.lse_task import LseTask  # noqa: PLC0415

    assert typing.get_args(LseTask.model_fields["annotations"].annotation) == (str, type(None)), (
        "the SDK takes annotations for text no more: measure tasks.list, and drop the plain request if it is fast now"
    )
    package = Path(inspect.getfile(ProjectsClient)).parents[1]
    generated = (path for path in package.rglob("raw_client.py") if "model-versions" in path.read_text())
    assert next(generated, None) is None, "the SDK can list model versions now: use it in set_model_version"
