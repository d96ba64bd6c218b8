"""Requests and answers: one connection for each request under way, kept open for the next."""

import os
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import IO
from urllib.parse import quote, urlsplit
from weakref import finalize
from xml.etree import ElementTree as ET

from pipelines.systems.s3.signing import Keys, Request, encoded, signed

CHUNK = 1024 * 1024
CONNECT_SECONDS = 5
READ_SECONDS = 20
FAILED = 300


class RefusedError(Exception):
    """The server's answer is an error."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(f"{code} {message}".strip())
        self.status = status
        self.code = code


class CutShortError(Exception):
    """An answer ended before its time."""


UNREACHED = (OSError, HTTPException, CutShortError)
"""What a server that is away, or a bad line, does to a request."""


@dataclass(frozen=True)
class Slice:
    """Bytes of a file, from one position on."""

    file: IO[bytes]
    start: int
    size: int


@dataclass(frozen=True)
class Asked:
    """A request: its method, the bucket and key it is for, and what it brings."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Slice = b""


@dataclass(frozen=True)
class Answer:
    """An answer, its headers, and the bytes that follow."""

    response: HTTPResponse

    def header(self, name: str) -> str | None:
        """A header, if the server sent it."""
        return self.response.getheader(name)

    @property
    def mark(self) -> str:
        """The ETag, without its quotes."""
        return (self.header("ETag") or "").strip('"')

    @property
    def size(self) -> int:
        """Bytes that follow, or that a GET would bring."""
        return int(self.header("Content-Length") or 0)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes as they come, in a buffer that the next chunk overwrites.

        Raises:
            CutShortError: They ended early.
        """
        size, got = self.size, 0
        buffer = memoryview(bytearray(min(size, CHUNK) or 1))
        while count := self.response.readinto(buffer):
            got += count
            yield buffer[:count]
        if got != size:
            raise CutShortError(f"{got} read, but total bytes expected is {size}.")


@dataclass(frozen=True)
class Server:
    """An S3 server; safe to use from many threads.

    Attributes:
        endpoint: Its address: scheme, host, port and what its paths begin with.
        region: What the signature names.
        keys: Who asks.
    """

    endpoint: str
    region: str
    keys: Callable[[], Keys]
    _idle: deque[HTTPConnection] = field(default_factory=deque, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Connections end with the server that they are kept for."""
        finalize(self, _close, self._idle)

    @contextmanager
    def answering(self, asked: Asked) -> Iterator[Answer]:
        """The answer to a request, to be read to its end within the block: else the connection is given up.

        Raises:
            RefusedError: It is an error.
        """
        connection = _taken(self._idle) or self._connect()
        try:
            response = self._send(connection, asked)
            yield Answer(response)
        except BaseException:
            connection.close()
            raise
        if response.isclosed() and not response.will_close:
            self._idle.append(connection)
        else:
            connection.close()

    def ask(self, asked: Asked) -> tuple[Answer, bytes]:
        """A small answer and all its bytes.

        Raises:
            RefusedError: It is an error.
        """
        with self.answering(asked) as answer:
            return answer, answer.response.read()

    def forget_connections(self) -> None:
        """Close those that are kept: a server that went away has closed them on its side."""
        _close(self._idle)

    def _send(self, connection: HTTPConnection, asked: Asked) -> HTTPResponse:
        _, host, base = self._address
        path, query, body = base + quote(asked.path, safe="/-_.~"), encoded(asked.query), asked.body
        size = len(body) if isinstance(body, bytes) else body.size
        connection.putrequest(asked.method, f"{path}?{query}" if query else path, skip_host=True)
        request = Request(asked.method, host, path, query, asked.headers)
        for name, value in signed(request, self.keys(), self.region, datetime.now(UTC)).items():
            connection.putheader(name, value)
        if asked.method in {"PUT", "POST"}:
            connection.putheader("content-length", str(size))
        connection.endheaders()
        with suppress(ConnectionError):  # a server that refuses may not wait for the end: it says why in its answer
            if isinstance(body, bytes):
                connection.send(body)
            elif size:
                connection.sock.sendfile(body.file, body.start, size)
        response = connection.getresponse()
        if response.status >= FAILED:
            raise refusal(response.status, response.read())
        return response

    def _connect(self) -> HTTPConnection:
        scheme, host, _ = self._address
        secure = scheme == "https"
        found = HTTPSConnection(host, context=_tls()) if secure else HTTPConnection(host)
        found.timeout = CONNECT_SECONDS
        found.connect()
        found.sock.settimeout(READ_SECONDS)
        return found

    @cached_property
    def _address(self) -> tuple[str, str, str]:
        """Scheme, host with port, and what paths begin with."""
        found = urlsplit(self.endpoint)
        return found.scheme, found.netloc, found.path.rstrip("/")


def _taken(idle: deque[HTTPConnection]) -> HTTPConnection | None:
    with suppress(IndexError):
        return idle.pop()
    return None


def _close(idle: deque[HTTPConnection]) -> None:
    while connection := _taken(idle):
        connection.close()


def refusal(status: int, body: bytes) -> RefusedError:
    """The error that an answer says in XML, or by its status alone."""
    try:
        root = elements(body)
    except ET.ParseError:
        return RefusedError(status, str(status))
    return RefusedError(status, root.findtext("Code") or str(status), root.findtext("Message") or "")


def elements(body: bytes) -> ET.Element:
    """An answer in XML, its names without their namespace."""
    root = ET.fromstring(body)  # noqa: S314  from the server that our data is on
    for item in root.iter():
        item.tag = item.tag.rpartition("}")[2]
    return root


def _tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
