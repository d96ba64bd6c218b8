"""Errors of labeling: declaration, Label Studio and tables do not fit together."""

from headrace.errors import HeadraceError


class InvalidItemError(HeadraceError):
    """A sampled row, or the task made of it, is not what the declaration says."""


class InvalidTaskError(HeadraceError):
    """A task of the project is not what we send; it is set aside, and the others are collected.

    Attributes:
        task: Its number.
        reason: What was expected, and found.
    """

    def __init__(self, task: int, reason: str) -> None:
        super().__init__(f"task {task}: {reason}")
        self.task, self.reason = task, reason


class NothingSentError(HeadraceError):
    """Label Studio has no project for the labeling task yet."""


class NothingCollectedError(HeadraceError):
    """The annotations table is empty."""


class LabelsWouldVanishError(HeadraceError):
    """The server has no project, although answers were collected from it."""
