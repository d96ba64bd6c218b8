"""The engine: plan → execute (on Dask, a partition at a time) → commit (whole or absent).

Cost follows what is new: a partition is computed when its cache key is in no manifest we know; every other one is
carried over by its md5, whether its bytes lie in the workspace, in the cache or on the remote.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.engine.durations import StageDuration, record_duration
from headrace.engine.earlier_releases import find_earlier_manifests
from headrace.engine.fingerprint import Fingerprint, check_code_unchanged, stage_fingerprint
from headrace.engine.plan import Plan, plan
from headrace.engine.recomputation import warn_if_large
from headrace.engine.stage import Stage
from headrace.errors import ConcurrentRunError, HeadraceError, TransientError
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

log = logging.getLogger(__name__)

Done = Callable[[str, PartitionEntry], None]
"""Called with a partition and its entry, as they are ready, in any order."""

Execute = Callable[[Plan, TableStore, Done], None]


class TablesFailedError(HeadraceError):
    """Several tables could not be brought up to date; the message has the error of each."""


class TablesUnavailableError(TransientError):
    """Several tables could not be brought up to date, each for a transient reason."""


@dataclass(frozen=True)
class StageResult:
    """What a run of one stage did: partition → why it was computed, and how many were carried over."""

    stage: Stage
    computed: Mapping[str, tuple[str, ...]]
    reused: int
    removed: Sequence[str]
    manifest: Manifest

    @property
    def totals(self) -> dict[str, int]:
        """Rows in, accepted and rejected of the whole table; a feature table has rows only."""
        rows = {"rows": self.manifest.rows}
        if self.stage.verb != "validate":
            return rows
        metadata = self.manifest.entries.column("metadata").values()
        return rows | {name: sum(each.get(name, 0) for each in metadata) for name in ("rows_in", "rejected")}

    @property
    def checks(self) -> Counter[str]:
        """Check → rows of the whole table that it rejected."""
        found: Counter[str] = Counter()
        metadata = self.manifest.entries.column("metadata").values() if self.stage.verb == "validate" else ()
        for each in metadata:
            if checks := each.get("checks"):
                found.update(checks)
        return found

    @property
    def engines(self) -> dict[str, int]:
        """Engine → partitions of this run that it collected, where a GPU was asked for."""
        entries = (self.manifest.partitions[name] for name in self.computed)
        return dict(Counter(entry.metadata["collected_by"] for entry in entries if "collected_by" in entry.metadata))


def run_stage(
    stage: Stage, table_store: TableStore, execute: Execute, only: Container[str] | None = None
) -> StageResult:
    """Bring the stage's tables, or `only` these partitions of them, up to date and show them.

    Raises:
        TableLockedError: Another run holds the table.
        CodeChangedError: A file that decides the table's bytes changed during the run. Nothing is shown.
        HeadraceError: A partition was refused. What else was stale is computed and kept; nothing is shown.
    """
    with table_store.lock_table(stage.table):
        first = current = plan_stage(stage, table_store, only=only)
        built: dict[str, tuple[str, ...]] = {}
        _log_plan(current)
        warn_if_large(current, table_store)
        while current.stale:
            built = {item.partition: item.reasons for item in current.stale} | built
            after = current.manifest(current.reused | _compute(current, table_store, execute))
            # A key that turns out to stand in two partitions makes the later one stale once more.
            again = plan_stage(stage, table_store, after, only) if not stage.is_single_pass else None
            current = again or replace(current, reused=after.entries, stale=())
        check_code_unchanged(stage, first.fingerprint)
        _write_tables(current, table_store)
        return StageResult(stage, built, len(first.reused), first.removed, current.manifest(current.reused))


def run_stages(
    stages: Iterable[Stage], table_store: TableStore, execute: Execute, only: Container[str] | None = None
) -> list[StageResult]:
    """Bring the tables of several stages up to date, in this order. One that fails does not stop the others.

    Those that read what has failed, directly or through others, are left as they are.

    Raises:
        ConcurrentRunError: Another run works on one of the tables; the stages after it were not begun.
        HeadraceError: A stage has failed; all the others were run first.
    """
    results: list[StageResult] = []
    failed: dict[str, HeadraceError] = {}
    skipped: set[str] = set()
    for stage in stages:
        if any(table in failed or table in skipped for table in stage.reads):
            skipped.add(stage.table)
            continue
        try:
            results.append(run_stage(stage, table_store, execute, only))
        except ConcurrentRunError:
            raise
        except HeadraceError as error:
            failed[stage.table] = error
    if failed:
        raise combine_table_errors(list(failed.values()))
    return results


def combine_table_errors(errors: Sequence[HeadraceError]) -> HeadraceError:
    """One error for the tables that a command could not bring up to date; a single one stays as it is."""
    distinct = {" ".join([str(error), *getattr(error, "__notes__", [])]): error for error in errors}
    if len(distinct) == 1:
        return errors[0]
    kind = TablesUnavailableError if all(error.is_transient for error in errors) else TablesFailedError
    return kind("\n".join(distinct))


def _log_plan(made: Plan) -> None:
    if not log.isEnabledFor(logging.DEBUG):
        return
    counts = (made.stage.table, len(made.stale), len(made.reused), len(made.removed))
    log.debug("%s: %d partitions to compute, %d unchanged, %d removed", *counts)
    for reason, count in Counter(reason for item in made.stale for reason in item.reasons).most_common():
        log.debug("%s: %d partitions: %s", made.stage.table, count, reason)


def _compute(stale: Plan, table_store: TableStore, execute: Execute) -> dict[str, PartitionEntry]:
    """Entries of what was stale; each is noted at once, so that a run after a crash need not compute it again."""
    made: dict[str, PartitionEntry] = {}

    def done(partition: str, entry: PartitionEntry) -> None:
        table_store.append_to_journal(stale.stage.table, entry)
        made[partition] = entry

    started = time.monotonic()
    execute(stale, table_store, done)
    record_duration(table_store, stale.stage.table, StageDuration(len(made), time.monotonic() - started))
    return made


def plan_stage(
    stage: Stage, table_store: TableStore, shown: Manifest | None = None, only: Container[str] | None = None
) -> Plan:
    """The plan of `stage`, or of `only` these partitions, as the workspace is, or as if it showed the table `shown`."""
    inputs = {table: table_store.manifest(table) for table in stage.reads}
    known = [shown] if shown else table_store.candidate_manifests(stage.table)
    return plan_from_inputs(stage, inputs, known, table_store, only=only)


def plan_from_inputs(  # noqa: PLR0913  what decides a plan
    stage: Stage,
    inputs: Mapping[str, Manifest],
    known: Sequence[Manifest],
    table_store: TableStore,
    *,
    fingerprint: Fingerprint | None = None,
    only: Container[str] | None = None,
) -> Plan:
    """The plan of `stage` as if it read these inputs.

    Args:
        stage: The stage.
        inputs: Manifest of every table that it reads.
        known: Manifests of its own table, the one that readers see first.
        table_store: The workspace's tables, of which earlier releases are looked at where others know too little.
        fingerprint: By default that of the code and the parameters here.
        only: The partitions that are asked for.
    """
    fingerprint = fingerprint or stage_fingerprint(stage, table_store.root)
    made = plan(stage, inputs, known, fingerprint, only)
    if any(item.is_recomputation for item in made.stale) and (
        earlier := find_earlier_manifests(stage, table_store, fingerprint)
    ):
        return plan(stage, inputs, [*known, *earlier], fingerprint, only)
    return made


def plan_all(
    stages: Iterable[Stage],
    table_store: TableStore,
    raw: Mapping[str, Manifest] | None = None,
    only: Container[str] | None = None,
) -> list[Plan]:
    """The plans of `stages` in order, each as if those before it had run: what they would make counts as changed.

    Args:
        stages: The stages.
        table_store: The workspace's tables.
        raw: Raw table → its manifest after the next ingest; without one, the table as it is.
        only: The partitions that are asked for.
    """
    coming = dict(raw or {})
    plans = []
    for stage in stages:
        inputs = {table: coming.get(table) or table_store.manifest(table) for table in stage.reads}
        made = plan_from_inputs(stage, inputs, table_store.candidate_manifests(stage.table), table_store, only=only)
        coming[stage.table] = made.manifest(made.reused | stand_ins(made))
        plans.append(made)
    return plans


def stand_ins(planned: Plan) -> dict[str, PartitionEntry]:
    """Entries of what is to be computed: they differ from any that a table was computed from."""
    return {item.partition: PartitionEntry(item.cache_key, f"made by {item.cache_key}", 0) for item in planned.stale}


def _write_tables(done: Plan, table_store: TableStore) -> None:
    """Show the tables of a stage: those beside the main one first, so that its manifest is the last step."""
    for manifest in done.kept_manifests().values():
        table_store.checkout(manifest)
    table_store.clear_journal(done.stage.table)
