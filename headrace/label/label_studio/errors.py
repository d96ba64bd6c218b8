"""What goes wrong with Label Studio. Light: whoever catches these need not import the SDK."""

from headrace.errors import HeadraceError, TransientError


class LabelStudioError(HeadraceError):
    """Label Studio cannot be reached, or does not do what it was asked to do."""


class LabelStudioUnavailableError(LabelStudioError, TransientError):
    """The server does not answer, or a proxy answers in its place: the same request may succeed later."""

    def __init__(self, url: str, cause: str) -> None:
        self.cause = cause
        super().__init__(
            f"Label Studio at {url} does not answer ({cause}). Start it (`headrace stack up`; `headrace stack status`"
            " shows its log) or correct LABEL_STUDIO_URL, then run the same command again: it first looks up what is"
            " stored there."
        )


class UnknownOutcomeError(LabelStudioUnavailableError):
    """No answer to a write: whether the server carried it out is unknown, so it must not be repeated unseen."""


class LabelStudioHttpError(LabelStudioError):
    """The server answers with an error status.

    Attributes:
        status: The HTTP status.
        reason: The status and what the server says, without headers.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class LabelStudioServerError(LabelStudioHttpError, TransientError):
    """Status 5xx: a bug of the server, or a request that it cannot digest (a null character in a text, for example)."""


class LabelConfigDriftError(HeadraceError):
    """The project's label configuration on the server is not the declared one."""
