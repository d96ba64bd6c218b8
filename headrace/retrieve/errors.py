"""Errors of retrieval and publishing."""

from headrace.errors import HeadraceError, TransientError


class InvalidRequestError(HeadraceError):
    """The training requests lack a key or a time, or one has the wrong type."""


class UnreadablePartitionError(HeadraceError):
    """A partition is corrupt, or lacks a column."""


class MisplacedRowError(HeadraceError):
    """The event time of a row is not in the interval of its partition."""


class UnknownReleaseError(HeadraceError):
    """This workspace has no release of that name."""


class UnsupportedTypeError(HeadraceError):
    """The online store would change values of a declared type."""


class ReservedNameError(HeadraceError):
    """A feature has the name of a column that Headrace adds."""


class FeatureStoreError(HeadraceError):
    """The registry or the online store lacks what is requested, or refuses."""


class FeatureStoreUnavailableError(FeatureStoreError, TransientError):
    """The registry or the online store does not answer, or was restarted under us: a publish writes what is missing."""


class NothingToPublishError(HeadraceError):
    """The dataset declares no features, or the release has no value to serve."""


class VerificationFailedError(HeadraceError):
    """The loaded slot does not hold the values of the release; the service was not switched."""


class BreakingChangeError(HeadraceError):
    """A feature that is served would be removed or change its type, and that was not allowed."""


class NameConflictError(HeadraceError):
    """Two datasets use one name for a feature table or a service."""
