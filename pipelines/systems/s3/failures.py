"""What goes wrong with a bucket, in ways we know."""

from dataclasses import dataclass
from http import HTTPStatus

from pipelines.errors import HeadraceError
from pipelines.systems.s3.wire import UNREACHED, RefusedError

BUSY = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestTimeout", "429"}
REFUSALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "403", "401"}
CHANGED = {"PreconditionFailed", "412", "NoSuchKey", "NoSuchVersion", "404"}
ELSEWHERE = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"}


class StorageError(HeadraceError):
    """A request to the object storage failed for good."""


class StorageUnreachableError(StorageError):
    """The server did not answer, or not to the end, within our patience."""


class StorageRefusedError(StorageError):
    """The server knows us not, or does not let us."""


class BucketMissingError(StorageError):
    """There is no such bucket at the endpoint."""


class ObjectChangedError(StorageError):
    """The object is no longer the one that was listed."""


@dataclass(frozen=True)
class Place:
    """Where it went wrong."""

    endpoint: str
    bucket: str
    region: str


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if not isinstance(error, RefusedError):
        return isinstance(error, UNREACHED)
    failed = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.status != HTTPStatus.NOT_IMPLEMENTED
    return failed or error.code in BUSY


def known(error: Exception, doing: str, place: Place, seconds: float) -> StorageError:
    """The error in our words, after trying for so many seconds."""
    where = f"Cannot {doing} at {place.endpoint}"
    if isinstance(error, RefusedError):
        return _refused(error, where, place, seconds)
    seen = str(error) or type(error).__name__
    return StorageUnreachableError(
        f"{where}: tried for {seconds:.0f} s, last seen: {seen} Check AWS_ENDPOINT_URL and that the server runs"
        " (`headrace stack status`)."
    )


def _refused(error: RefusedError, where: str, place: Place, seconds: float) -> StorageError:
    if error.code == "NoSuchBucket":
        return BucketMissingError(
            f"{where}: there is no bucket {place.bucket}. Check HEADRACE_BUCKET, or make the bucket."
        )
    if error.code in CHANGED:
        return ObjectChangedError(f"{where}: it has been replaced or deleted since it was listed ({error}).")
    if error.code in REFUSALS:
        return StorageRefusedError(
            f"{where}: refused with {error}. Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, that they belong to"
            f" this endpoint, and that they may use the bucket {place.bucket}."
        )
    if error.code in ELSEWHERE:
        return StorageError(
            f"{where}: {error}. Expected the bucket {place.bucket} in the region {place.region}; set AWS_REGION to the"
            " one it is in."
        )
    if may_pass(error):
        return StorageUnreachableError(f"{where}: still {error} after {seconds:.0f} s. Try again later.")
    return StorageError(f"{where}: the server answered {error}.")
