"""Health probes: requests that only the right server answers as expected."""

import asyncio
import json
import urllib.parse
from datetime import datetime
from typing import Any

from headrace.stack.config import HOST

TIMEOUT_S = 30.0
POSTGRES_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
POSTGRES_STARTUP = b"\x00\x00\x00\x17\x00\x03\x00\x00user\x00headrace\x00\x00"
"""Length, version 3.0, the user: https://www.postgresql.org/docs/18/protocol-message-formats.html, StartupMessage."""


async def http_get(url: str, timeout_s: float = TIMEOUT_S) -> tuple[int, bytes]:
    """Status and body of one GET; status 0 if no server answers."""
    parts = urllib.parse.urlsplit(url)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(
                    f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
                )
                await writer.drain()
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        return int(head.split()[1]), body
    except (OSError, TimeoutError, IndexError, ValueError):
        return 0, b""


async def get_json(url: str) -> dict[str, Any]:
    """The JSON object of a response; an empty one if there is none."""
    status, body = await http_get(url)
    try:
        content = json.loads(body) if status == 200 else {}  # noqa: PLR2004  HTTP OK
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


async def responds(url: str) -> bool:
    """Whether an HTTP server answers, with any status (S3 rejects a request without a signature)."""
    status, _ = await http_get(url)
    return status > 0


async def returns_ok(url: str) -> bool:
    """Whether the status is 200."""
    status, _ = await http_get(url)
    return status == 200  # noqa: PLR2004  HTTP OK


async def speaks_postgres(port: int) -> bool:
    """Whether a PostgreSQL server asks who connects: one that is starting up listens already, and refuses everybody."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(POSTGRES_SSL_REQUEST)
                if await reader.read(1) != b"N":
                    return False
                writer.write(POSTGRES_STARTUP)
                return await reader.read(1) == b"R"  # a request for a password; a refusal is an E
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def has_heartbeat_since(health: dict[str, Any], component: str, started_at: float) -> bool:
    """Whether a component of Airflow is healthy by a heartbeat after `started_at`, not by an earlier process's."""
    status = health.get(component) or {}
    heartbeat = status.get(f"latest_{component}_heartbeat")
    if status.get("status") != "healthy" or not isinstance(heartbeat, str):
        return False
    return datetime.fromisoformat(heartbeat).timestamp() >= started_at
