"""Where the objects of a source are: an address of a bucket, a container or a folder, and of what is below it."""

import re
from dataclasses import dataclass

FOLDER_SCHEME = "file:"
"""Before the path of a folder that stands in for a bucket."""

S3, GOOGLE, AZURE = "s3://", "gs://", "az://"
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SECRET = re.compile(
    r"[?&][\w-]*(sig|signature|token|secret|password|credential|accesskeyid|key)=", re.IGNORECASE | re.ASCII
)
"""A parameter that signs an address or holds credentials, as in a presigned URL or one with a SAS token."""

FORMS = "'s3://bucket/orders/', 'gs://bucket/orders/', 'az://container/orders/', 'file:data/orders/', or 'orders/'"
CREDENTIALS_FAULT = (
    "expected an address without credentials, found one that may hold some, which is not shown: move them into the"
    " environment, as those of a named `connection`"
)


class InvalidLocationError(ValueError):
    """The text is not the address of objects. The message shows no credentials."""


@dataclass(frozen=True)
class ObjectLocation:
    """Where objects are, as their keys in a bucket, a container or a folder.

    Attributes:
        bucket: As it is recorded with each object: the name of an S3 bucket, `gs://` or `az://` and a name, or `file:`
            and the path of a folder; empty for the bucket of HEADRACE_BUCKET.
        prefix: What the keys of all objects begin with.
        object_key: Key of the object that the address may name itself; empty if it ends with a slash.
        is_base: Whether patterns see only what follows the prefix; else the whole key.
    """

    bucket: str
    prefix: str
    object_key: str = ""
    is_base: bool = True

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.bucket.startswith(FOLDER_SCHEME)

    def below(self, key: str) -> str:
        """The part of a key that patterns see: of the object that the address names itself, its file name."""
        if not self.is_base:
            return key
        return key.rpartition("/")[2] if key == self.object_key else key.removeprefix(self.prefix)


def parse_location(text: str) -> ObjectLocation:
    """The location that an address names.

    `orders` and `orders/` are the same objects, those below `orders/`; without the slash also the object `orders`.
    Names are taken as they are: `%20` is no space, and `#` and `?` have no meaning.

    Raises:
        InvalidLocationError: It is none, or may hold credentials.
    """
    if SECRET.search(text):
        raise InvalidLocationError(CREDENTIALS_FAULT)
    if text.startswith(FOLDER_SCHEME):
        return _folder(text)
    scheme = next((scheme for scheme in (S3, GOOGLE, AZURE) if text.startswith(scheme)), "")
    if scheme:
        name, _, path = text.removeprefix(scheme).partition("/")
        _check_name(name, scheme)
        return _below("" if scheme == S3 else scheme, name, path)
    if found := SCHEME.match(text):
        raise InvalidLocationError(f"expected an address such as {FORMS}, found one that begins with {found[0]!r}")
    if text.startswith("/"):
        raise InvalidLocationError(
            f"keys of a bucket do not begin with '/', found {text!r}: take it away, or write 'file://{text}'"
        )
    return _below("", "", text)


def _check_name(name: str, scheme: str) -> None:
    if "@" in name or ":" in name:
        raise InvalidLocationError(CREDENTIALS_FAULT)
    if not BUCKET_NAME.fullmatch(name):
        raise InvalidLocationError(f"expected the name of a bucket after {scheme!r}, found {name!r}")


def _below(scheme: str, name: str, path: str) -> ObjectLocation:
    if not path:
        return ObjectLocation(scheme + name, "")
    return ObjectLocation(scheme + name, path.rstrip("/") + "/", "" if path.endswith("/") else path)


def _folder(text: str) -> ObjectLocation:
    """A folder or file: the folder that it is in stands for the bucket, so that both are recorded in the same way."""
    path = text.removeprefix(FOLDER_SCHEME)
    start = "//" if path.startswith("//") else ""
    path = path.removeprefix(start)
    if start and not path.startswith("/"):
        raise InvalidLocationError(
            f"expected 'file:///' and the path of a folder, or 'file:' and one relative to the project, found {text!r}"
        )
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise InvalidLocationError(f"expected a path without '..', found {text!r}: write 'file:///' and the whole path")
    root = "/" if path.startswith("/") else ""
    if not parts:
        return ObjectLocation(f"{FOLDER_SCHEME}{start}{root or '.'}", "")
    above, name = root + "/".join(parts[:-1]), parts[-1]
    is_marked = path.endswith(("/", "/."))
    return ObjectLocation(f"{FOLDER_SCHEME}{start}{above or '.'}", f"{name}/", "" if is_marked else name)
