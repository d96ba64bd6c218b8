"""What the demo says when it cannot go on."""

from headrace.errors import HeadraceError


class DemoError(HeadraceError):
    """The demo cannot go on."""
