"""Trying again what may pass: after a wait that grows, and never without a word on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from stamina import Attempt, retry_context
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

ASKED: ContextVar[str] = ContextVar("asked")
"""The server that is being asked."""


def attempts(
    server: str, on: type[Exception] | Callable[[Exception], bool], patience_s: float, first_s: float, most_s: float
) -> Iterator[Attempt]:
    """Attempts to ask a server, until one does not fail or patience is at its end; then the last error rises.

    Args:
        server: What a person calls it.
        on: Which errors may pass.
        patience_s: Seconds after which there is no other attempt; 0 for only one.
        first_s: Seconds to wait after the first attempt, about.
        most_s: Seconds to wait after any attempt, at most.
    """
    ASKED.set(server)
    number, limit = (None, patience_s) if patience_s else (1, None)
    yield from retry_context(on=on, attempts=number, timeout=limit, wait_initial=first_s, wait_max=most_s)


def say(details: RetryDetails) -> None:
    """Tell a person what is waited for; the error's own text may hold more than a log should."""
    cause = type(details.caused_by).__name__
    when = f"next try in {details.wait_for:.1f} s (no. {details.retry_num})"
    print(f"asking {ASKED.get()} failed ({cause}): {when}", file=sys.stderr)  # noqa: T201


set_on_retry_hooks([say])
