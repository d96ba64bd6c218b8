"""The race of releases again, through runs: each task of a run is on another machine than the one before it."""

from dataclasses import dataclass

import pytest
from release_clones import Clone, Origin
from release_race import Race, run_race
from run_clones import RunOfClone, days, run_refs

from headrace.runs.old_runs import end_old_runs
from headrace.runs.task import RunOutdatedError
from headrace.runs.worktree import list_worktrees
from headrace.settings import load_settings

COMPUTED = ("validate", "transform", "label")


@dataclass
class RunRace(Race):
    """The race, with a run for every release. The clones show no tables of their own."""

    def release(self, clone: Clone, number: int, turn: int) -> str:
        """Run a dataset, each task in the next clone, and release it; the release."""
        self._run(clone, number, f"round-{turn}").ingest(self._arrived(number, turn))
        self._run(self._next(clone), number, f"round-{turn}").compute(*COMPUTED)
        return self._release_run(self._run(self._next(self._next(clone)), number, f"round-{turn}"))

    def release_newer_before_older(self, number: int, turn: int) -> None:
        """Two runs of one dataset; the one that read the source before the other releases last, and is refused."""
        late = self._run(self.clones[0], number, f"late-{turn}")
        late.ingest(days(1, amount=turn + 1000))
        newest = self.release(self.clones[-1], number, turn)
        late.compute(*COMPUTED)
        with pytest.raises(RunOutdatedError, match=rf"headrace runs start \w+ --run late-{turn}"):
            late.release()
        late.start()
        late.ingest(self._arrived(number, turn))
        late.compute(*COMPUTED)
        assert self._release_run(late) == newest, "what the message says finds nothing to do"

    def label(self, clone: Clone, number: int, turn: int) -> None:
        """Collect one annotation in a run that has begun before another collected, and release it."""
        run, name = self._run(clone, number, f"{clone.root.name}-{turn}"), f"{clone.root.name}-{turn}"
        run.ingest(self._arrived(number, 0))
        run.collect(name)
        self.answered.append(name)
        run.compute(*COMPUTED)
        self._release_run(run)

    def _release_run(self, run: RunOfClone) -> str:
        made, tables = run.release_tables()
        if made.created:
            self.audited[made.name] = tables
        return made.name

    def _run(self, clone: Clone, number: int, name: str) -> RunOfClone:
        return RunOfClone(clone, self.datasets[number], name)

    def _arrived(self, number: int, turn: int) -> dict[str, str]:
        return {
            day: text
            for one, amount in self.source(number, turn).items()
            for day, text in days(one, amount=amount).items()
        }

    def _next(self, clone: Clone) -> Clone:
        return self.clones[(self.clones.index(clone) + 1) % len(self.clones)]


@dataclass
class RunRaceOnOneMachine(RunRace):
    """The same where runs are not pushed: every task of a run is in the clone that began it."""

    def _next(self, clone: Clone) -> Clone:
        return clone


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((4, 2, 3), id="small"),
        pytest.param((10, 3, 20), id="full", marks=[pytest.mark.faults, pytest.mark.timeout(3600)]),
    ],
)
@pytest.mark.parametrize("kind", [RunRace, pytest.param(RunRaceOnOneMachine, marks=pytest.mark.slow_lane)])
def test_runs_of_many_datasets_at_once_release_their_audited_bytes_and_lose_nothing(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, kind: type[RunRace], size: tuple[int, int, int]
) -> None:
    monkeypatch.setenv("HEADRACE_PUSH_RUNS", str(int(kind is RunRace)))

    race = run_race(kind, origin, size)

    race.check(rounds=size[-1])
    assert run_refs(origin) == []
    for clone in race.clones:
        assert clone.git("for-each-ref", "refs/headrace") == ""
        assert end_old_runs(clone.root, load_settings(clone.root)) == [], "every run has ended"
        assert list_worktrees(clone.root) == {}, "worktrees of tasks whose run another machine has released are removed"
