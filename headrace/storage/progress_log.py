"""Progress of long work, for a log: how far it is, every ten seconds."""

import time
from collections.abc import Iterable, Iterator
from logging import Logger
from typing import TypeVar

T = TypeVar("T")
INTERVAL_S = 10.0


def log_progress(items: Iterable[T], total: int, done: str, log: Logger) -> Iterator[T]:
    """The items as they come; work that takes longer than ten seconds is reported every ten seconds.

    Args:
        items: What is worked on, each item given when its work is done.
        total: How many there are.
        done: What has happened to the items, for example `objects written`.
        log: Where to report it.
    """
    started = reported = time.monotonic()
    for count, item in enumerate(items, start=1):
        now = time.monotonic()
        if now - reported >= INTERVAL_S and count < total:
            reported = now
            log.info("%d of %d %s after %.0f s", count, total, done, now - started)
        yield item
