"""One command of a workspace at a time, where the others had better wait than fail."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from headrace.errors import TableLockedError
from headrace.storage.table_store import TableStore

LOCK_TIMEOUT_S = 600
POLL_INTERVAL_S = 0.2


@contextmanager
def wait_for_lock(table_store: TableStore, name: str) -> Iterator[None]:
    """Hold a lock of the workspace, after whoever holds it now.

    Raises:
        TableLockedError: It is held for too long.
    """
    locked = retry_if_exception_type(TableLockedError)
    stop, wait = stop_after_delay(LOCK_TIMEOUT_S), wait_fixed(POLL_INTERVAL_S)
    with ExitStack() as held:
        for attempt in Retrying(retry=locked, stop=stop, wait=wait, reraise=True):
            with attempt:
                held.enter_context(table_store.lock_table(name))
        yield
