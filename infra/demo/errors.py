"""Errors of the demo."""

from headrace.errors import HeadraceError


class DemoError(HeadraceError):
    """The demo cannot continue."""
