"""AWS Signature Version 4: what a request says so that the server knows who asks."""

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
"""Stands for the hash of the body, which Content-MD5 and TLS guard: one hash more would cost more than the sending."""


class NoKeysError(Exception):
    """Nobody says who we are."""


@dataclass(frozen=True)
class Keys:
    """Who asks."""

    access: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Request:
    """What is signed: the method, where it goes, and the headers by their names in lower case."""

    method: str
    host: str
    path: str
    query: str
    headers: Mapping[str, str]


def find_keys(access: str | None, secret: str | None) -> Callable[[], Keys]:
    """These keys, else those of the environment, else what AWS's chain finds: profile, container, machine's role.

    The chain is botocore's, imported only where it is asked; it renews what expires, so ask again for each request.

    Raises:
        NoKeysError: There are none, or half of them.
    """
    token = None
    if not access and not secret:
        access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        token = os.environ.get("AWS_SESSION_TOKEN")
    if access and secret:
        keys = Keys(access, secret, token)
        return lambda: keys
    if access or secret:
        raise NoKeysError
    return _chain()


def _chain() -> Callable[[], Keys]:
    from botocore.session import Session  # noqa: PLC0415  a tenth of a second that few need

    found = Session().get_credentials()
    if found is None:
        raise NoKeysError
    return lambda: Keys(*found.get_frozen_credentials())


def encoded(pairs: Mapping[str, str]) -> str:
    """A query, in the order and the spelling that are signed."""
    return "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(pairs.items()))


def signed(request: Request, keys: Keys, region: str, now: datetime) -> dict[str, str]:
    """The headers of the request, and with them those that sign it."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    headers = {**request.headers, "host": request.host, "x-amz-content-sha256": UNSIGNED, "x-amz-date": stamp}
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    names = sorted(headers)
    lines = (request.method, request.path, request.query, *(f"{name}:{headers[name]}" for name in names), "")
    canonical = "\n".join((*lines, ";".join(names), UNSIGNED))
    text = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signature = hmac.digest(_key(keys.secret, stamp[:8], region), text.encode(), "sha256").hex()
    who = f"Credential={keys.access}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return {**headers, "authorization": f"{ALGORITHM} {who}"}


@lru_cache(maxsize=8)
def _key(secret: str, day: str, region: str) -> bytes:
    key = b"AWS4" + secret.encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
