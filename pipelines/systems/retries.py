"""Trying again what may pass: after a wait that grows, and never without a word on standard error."""

import sys

from stamina import retry_context
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

__all__ = ["retry_context"]


def say(details: RetryDetails) -> None:
    """Tell a person what is waited for; the error's own text may hold more than a log should."""
    cause = type(details.caused_by).__name__
    print(f"{cause}: next try in {details.wait_for:.1f} s (no. {details.retry_num})", file=sys.stderr)  # noqa: T201


set_on_retry_hooks([say])
