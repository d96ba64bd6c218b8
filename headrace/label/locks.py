"""One command at a time where Label Studio or the history has to be looked up before it is changed."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from headrace.errors import TableLockedError
from headrace.storage.table_store import Lake

LOCK_TIMEOUT_S = 600


@contextmanager
def wait_for_lock(lake: Lake, name: str) -> Iterator[None]:
    """Hold a lock of the workspace, after whoever holds it now.

    Raises:
        TableLockedError: It is held for too long.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(lake.lease(name))
                break
            except TableLockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield
