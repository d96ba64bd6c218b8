"""What goes wrong with the local stack in ways we know."""

from headrace.errors import HeadraceError


class StackError(HeadraceError):
    """The stack cannot be started, found or stopped."""


class StartFailedError(StackError):
    """One server did not come up; the others were stopped."""
