"""What goes wrong with a bucket: as both clients tell it, and in our words."""

import re
from http import HTTPStatus

from headrace.errors import HeadraceError, TransientError
from headrace.storage.s3.objects import BucketLocation

BUSY = {
    "429",
    "BandwidthLimitExceeded",
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
"""Codes of a server that is busy, or of two requests that met (S3's list of error codes; botocore retries them)."""

CLOCK = {"RequestExpired", "RequestTimeTooSkewed"}
"""This machine's clock and the server's differ by more than S3 accepts: 15 minutes. It is set again, or NTP does it."""

REFUSALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "403", "401"}
CHANGED = {"PreconditionFailed", "412", "NoSuchKey", "NoSuchVersion", "404"}
ELSEWHERE = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"}

CLOCK_HINT = (
    "The clocks of this machine and of the server differ by more than 15 minutes: set this machine's clock"
    " (`timedatectl`), then run the same command again."
)

STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>([^<]+)</Code>")
MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
REDIRECT = "redirect without LOCATION"
"""How obstore reports S3's answer about a bucket of another region, without its status."""
CAUSE = re.compile(
    r'message: "([^"]+)"|error: "([^"]+)"|error: (IncompleteBody)|(InvalidCertificate)|source: (TimedOut)'
)
"""The innermost of the causes that obstore lists below its message, which is the same for all of them."""


class StorageError(HeadraceError):
    """A request to the object storage failed."""


class StorageUnreachableError(StorageError, TransientError):
    """The server did not answer, was busy, or broke off, until the time for retries was over."""


class ObjectUnreadableError(StorageUnreachableError):
    """The server says that it has the object, and does not give its bytes."""


class AccessDeniedError(StorageError):
    """The server knows us not, or does not let us."""


class ObjectArchivedError(StorageError):
    """The object is in a storage class that gives its bytes only after it was restored."""


class BucketMissingError(StorageError):
    """There is no such bucket at the endpoint."""


class ObjectChangedError(StorageError, TransientError):
    """The object is no longer the one that was listed; the next run lists it again."""


class NoCredentialsError(Exception):
    """Nobody says who asks."""


class ConnectionFailedError(Exception):
    """The server is away, or the line is bad."""


class UntrustedCertificateError(ConnectionFailedError):
    """The server showed a certificate that no authority known here has signed for its name."""


class TruncatedResponseError(ConnectionFailedError):
    """The server gave fewer bytes than it had announced."""


class IncompleteReadError(ConnectionFailedError):
    """A read began, and did not come to its end."""


class S3RequestError(Exception):
    """The server's answer is an error."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(f"{code} {message}".strip())
        self.status = status
        self.code = code


def parse_error(text: str) -> "S3RequestError | ConnectionFailedError":
    """What obstore tells in its message: a refusal, or why there was no answer, or none to the end."""
    if REDIRECT in text:
        return S3RequestError(HTTPStatus.MOVED_PERMANENTLY, "301", "the bucket is in another region")
    status = STATUS.search(text)
    if status is not None:
        code, message = CODE.search(text), MESSAGE.search(text)
        return S3RequestError(int(status[1]), code[1] if code else status[1], message[1] if message else "")
    said, _, below = text.partition("\n")
    found = CAUSE.search(below)
    cause = f" ({next(filter(None, found.groups()))})." if found else ""
    kinds = {"IncompleteBody": TruncatedResponseError, "InvalidCertificate": UntrustedCertificateError}
    kind = next((kind for name, kind in kinds.items() if name in cause), ConnectionFailedError)
    return kind(said + cause)


def is_retryable(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if not isinstance(error, S3RequestError):
        return isinstance(error, ConnectionFailedError) and not isinstance(error, UntrustedCertificateError)
    failed = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.status != HTTPStatus.NOT_IMPLEMENTED
    return failed or error.code in BUSY | CLOCK


def to_storage_error(error: Exception, doing: str, place: BucketLocation, seconds: float) -> StorageError:
    """The error in our words, after trying for so many seconds."""
    where = f"Cannot {doing} at {place.endpoint}"
    if isinstance(error, NoCredentialsError):
        return AccessDeniedError(f"{where}: no credentials found. Set {_keys(place)}.")
    if isinstance(error, S3RequestError) and error.code == "InvalidObjectState":
        return ObjectArchivedError(
            f"{where}: the object is archived (storage class GLACIER or DEEP_ARCHIVE), so it cannot be read at once."
            " Restore it (`aws s3api restore-object`), or move it out of the source's prefix; then run the same command"
            " again."
        )
    if isinstance(error, S3RequestError):
        return _access_denied(error, where, place, seconds)
    if isinstance(error, UntrustedCertificateError):
        return StorageError(
            f"{where}: its certificate is not trusted here: {error} Correct {place.variable_name('ENDPOINT')}, or set"
            " AWS_CA_BUNDLE and SSL_CERT_FILE to the certificates of the authority that signed it."
        )
    if isinstance(error, IncompleteReadError):
        return ObjectUnreadableError(
            f"{where}: tried for {seconds:.0f} s, and the answers broke off; last seen: {error} If other objects can be"
            " read, the server has lost the bytes of this one: `headrace doctor --repair` mends what a release names."
        )
    return StorageUnreachableError(
        f"{where}: tried for {seconds:.0f} s, last seen: {error} Check {place.variable_name('ENDPOINT')} and that the"
        " server runs (`headrace stack status`)."
    )


def _keys(place: BucketLocation) -> str:
    return f"{place.variable_name('ACCESS_KEY')} and {place.variable_name('SECRET_KEY')}"


def _access_denied(error: S3RequestError, where: str, place: BucketLocation, seconds: float) -> StorageError:
    if error.code == "NoSuchBucket":
        return BucketMissingError(
            f"{where}: there is no bucket {place.bucket}. Check"
            f" {'the location of the source' if place.variables else 'HEADRACE_BUCKET'}, or make the bucket."
        )
    if error.code in CHANGED:
        return ObjectChangedError(f"{where}: it has been replaced or deleted since it was listed ({error}).")
    if error.code in REFUSALS:
        return AccessDeniedError(
            f"{where}: refused with {error}. Check {_keys(place)}, that they belong to"
            f" this endpoint, and that they may use the bucket {place.bucket}."
        )
    if error.code in ELSEWHERE:
        return StorageError(
            f"{where}: {error}. Expected the bucket {place.bucket} in the region {place.region}; set"
            f" {place.variable_name('REGION')} to the one it is in."
        )
    if is_retryable(error):
        hint = CLOCK_HINT if error.code in CLOCK else "Try again later."
        return StorageUnreachableError(f"{where}: still {error} after {seconds:.0f} s. {hint}")
    return StorageError(f"{where}: the server answered {error}.")
