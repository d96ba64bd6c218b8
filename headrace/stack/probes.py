"""Small questions to a server that only the right server answers."""

import asyncio
import json
import urllib.parse
from datetime import datetime
from typing import Any

from headrace.stack.paths import ADDRESS

TIMEOUT_S = 30.0
POSTGRES_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


async def get(url: str, timeout_s: float = TIMEOUT_S) -> tuple[int, bytes]:
    """One GET: status and body; status 0 when nobody answers."""
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
    """The answer as an object; an empty one when there is none."""
    status, body = await get(url)
    try:
        answer = json.loads(body) if status == 200 else {}  # noqa: PLR2004 -- HTTP OK
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


async def answers(url: str) -> bool:
    """Whether an HTTP server is there, whatever it says (S3 refuses a request without a signature)."""
    status, _ = await get(url)
    return status > 0


async def is_ok(url: str) -> bool:
    """Whether the answer is 200."""
    status, _ = await get(url)
    return status == 200  # noqa: PLR2004 -- HTTP OK


async def speaks_postgres(port: int) -> bool:
    """Whether a PostgreSQL server answers the question that opens every conversation with it."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(ADDRESS, port)
            try:
                writer.write(POSTGRES_SSL_REQUEST)
                return await reader.read(1) in (b"N", b"S")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def beats_since(health: dict[str, Any], part: str, started: float) -> bool:
    """Whether a part of Airflow is healthy by a heartbeat of the process started then, not of an earlier one."""
    status = health.get(part) or {}
    beat = status.get(f"latest_{part}_heartbeat")
    if status.get("status") != "healthy" or not isinstance(beat, str):
        return False
    return datetime.fromisoformat(beat).timestamp() >= started
