"""Label Studio's HTTP: a read is asked again while the server is away, a write is sent once.

Nothing it prints holds a header: they carry the token and the session.
"""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any, NoReturn

import httpx
import orjson

from headrace import failpoints
from headrace.errors import HeadraceError, TransientError
from headrace.storage.retries import attempts

PASSING = frozenset({429, 502, 503, 504})
"""Answers of a server or proxy that is busy or starting. A 500 is a bug or a bad request, and no retry mends it."""

NO_TOKEN = "none"  # noqa: S105  what the server refuses, as it should: an empty header is no request at all
SHOWN_CHARACTERS = 500

Query = Mapping[str, Any] | list[tuple[str, Any]]


class LabelStudioError(HeadraceError):
    """Label Studio cannot be reached, or refused what was asked."""


class LostAnswerError(LabelStudioError, TransientError):
    """The server is away, or went away before it answered: whether it did what was asked is not known."""

    def __init__(self, url: str, seen: str) -> None:
        super().__init__(
            f"Label Studio at {url} does not answer ({seen}). Start it (`headrace stack up`; `headrace stack status`"
            " shows its log) or correct LABEL_STUDIO_URL, then run the same command again: what is stored there is"
            " looked up first."
        )


class RefusedError(LabelStudioError):
    """The server does not do what was asked, and says why."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Wire:
    """A server and an account on it.

    Attributes:
        url: Its address.
        token: Access token of the account: a legacy token, or a personal access token (which is exchanged for
            short-lived ones). Never shown.
        timeout_s: How long one answer may take.
        patience_s: How long a server that is away is waited for; 0, not at all.
    """

    url: str
    token: str = field(repr=False)
    timeout_s: float
    patience_s: float

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    @cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=Token(self.token), timeout=self.timeout_s)

    def read(self, path: str, query: Query) -> Any:  # noqa: ANN401  any JSON
        """What is at `path`.

        Raises:
            LabelStudioError: The server stays away, or refuses.
        """
        answer = self.head(path, query)
        try:
            return orjson.loads(answer.content)
        except ValueError:
            raise LabelStudioError(
                f"{self.url}{path}: expected JSON from Label Studio, seen {_reason(answer)}. Give LABEL_STUDIO_URL the"
                " address of Label Studio itself, then run the same command again."
            ) from None

    def head(self, path: str, query: Query) -> httpx.Response:
        """As `read`, with the answer's headers."""
        for attempt in attempts("Label Studio", LostAnswerError, self.patience_s, first_s=0.2, most_s=2.0):
            with attempt:
                return self._once("GET", path, params=query)
        raise AssertionError  # the loop returns or raises

    def write(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  any JSON
        """Have the server do something, once.

        Raises:
            LostAnswerError: Whether the server did it is not known.
            LabelStudioError: It refuses.
        """
        with failpoints.failpoint(f"{method} to Label Studio"):
            answer = self._once(method, path, json=body)
        return answer.json() if answer.content else None

    def _once(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401  httpx's own
        try:
            answer = self._client.request(method, path, **content)
        except httpx.TransportError as error:
            raise LostAnswerError(self.url, f"{type(error).__name__}: {error}") from None
        if answer.status_code in PASSING:
            raise LostAnswerError(self.url, f"HTTP {answer.status_code}")
        if not answer.is_success:
            self._refused(method, path, answer)
        return answer

    def _refused(self, method: str, path: str, answer: httpx.Response) -> NoReturn:
        said = f"HTTP {answer.status_code}: {_reason(answer)}"
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise LabelStudioError(
                f"Label Studio at {self.url} refuses the token in LABEL_STUDIO_API_KEY ({said}). Take a valid one from"
                " Account & Settings > Access Token there (`headrace stack env` prints the local stack's), set it, and"
                " run the same command again."
            )
        raise RefusedError(
            f"Label Studio at {self.url} refuses {method} {path} ({said}). Correct what it names, then run the same"
            " command again: what is stored there is looked up first.",
            answer.status_code,
            said,
        )


class Token(httpx.Auth):
    """Sends a legacy token as it is; a personal access token (a JWT) is exchanged for one of five minutes.

    When that has run out the request is sent a second time: the server refused it before it did anything.
    """

    requires_response_body = True

    def __init__(self, token: str) -> None:
        self._token, self._access = token, ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put the header on `request`."""
        if self._token.count(".") != 2:  # noqa: PLR2004  (a JWT has three parts)
            request.headers["Authorization"] = f"Token {self._token}"
            yield request
            return
        if self._access:
            request.headers["Authorization"] = f"Bearer {self._access}"
            if (yield request).status_code != HTTPStatus.UNAUTHORIZED:
                return
        answer = yield httpx.Request(
            "POST", request.url.copy_with(raw_path=b"/api/token/refresh/"), json={"refresh": self._token}
        )
        self._access = answer.json().get("access", NO_TOKEN) if answer.is_success else NO_TOKEN
        request.headers["Authorization"] = f"Bearer {self._access}"
        yield request


def _reason(answer: httpx.Response) -> str:
    """What the server says, without headers (they carry the session)."""
    try:
        found = answer.json()
    except ValueError:
        return f"a page of {len(answer.content):,} bytes that is no JSON"
    said = (
        {key: found[key] for key in ("detail", "validation_errors") if found.get(key)}
        if isinstance(found, dict)
        else found
    )
    return json.dumps(said)[:SHOWN_CHARACTERS]
