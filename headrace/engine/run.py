"""The engine: plan → execute (on Dask, a partition at a time) → commit (whole or absent).

Cost follows what is new: a partition is computed when its memo key is in no manifest we know; every other one is
carried over by its md5, whether its bytes lie in the workspace, in the cache or on the remote.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.engine.fingerprint import check_code_unchanged, stage_fingerprint
from headrace.engine.plan import Plan, plan
from headrace.engine.stage import Stage
from headrace.storage.manifest import Entry, Manifest, Partitions
from headrace.storage.table_store import Lake

log = logging.getLogger(__name__)

Done = Callable[[str, Entry], None]
"""Called with a partition and its entry, as they are ready, in any order."""

Execute = Callable[[Plan, Lake, Done], None]


@dataclass(frozen=True)
class StageResult:
    """What a run of one stage did: partition → why it was computed, and how many were carried over."""

    stage: Stage
    built: Mapping[str, tuple[str, ...]]
    kept: int
    gone: Sequence[str]
    manifest: Manifest

    @property
    def totals(self) -> dict[str, int]:
        """Rows in, accepted and rejected of the whole table; a feature table has rows only."""
        rows = {"rows": self.manifest.rows}
        if self.stage.verb != "validate":
            return rows
        facts = [entry.facts for entry in self.manifest.partitions.values()]
        return rows | {name: sum(found.get(name, 0) for found in facts) for name in ("rows_in", "rejected")}

    @property
    def checks(self) -> Counter[str]:
        """Check → rows of the whole table that it rejected."""
        found: Counter[str] = Counter()
        for entry in self.manifest.partitions.values() if self.stage.verb == "validate" else ():
            if checks := entry.facts.get("checks"):
                found.update(checks)
        return found

    @property
    def collected_by(self) -> dict[str, int]:
        """Engine → partitions of this run that it collected, where a GPU was asked for."""
        entries = (self.manifest.partitions[name] for name in self.built)
        return dict(Counter(entry.facts["collected_by"] for entry in entries if "collected_by" in entry.facts))


def run_stage(stage: Stage, lake: Lake, execute: Execute, only: str | None = None) -> StageResult:
    """Bring the stage's tables, or `only` one partition of them, up to date and show them.

    Raises:
        TableLockedError: Another run holds the table.
        CodeChangedError: A file that decides the table's bytes changed during the run. Nothing is shown.
        HeadraceError: A partition was refused. What else was stale is computed and remembered; nothing is shown.
    """
    with lake.lease(stage.table):
        first = current = plan_stage(stage, lake, only=only)
        built: dict[str, tuple[str, ...]] = {}
        _log_plan(current)
        while current.stale:
            built = {item.partition: item.reasons for item in current.stale} | built
            after = current.manifest(current.keep | _computed(current, lake, execute))
            # A key that turns out to stand in two partitions makes the later one stale once more.
            again = plan_stage(stage, lake, after, only) if not stage.settles else None
            current = again or replace(current, keep=Partitions.of(after.partitions), stale=())
        check_code_unchanged(stage, first.fingerprint)
        _show(current, lake)
        return StageResult(stage, built, len(first.keep), first.gone, current.manifest(current.keep))


def _log_plan(made: Plan) -> None:
    if not log.isEnabledFor(logging.DEBUG):
        return
    counts = (made.stage.table, len(made.stale), len(made.keep), len(made.gone))
    log.debug("%s: %d partitions to compute, %d unchanged, %d removed", *counts)
    for reason, count in Counter(reason for item in made.stale for reason in item.reasons).most_common():
        log.debug("%s: %d partitions: %s", made.stage.table, count, reason)


def _computed(stale: Plan, lake: Lake, execute: Execute) -> dict[str, Entry]:
    """Entries of what was stale; each is noted at once, so that a run after a crash need not compute it again."""
    made: dict[str, Entry] = {}

    def done(partition: str, entry: Entry) -> None:
        lake.remember(stale.stage.table, entry)
        made[partition] = entry

    execute(stale, lake, done)
    return made


def plan_stage(stage: Stage, lake: Lake, shown: Manifest | None = None, only: str | None = None) -> Plan:
    """The plan of `stage`, or of `only` one partition, as the workspace is, or as if it showed the table `shown`."""
    inputs = {table: lake.manifest(table) for table in stage.reads}
    known = [shown] if shown else lake.known(stage.table)
    return plan(stage, inputs, known, stage_fingerprint(stage, lake.root), only)


def plan_all(stages: Iterable[Stage], lake: Lake) -> list[Plan]:
    """The plans of `stages` in order, each as if those before it had run: what they would make counts as changed."""
    coming: dict[str, Manifest] = {}
    plans = []
    for stage in stages:
        inputs = {table: coming.get(table) or lake.manifest(table) for table in stage.reads}
        made = plan(stage, inputs, lake.known(stage.table), stage_fingerprint(stage, lake.root))
        unknown = {item.partition: Entry(item.memo, f"made by {item.memo}", 0) for item in made.stale}
        coming[stage.table] = made.manifest(made.keep | unknown)
        plans.append(made)
    return plans


def _show(done: Plan, lake: Lake) -> None:
    """Show the tables of a stage: those beside the main one first, so that its manifest is the last step."""
    for manifest in done.kept_manifests().values():
        lake.commit(manifest)
    lake.forget(done.stage.table)
