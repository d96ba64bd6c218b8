"""One sender of labeling tasks at a time, on any machine: the one effect of a run that must not happen twice.

Whoever creates the ref `<namespace>-locks/<dataset>/<labeling task>` sends, and deletes it afterwards. A sender that
was killed leaves it; its own run takes it over at once, and another one when it is old. Should the first sender live on
all the same, then what Label Studio holds decides: it is looked up before tasks are created, and duplicates that nobody
has annotated are removed (`headrace.label.label_studio.import_tasks`).
"""

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from headrace.errors import TableLockedError
from headrace.runs.run_refs import RunRefs
from headrace.storage import git, git_commits
from headrace.storage.git_refs import RefChange, RefMovedError

EXPIRES_S = 900
"""Seconds after which a lock is a dead sender's. A batch of 250 tasks takes well under one."""

TIMEOUT_S = 600
POLL_S = 1.0


@contextmanager
def hold_sender_lock(refs: RunRefs, dataset: str, labeling: str, run: str) -> Iterator[None]:
    """Be the only sender of a labeling task.

    Raises:
        TableLockedError: Another run sends for too long.
    """
    name = f"{refs.namespace}-locks/{dataset}/{labeling}"
    message = f"{run} sends\n\n{socket.gethostname()} {secrets.token_hex(8)}"
    own = git_commits.build_commit(refs.root, [], "", {}, message)
    deadline = time.monotonic() + TIMEOUT_S
    while not _acquire(refs, name, own, run):
        if time.monotonic() > deadline:
            raise TableLockedError(
                f"labels {dataset} {labeling}: another run sends tasks since {TIMEOUT_S} s. Let it finish, then run the"
                f" same command again; a sender that was killed is taken over after {EXPIRES_S} s."
            )
        time.sleep(POLL_S)
    try:
        yield
    finally:
        with suppress(RefMovedError):  # taken over
            refs.store.swap({name: RefChange(own, "")})


def _acquire(refs: RunRefs, name: str, own: str, run: str) -> bool:
    holder = refs.store.read(name.rpartition("/")[0]).get(name, "")
    if holder and not _is_free(refs, holder, run):
        return False
    with suppress(RefMovedError):
        refs.store.swap({name: RefChange(holder, own)})
        return True
    return False


def _is_free(refs: RunRefs, holder: str, run: str) -> bool:
    """Whether the sender that holds the lock is dead: an earlier try of the same run, or an old one."""
    written, subject = git.git(refs.root, "show", "--no-patch", "--format=%ct %s", holder).split(" ", 1)
    return subject == f"{run} sends" or datetime.now(UTC).timestamp() - int(written) > EXPIRES_S
