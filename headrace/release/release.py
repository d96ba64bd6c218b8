"""tables → release: audit, then bytes to the remote and read back, then one atomic push of commit and tag.

In that order, and each step can be repeated: no git ref points at data that is not on the remote, and a release that
was killed is completed by running it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.dataset import Dataset
from headrace.engine.run import plan_stage
from headrace.errors import HeadraceError, TransientError
from headrace.label import table_names as tables
from headrace.project import dvc_stages, graph
from headrace.project.engine_lock import check_environment
from headrace.project.loading import dataset_names, load_dataset
from headrace.project.locks import lock_tables
from headrace.storage import git
from headrace.storage.dvc.lock import read_lock, recorded_outs, write_lock, write_pointer
from headrace.storage.dvc.push import PushResult, push_objects
from headrace.storage.manifest import HEAD_FILE, Manifest
from headrace.storage.table_store import Lake


class AuditError(HeadraceError):
    """The tables are not up to date, or rows are not accounted for, so they cannot be released."""


class TablesBehindError(AuditError, TransientError):
    """A stage has work to do; most often another run is in progress and will do it."""


@dataclass(frozen=True)
class PartitionDiff:
    """Partitions of a table that were added, changed and removed."""

    added: Sequence[str]
    changed: Sequence[str]
    removed: Sequence[str]

    @classmethod
    def between(cls, before: Manifest | None, after: Manifest | None) -> "PartitionDiff":
        """The difference between two versions of a table; None for a table that does not exist."""
        had = before.md5s if before else {}
        has = after.md5s if after else {}
        return cls(
            sorted(has.keys() - had.keys()),
            sorted(name for name in has.keys() & had.keys() if has[name] != had[name]),
            sorted(had.keys() - has.keys()),
        )

    def __bool__(self) -> bool:
        """Whether there is a difference."""
        return bool(self.added or self.changed or self.removed)

    def __str__(self) -> str:
        """The counts: `+1 ~3 -0`."""
        return f"+{len(self.added)} ~{len(self.changed)} -{len(self.removed)}"


@dataclass(frozen=True)
class ReleaseResult:
    """A release: a version of all tables of a dataset, complete and on the remote, under a git tag.

    Attributes:
        name: The tag, `<dataset>/<number>`.
        commit: The commit of the tag.
        created: Whether this run created it; False if nothing had changed since.
        changes: Table → what changed since the release before it.
        pushed: What was uploaded to the remote.
    """

    name: str
    commit: str
    created: bool
    changes: Mapping[str, PartitionDiff] = field(default_factory=dict)
    pushed: PushResult = field(default_factory=PushResult)


def create_release(dataset: Dataset, lake: Lake) -> ReleaseResult:
    """Record the tables of `dataset` as they are, and release them if they differ from the last release.

    Raises:
        EngineMismatchError: The engine or a library is not the one that `headrace.lock` names.
        TableLockedError: A run holds one of the tables.
        TablesBehindError: A stage has work to do.
        AuditError: A partition's counts do not add up.
        QualityError: Labels that would be new in the release do not reach their thresholds.
        StaleReleaseError: Somebody else's commit came first; nothing was pushed.
    """
    check_environment(lake.root)
    every = (dataset, *_never_recorded(dataset, lake))
    with lock_tables(lake, (f"release/{dataset.name}", *(table for one in every for table in _tables(one, lake)))):
        for one in every:
            _show_all(one, lake)
        audit(dataset, lake)
        git.fetch(lake.root)
        last = latest_remote_release(lake, dataset.name)
        there = recorded_outs(lake.root, last) if last else {}
        recorded = recorded_outs(lake.root)
        outs = recorded | {path: out for one in every for path, out in _outs(one, lake, recorded).items()}
        in_git = dvc_stages.kept_in_git(lake.root)
        kept = [out for path, out in outs.items() if path not in in_git]
        sizes = {md5: size for one in every for md5, size in _sizes(one, lake).items()}
        differences = _differences(dataset, lake, there)
        _refuse_poor_labels(dataset, lake, differences)
        pushed = push_objects(lake.cache, kept, there.values(), sizes)
        if not last or differences:
            name = f"{dataset.name}/{_number(last) + 1}"
            _commit(every, lake, outs, f"{name}: {_summary(differences)}")
            git.tag(lake.root, name, _notes(name, differences))
            git.push(lake.root, name)
            return ReleaseResult(name, git.head(lake.root), created=True, changes=differences, pushed=pushed)
        _commit(every, lake, outs, f"{last}: recorded again, the tables as they were")
        git.push(lake.root)
        return ReleaseResult(last, git.commit_of(lake.root, last), created=False, pushed=pushed)


def audit(dataset: Dataset, lake: Lake) -> None:
    """Check that the tables are what today's code makes of today's inputs, and that every row is accounted for.

    Raises:
        TablesBehindError: A stage has work to do; the message names the command.
        AuditError: A partition's counts do not add up.
    """
    for stage in graph.dataset_stages(dataset):
        plan = plan_stage(stage, lake)
        if not plan.is_empty:
            pending = plan.pending_partitions
            raise TablesBehindError(
                f"{stage.table}: expected every partition to be up to date, found {len(pending)} that are not,"
                f" {pending[0]} first. `headrace plan {dataset.name}` shows why; `headrace run {dataset.name}` brings"
                " them up to date."
            )
        for table, planned in plan.kept_manifests().items():
            if lake.manifest(table).entries != planned.entries:
                raise TablesBehindError(
                    f"{table}: expected the partitions that were computed with {stage.table}, found others."
                    f" `headrace run {dataset.name}` writes the table again."
                )
        for name, entry in plan.reused.items() if stage.verb == "validate" else ():
            if entry.metadata["rows_in"] != (entry.rows or 0) + entry.metadata["rejected"]:
                raise AuditError(
                    f"{stage.table} {name}: {entry.metadata['rows_in']:,} rows came in, but {entry.rows:,} accepted and"
                    f" {entry.metadata['rejected']:,} rejected do not add up to that. Nothing was released."
                )


def _refuse_poor_labels(dataset: Dataset, lake: Lake, differences: Mapping[str, PartitionDiff]) -> None:
    for labeling in dataset.labels:
        if tables.labels_table(dataset, labeling) in differences:
            from headrace.label.report import enforce_thresholds  # noqa: PLC0415  only new labels need be measured

            enforce_thresholds(dataset, labeling, lake)


def _show_all(dataset: Dataset, lake: Lake) -> None:
    """Write missing manifests, also in place of those of format 1: `dvc.lock` records every table of a stage."""
    for table in _tables(dataset, lake):
        if not (lake.folder(table) / HEAD_FILE).exists():
            lake.checkout(lake.manifest(table))


def _tables(dataset: Dataset, lake: Lake) -> list[str]:
    """Every table of the dataset: those in the workspace, and those that a stage reads or computes."""
    stages = graph.dataset_stages(dataset)
    declared = {table for stage in stages for table in (*stage.reads, stage.table, *stage.companion_tables)}
    return sorted(declared.union(lake.tables(dataset.name)))


def list_releases(lake: Lake, dataset: str) -> list[str]:
    """The releases of `dataset` that the workspace has fetched, oldest first."""
    return sorted(git.tags(lake.root, f"{dataset}/"), key=_number)


def latest_local_release(lake: Lake, dataset: str) -> str:
    """The latest release that the workspace has fetched.

    Raises:
        HeadraceError: There is none.
    """
    found = list_releases(lake, dataset)
    if not found:
        raise HeadraceError(
            f"{dataset} has no release in {lake.root}. `headrace release {dataset}` creates the first one."
        )
    return found[-1]


def latest_remote_release(lake: Lake, dataset: str) -> str:
    """The latest release on the git remote; empty if there is none."""
    return max(git.remote_tags(lake.root, f"{dataset}/"), key=_number, default="")


def _outs(dataset: Dataset, lake: Lake, recorded: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Path → output entry of each of the dataset's tables, as they are in the workspace."""
    return {f"data/{table}": lake.dvc_out(lake.manifest(table), recorded) for table in _tables(dataset, lake)}


def _sizes(dataset: Dataset, lake: Lake) -> dict[str, int]:
    """md5 → bytes of every partition."""
    manifests = (lake.manifest(table) for table in lake.tables(dataset.name))
    return {md5: size for manifest in manifests for md5, size in manifest.objects.items()}


def _differences(dataset: Dataset, lake: Lake, there: Mapping[str, dict[str, Any]]) -> dict[str, PartitionDiff]:
    """Table → what changed since the release whose output entries are `there`."""
    folders = {path.removeprefix("data/"): out["md5"] for path, out in there.items()}
    tables = {table for table in folders if table.split("/")[1:2] == [dataset.name]}
    found = {
        table: PartitionDiff.between(
            lake.manifest_of_directory(folders[table]) if table in folders else None, lake.manifest(table)
        )
        for table in sorted({*tables, *lake.tables(dataset.name)})
    }
    return {table: difference for table, difference in found.items() if difference}


def _commit(datasets: Sequence[Dataset], lake: Lake, outs: Mapping[str, dict[str, Any]], message: str) -> None:
    """Commit `dvc.lock` and the `.dvc` files for `outs`."""
    lock = read_lock(lake.root)
    stages = [stage for dataset in datasets for stage in graph.dataset_stages(dataset)]
    made = dvc_stages.lock_entries(stages, lake, outs)
    write_lock(lake.root, {**lock, "stages": {**lock["stages"], **made}})
    by_stage = {table for dataset in datasets for table in dvc_stages.tracked_by_stage(dataset)}
    tables = [table for dataset in datasets for table in lake.tables(dataset.name)]
    pointers = [write_pointer(lake.root, outs[f"data/{table}"]) for table in tables if table not in by_stage]
    metrics = [path for path in dvc_stages.kept_in_git(lake.root) if (lake.root / path).exists()]
    git.commit(lake.root, ["dvc.lock", *pointers, *metrics], message)


def _never_recorded(dataset: Dataset, lake: Lake) -> list[Dataset]:
    """Other datasets with a stage in `dvc.yaml` that `dvc.lock` does not have.

    They are recorded as they are, released or not: `dvc pull` fails over a stage that was never recorded.
    """
    known = read_lock(lake.root)["stages"]
    declared = dvc_stages.declared_stage_names(lake.root) - known.keys()
    names = [
        name for name in dataset_names() if name != dataset.name and any(one.startswith(f"{name}-") for one in declared)
    ]
    others = [load_dataset(name) for name in names]
    return [
        one for one in others if any(dvc_stages.stage_name(stage) in declared for stage in graph.dataset_stages(one))
    ]


def _number(release: str) -> int:
    return int(release.rsplit("/", 1)[-1] or 0) if release else 0


def _summary(differences: Mapping[str, PartitionDiff]) -> str:
    total = sum(len(item.added) + len(item.changed) + len(item.removed) for item in differences.values())
    return f"{total} partitions of {len(differences)} tables"


def _notes(name: str, differences: Mapping[str, PartitionDiff]) -> str:
    return "\n".join((name, "", *(f"{table}: {difference}" for table, difference in differences.items())))
