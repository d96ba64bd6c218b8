"""Known failures. Each message names what happened, where, what was expected and found, and the command to run next.

There are two kinds. A *transient* error may go away by itself (a server that restarts, a
table that another run holds, a lost race), so the same command may succeed a little later. Every other error is
*terminal*: the same command gives the same answer until a person changes something.
"""

import re
from typing import Any, ClassVar

TERMINAL_EXIT_CODE = 1
"""Exit code of a command that failed; 2 is wrong usage, as everywhere."""

TRANSIENT_EXIT_CODE = 75
"""Exit code of a command that may succeed later: EX_TEMPFAIL of sysexits.h."""


_PASSWORD = re.compile(r"(://[^\s'\"/:@]*:)(?!password@)[^\s'\"]*@")
_TOKEN = re.compile(r"(https?://)[^\s'\"/:@]+@")
_PARAMETER = re.compile(
    r"((?<![a-z])[a-z0-9_.-]*(?:password|passwd|pwd|secret|token|signature|credentials?)=)('(?:[^'\\]|\\.)*'|[^\s&;'\"]+)",
    re.IGNORECASE,
)


def hide_credentials(text: str) -> str:
    """A message without the credentials of the addresses in it: user information, parameters, libpq's key=value form.

    Drivers and git print addresses as they got them, so every known error passes its message through here.
    """
    if "://" in text:
        text = _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1***@", text))
    return _PARAMETER.sub(r"\1***", text) if "=" in text else text


class HeadraceError(Exception):
    """A known failure, terminal unless it is a `TransientError`; the command line prints it without a stack trace.

    Its message holds no credentials of addresses.

    Attributes:
        is_transient: Whether the same command may succeed a little later.
        exit_code: What a process that fails with it exits with.
    """

    is_transient: ClassVar[bool] = False
    exit_code: ClassVar[int] = TERMINAL_EXIT_CODE

    def __init__(self, *args: object) -> None:
        """An error with this message."""
        super().__init__(*(hide_credentials(arg) if isinstance(arg, str) else arg for arg in args))

    def details(self) -> dict[str, Any]:
        """What the message says, for programs: further entries of the error as JSON."""
        return {}


class TransientError(HeadraceError):
    """A failure that may go away by itself: the same command may succeed a little later."""

    is_transient = True
    exit_code = TRANSIENT_EXIT_CODE


class NotConfiguredError(HeadraceError):
    """A setting of the environment is missing or cannot be used."""


class ConcurrentRunError(TransientError):
    """Another run works on the same tables: the whole command ends, lest each of the two make some of them."""


class TableLockedError(ConcurrentRunError):
    """Another run holds the table; it is free again when that run ends."""


class LockLostError(ConcurrentRunError):
    """This run no longer holds the lock of its table, and has written nothing since."""


class MissingObjectError(HeadraceError):
    """Bytes that a manifest names are neither in the cache nor on the remote."""
