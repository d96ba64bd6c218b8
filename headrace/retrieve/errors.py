"""What goes wrong between a feature table and the one who asks for features."""

from headrace.errors import HeadraceError, TransientError


class RequestRefusedError(HeadraceError):
    """The rows that features are asked for can not be answered as they are."""


class UnreadablePartitionError(HeadraceError):
    """A partition of a feature table is missing, or its bytes are not what its manifest says."""


class MisplacedRowError(HeadraceError):
    """A row lies in the partition of another day."""


class UnknownReleaseError(HeadraceError):
    """There is no release of that name in this workspace."""


class UnsupportedTypeError(HeadraceError):
    """A declared type that would not come out of the online store as it went in."""


class FeatureStoreError(HeadraceError):
    """The registry or the online store does not hold what is asked for, or refuses."""


class FeatureStoreUnavailableError(FeatureStoreError, TransientError):
    """The registry or the online store does not answer, or was restarted under us: a publish writes what is missing."""


class NothingToPublishError(HeadraceError):
    """The dataset declares no features, or the release has no value of any."""


class ProofFailedError(HeadraceError):
    """What was loaded is not what the release says; the service was not switched."""


class DefinitionChangedError(HeadraceError):
    """A feature that is served would be gone, or be of another type, and nobody has said that it may."""


class NameTakenError(HeadraceError):
    """Two datasets call a feature table or a service the same."""
