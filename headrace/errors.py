"""What goes wrong in ways we know: each error says what, where, expected, seen and what to run next."""


class HeadraceError(Exception):
    """A known failure: the command line prints its message, without a stack trace, and exits with 1."""


class NotConfiguredError(HeadraceError):
    """A setting of the environment is missing or cannot be used."""


class TableLockedError(HeadraceError):
    """Another run holds the table."""


class LockLostError(HeadraceError):
    """A run went on after it had lost its lease."""


class MissingObjectError(HeadraceError):
    """Bytes that a manifest names are neither in the cache nor on the remote."""
