"""What both clients speak of: objects, what an answer says, and where they are."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from headrace.errors import NotConfiguredError
from headrace.object_location import AZURE, FOLDER_SCHEME, GOOGLE

CONNECT_SECONDS = 5
READ_SECONDS = 20
WRITE_SECONDS = 600
"""How long a large body may take: its whole way there counts as waiting for the answer."""
ADDRESS = re.compile(r"https?://([^/@\s]*@)?([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/\S*)?")

IDLE_SECONDS = 4
"""A kept connection is used no later than this: less than servers keep one."""


@dataclass(frozen=True)
class ObjectMeta:
    """One object as a listing shows it.

    Attributes:
        key: Its name in the bucket.
        size: Bytes.
        etag: The server's mark of this version, without quotes.
        version: Version id where the bucket keeps versions and the answer tells it (a listing does not).
        modified: When it was written, by the server's clock, where the answer tells it.
    """

    key: str
    size: int
    etag: str
    version: str | None = None
    modified: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class GetResponse:
    """The answer to a read: the object as the server describes it, and its bytes, a chunk at a time."""

    object: ObjectMeta
    chunks: Iterator[Any]


AWS_VARIABLES = {
    "ENDPOINT": "AWS_ENDPOINT_URL",
    "ACCESS_KEY": "AWS_ACCESS_KEY_ID",
    "SECRET_KEY": "AWS_SECRET_ACCESS_KEY",
    "REGION": "AWS_REGION",
}
"""Setting of a bucket that is no named connection → its environment variable."""


@dataclass(frozen=True)
class BucketLocation:
    """A bucket of a server, and who asks for it.

    Attributes:
        bucket: Its name.
        asked: Address of the server that was asked for; without one, that of the environment, else AWS.
        access_key: Without one, AWS's usual chain of credentials: environment, profile, container, machine's role.
        secret_key: As `access_key`.
        asked_region: Without one, that of the environment, else us-east-1.
        session_token: With keys that are valid for a while.
        profile: Name of a profile with credentials, in place of keys.
        variables: What the names of its environment variables begin with, where it is a named connection.
    """

    bucket: str
    asked: str | None
    access_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    asked_region: str | None
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    variables: str = ""

    def variable_name(self, name: str) -> str:
        """The environment variable with a setting of this place, for messages: `ENDPOINT`, `ACCESS_KEY`, `REGION`."""
        return f"{self.variables}{name}" if self.variables else AWS_VARIABLES[name]

    @property
    def own_endpoint(self) -> str | None:
        """Address of a server that is not AWS.

        Raises:
            NotConfiguredError: It is no address. Clients would panic at it, or show it with its credentials.
        """
        address = self.asked or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if address and not ADDRESS.fullmatch(address):
            raise self.endpoint_error()
        return address

    def endpoint_error(self) -> NotConfiguredError:
        """The error for an endpoint that no client takes."""
        return NotConfiguredError(
            f"s3://{self.bucket}: expected an address such as http://127.0.0.1:9000 as endpoint, found something else,"
            " which is not shown because it may hold credentials. Correct"
            f" {self.variable_name('ENDPOINT')}."
        )

    @property
    def endpoint(self) -> str:
        """Address of the server."""
        return self.own_endpoint or f"https://s3.{self.region}.amazonaws.com"

    @property
    def region(self) -> str:
        """What requests are signed for."""
        return self.asked_region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def object_address(bucket: str, key: str) -> str:
    """Address of an object, or of a prefix, of a bucket or of a folder in its place."""
    return f"{bucket}/{key}" if bucket.startswith((FOLDER_SCHEME, GOOGLE, AZURE)) else f"s3://{bucket}/{key}"


def is_plain_key(key: str) -> bool:
    """Whether a key is a path of plain names, as obstore wants them: no `//`, `..`, or control character."""
    parts = key.split("/")
    return not any(part in {"", ".", ".."} for part in parts) and key.isprintable()
