"""What goes wrong between a labeling task's declaration, the people who answer, and the tables."""

from headrace.errors import HeadraceError


class InvalidItemError(HeadraceError):
    """A sampled row, or the task made of it, is not what the declaration says."""


class NothingSentError(HeadraceError):
    """Label Studio has no project for the labeling task yet."""


class NothingCollectedError(HeadraceError):
    """The annotations table is empty."""


class LabelsWouldVanishError(HeadraceError):
    """The server holds none of the annotations that were collected from it."""
