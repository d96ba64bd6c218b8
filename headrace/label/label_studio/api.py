"""Requests to Label Studio: reads are retried, writes are sent once, errors are translated.

Every call goes through `label-studio-sdk`, except for these. They are plain HTTP through the SDK's own HTTP client,
which knows the address and adds the account's token (seen with SDK 2.0.19 and server 1.23.2):

| call | why not the SDK's method |
|---|---|
| `GET /api/tasks/` | `tasks.list` parses a page into models that declare `annotations` as text. Every annotated task fails validation against three models and is then kept as it came: work for nothing. Its pager counts pages, which skips tasks when others are deleted meanwhile, and takes any 404 for the last page. |
| `GET /api/projects/<id>/model-versions/` | Only the SDK's legacy client, which has connections and tokens of its own, has a method for it. |

Defaults of the SDK that are turned off here:

- It repeats requests answered with 408, 409, 429 or 5xx, writes included: an import whose answer a proxy replaced with
  a 502 is stored three times. `max_retries=0`; `call_with_retries` is for reads only, and retries none
  that was refused with a 500.
- It follows redirects, and a redirected POST becomes a GET (RFC 9110, 15.4): the write is lost and looks successful.
- `str(ApiError)` holds the response's headers, and with them the session cookie. Messages are made of status and body.
- It trusts the local clock to know when a short-lived access token has expired. A token that the server rejects is
  renewed once, whatever the clock says.
"""  # noqa: E501  a table

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from json import JSONDecodeError, dumps
from typing import Any, ParamSpec, TypeVar

import httpx
import orjson
from label_studio_sdk import LabelStudio
from label_studio_sdk.core import RequestOptions
from label_studio_sdk.core.api_error import ApiError

from headrace import failpoints
from headrace.label.label_studio.errors import (
    LabelStudioError,
    LabelStudioHttpError,
    LabelStudioServerError,
    LabelStudioUnavailableError,
    UnknownOutcomeError,
)
from headrace.storage.retries import retry_attempts

UNAVAILABLE = frozenset({429, 502, 503, 504})
"""Statuses of a server or proxy that is busy or starting. A 500 is a bug or a bad request, and no retry helps."""

NO_RETRIES: RequestOptions = {"max_retries": 0}
SHOWN_CHARACTERS = 500

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class LabelStudioApi:
    """A server and an account on it.

    Attributes:
        url: Address of the server, without a slash at the end.
        sdk: The SDK's client, whose methods `call_with_retries` and `call_once` call.
        retry_timeout_s: How long to retry while the server does not answer; 0 for not at all.
    """

    url: str
    sdk: LabelStudio = field(repr=False)
    retry_timeout_s: float

    def call_with_retries(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer to a method of the SDK that changes nothing.

        Raises:
            LabelStudioUnavailableError: The server does not answer in time.
            LabelStudioError: It rejects the request.
        """
        waits = {"first_s": 0.2, "most_s": 2.0}
        for attempt in retry_attempts("Label Studio", LabelStudioUnavailableError, self.retry_timeout_s, **waits):
            with attempt:
                return self._send(call, *args, **kwargs)
        raise AssertionError  # the loop returns or raises

    def call_once(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer to a method of the SDK that changes something; sent once.

        Raises:
            UnknownOutcomeError: Whether the server carried it out is unknown.
            LabelStudioError: It rejects the request.
        """
        with failpoints.failpoint(f"{call.__qualname__} of Label Studio"):
            try:
                return self._send(call, *args, **kwargs)
            except LabelStudioUnavailableError as error:
                raise UnknownOutcomeError(self.url, error.cause) from None

    def get_json(self, path: str, **params: object) -> Any:  # noqa: ANN401  any JSON
        """The JSON at a path of the server, for calls that the SDK lacks or gets wrong: see the table above.

        Raises:
            LabelStudioUnavailableError: The server does not answer in time.
            LabelStudioError: It rejects the request.
        """
        return self.call_with_retries(self._get_json, path, params)

    def _get_json(self, path: str, params: dict[str, Any], request_options: RequestOptions | None = None) -> Any:  # noqa: ANN401
        http = self.sdk._client_wrapper.httpx_client  # noqa: SLF001  the one HTTP client that adds the token
        response = http.request(path, method="GET", params=params, request_options=request_options)
        if not response.is_success:
            raise ApiError(status_code=response.status_code, headers=dict(response.headers), body=response.text)
        return orjson.loads(response.content)

    def _send(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        kwargs["request_options"] = NO_RETRIES
        try:
            try:
                return call(*args, **kwargs)
            except ApiError as error:
                if error.status_code != HTTPStatus.UNAUTHORIZED or not _discard_access_token(self.sdk):
                    raise
                return call(*args, **kwargs)  # the server rejected the token before it did anything
        except httpx.TransportError as error:
            raise LabelStudioUnavailableError(self.url, f"{type(error).__name__}: {error}") from None
        except JSONDecodeError as error:
            raise self._domain_error(call.__qualname__, ApiError(status_code=HTTPStatus.OK, body=error.doc)) from None
        except ApiError as error:
            raise self._domain_error(call.__qualname__, error) from None

    def _domain_error(self, call: str, error: ApiError) -> LabelStudioError:
        status, said = error.status_code or 0, _describe(error.body)
        reason = f"HTTP {status}: {said}"
        if status in UNAVAILABLE:
            return LabelStudioUnavailableError(self.url, f"HTTP {status}")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return LabelStudioError(
                f"Label Studio at {self.url} rejects the token in LABEL_STUDIO_API_KEY ({reason}). Take a valid one"
                " from Account & Settings > Access Token there (`headrace stack env` prints the local stack's), set it,"
                " and run the same command again."
            )
        if status < HTTPStatus.BAD_REQUEST:  # a success that is not JSON, or a redirect
            location = (error.headers or {}).get("location")
            found = f"a redirect to {location}" if status >= HTTPStatus.MULTIPLE_CHOICES else said
            return LabelStudioError(
                f"{self.url}: expected JSON from Label Studio, found {found}. Set LABEL_STUDIO_URL to the address of"
                " Label Studio itself, then run the same command again."
            )
        kind = LabelStudioServerError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else LabelStudioHttpError
        message = (
            f"Label Studio at {self.url} rejects {call} ({reason}). Correct what it names, then run the same command"
            " again: it first looks up what is stored there."
        )
        return kind(message, status, reason)


def _discard_access_token(sdk: LabelStudio) -> bool:
    """Make the SDK fetch a new short-lived token; False if it had none, because the account has a legacy token."""
    tokens = sdk._client_wrapper._tokens_client  # noqa: SLF001  the SDK renews by its own clock only
    had_one = tokens._access_token is not None  # noqa: SLF001
    tokens._access_token = None  # noqa: SLF001
    return had_one


def _describe(body: object) -> str:
    """What the server says, shortened."""
    try:
        said = orjson.loads(body) if isinstance(body, str) else body
    except JSONDecodeError:
        return f"a page of {len(str(body).encode()):,} bytes that is not JSON"
    if isinstance(said, dict):
        said = {key: said[key] for key in ("detail", "validation_errors") if said.get(key)} or said
    return dumps(said, default=str)[:SHOWN_CHARACTERS]
