"""Of all runs on all machines, one at a time sends labeling tasks."""

import threading
import time
from contextlib import ExitStack

import pytest
from release_clones import Origin, dataset
from run_clones import RunOfClone

from headrace.errors import TableLockedError
from headrace.runs import sender_lock
from headrace.runs.sender_lock import hold_sender_lock

TINY = dataset("tiny")
LOCK = "refs/headrace/runs-locks/tiny/people"


def sender(origin: Origin, name: str) -> RunOfClone:
    """A run in a clone of its own."""
    return RunOfClone(origin.clone(name), TINY, name)


def test_a_sender_waits_for_the_one_on_another_machine(origin: Origin) -> None:
    first, second = sender(origin, "first"), sender(origin, "second")
    sent: list[str] = []

    def send(run: RunOfClone) -> None:
        with hold_sender_lock(run.refs, "tiny", "people", run.name):
            sent.append(f"{run.name} begins")
            time.sleep(1)
            sent.append(f"{run.name} ends")

    threads = [threading.Thread(target=send, args=[run]) for run in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [line.split()[1] for line in sent] == ["begins", "ends", "begins", "ends"]
    assert origin.git("for-each-ref", LOCK) == ""


def test_a_sender_that_was_killed_is_taken_over_by_its_run_at_once_and_by_others_later(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sender(origin, "first"), sender(origin, "second")
    monkeypatch.setattr(sender_lock, "TIMEOUT_S", 1)
    with ExitStack() as killed:
        killed.enter_context(hold_sender_lock(first.refs, "tiny", "people", first.name))
        before = origin.git("rev-parse", LOCK)

        with pytest.raises(TableLockedError, match="another run sends"):
            hold_sender_lock(second.refs, "tiny", "people", second.name).__enter__()
        with hold_sender_lock(first.refs, "tiny", "people", first.name):
            assert origin.git("rev-parse", LOCK) != before
        assert origin.git("for-each-ref", LOCK) == ""

        monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-01-01T00:00:00+0000")
        old = hold_sender_lock(first.refs, "tiny", "people", first.name)
        old.__enter__()
        monkeypatch.delenv("GIT_COMMITTER_DATE")
        with hold_sender_lock(second.refs, "tiny", "people", second.name):
            old.__exit__(None, None, None)
            assert "second sends" in origin.git("log", "-1", "--format=%s", LOCK), "it is the second's now"
    assert origin.git("for-each-ref", LOCK) == ""
