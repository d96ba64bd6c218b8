"""Retries of what may pass: after a wait that grows, and never without a line in the log."""

import logging
from collections.abc import Callable, Iterator

from tenacity import (
    AttemptManager,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

log = logging.getLogger(__name__)


def retry_attempts(
    server: str, on: type[Exception] | Callable[[Exception], bool], timeout_s: float, first_s: float, most_s: float
) -> Iterator[AttemptManager]:
    """Attempts to ask a server, until one succeeds or the time for retries is over; then the last error is raised.

    Args:
        server: Its name in the log.
        on: Which errors are retried.
        timeout_s: Seconds after which there is no other attempt; 0 for only one.
        first_s: Seconds to wait after the first attempt; each wait is about twice as long as the one before.
        most_s: Seconds to wait after any attempt, at most.
    """

    def is_retried(error: BaseException) -> bool:
        return isinstance(error, on) if isinstance(on, type) else isinstance(error, Exception) and on(error)

    def log_retry(state: RetryCallState) -> None:
        # The type alone: the text of an error may hold an address with its password.
        error = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0.0
        number = state.attempt_number + 1
        log.warning("%s is unavailable (%s): attempt %d in %.1f s", server, type(error).__name__, number, wait_s)

    yield from Retrying(
        stop=stop_after_delay(timeout_s) if timeout_s else stop_after_attempt(1),
        wait=wait_exponential_jitter(first_s, most_s),
        retry=retry_if_exception(is_retried),
        before_sleep=log_retry,
        reraise=True,
    )
