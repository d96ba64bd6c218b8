"""Errors of the local stack."""

from headrace.errors import HeadraceError

INSTALL_EXTRA = "`pip install 'headrace[stack]'`"


class StackError(HeadraceError):
    """The stack cannot be started, found or stopped."""


class DamagedJsonError(StackError):
    """A state file of the stack is empty or was cut."""


class StartFailedError(StackError):
    """A server did not become healthy; the others were stopped."""


class NotInstalledError(StackError):
    """A program that a server runs is not installed."""
