"""Labels that are still being collected: they, and the answers they are made of, stay as the last release has them.

A release of tables does not wait for people. Labels are held back while they do not reach their thresholds and answers
are missing, and while their stage has work to do, because its code has changed: no refresh aggregates labels. Where all
answers are there, the labels are bad, and a person has to decide: the release stops. So does the release of the run
that collected the answers, because it was made to release them.

Tables that are computed from labels which are held back are held back with them: a release has no table that was
computed from another version of a table than it has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.dataset import Dataset, LabelingTask
from headrace.label import table_names
from headrace.project import graph
from headrace.release.audit import TablesBehindError
from headrace.release.changes import PartitionDiff
from headrace.storage.manifest import HEAD_FILE, Manifest
from headrace.storage.table_store import TableStore


@dataclass(frozen=True)
class HeldLabels:
    """The labeling tasks whose tables, and what is computed from them, a release takes from the last one.

    Attributes:
        reasons: Labels table, or one computed from it → why it is held back.
        outs: Path → output entry of every such table, as the release records it.
        heads: Path → bytes of their manifests.
    """

    reasons: Mapping[str, str]
    outs: Mapping[str, dict[str, Any]]
    heads: Mapping[str, bytes]

    @property
    def tables(self) -> set[str]:
        """The tables that are held back."""
        return {path.removeprefix("data/") for path in self.outs}


def hold_unfinished_labels(
    dataset: Dataset,
    table_store: TableStore,
    changes: Mapping[str, PartitionDiff],
    released: Mapping[str, dict[str, Any]],
    behind: Mapping[str, TablesBehindError],
) -> HeldLabels:
    """Hold labels that would be new in the release against their thresholds.

    Args:
        dataset: The dataset.
        table_store: Its tables.
        changes: Table → what changed since the last release.
        released: Output entries of the last release.
        behind: Labels table → what its stage has to do.

    Raises:
        QualityError: They do not reach them, and every answer is there, or the run that is released collected them.
        TablesBehindError: Their stage has work to do, and the run that is released collected them.
    """
    reasons: dict[str, str] = {}
    outs: dict[str, dict[str, Any]] = {}
    heads: dict[str, bytes] = {}
    tables: list[str] = []
    for labeling in dataset.labels:
        if reason := _find_reason(dataset, labeling, table_store, changes, behind):
            reasons[table_names.labels_table(dataset, labeling)] = reason
            tables += table_names.all_tables(dataset, labeling)
    for stage in graph.dependent_stages(dataset, tables) if tables else ():
        read = next(table for table in stage.reads if table in tables)
        reasons.setdefault(stage.table, f"it is computed from {read}, which is held back")
        tables += [table for table in (stage.table, *stage.companion_tables) if table not in tables]
    for table in tables:
        path = f"data/{table}"
        out = released.get(path)
        manifest = table_store.manifest_of_directory(out["md5"]) if out else None
        manifest = manifest or Manifest(table)
        outs[path] = out or table_store.dvc_out(manifest, {})
        heads[f"{path}/{HEAD_FILE}"] = manifest.to_files().head
    return HeldLabels(reasons, outs, heads)


def _find_reason(
    dataset: Dataset,
    labeling: LabelingTask,
    table_store: TableStore,
    changes: Mapping[str, PartitionDiff],
    behind: Mapping[str, TablesBehindError],
) -> str | None:
    labels = table_names.labels_table(dataset, labeling)
    is_collected_by_run = f"data/{table_names.annotations_table(dataset, labeling)}" in (table_store.run_outs or {})
    if error := behind.get(labels):
        if is_collected_by_run:
            raise error
        return str(error)
    if labels not in changes:
        return None
    from headrace.label.quality import UnfinishedLabelsError  # noqa: PLC0415  only new labels need be measured
    from headrace.label.report import enforce_thresholds  # noqa: PLC0415

    try:
        enforce_thresholds(dataset, labeling, table_store)
    except UnfinishedLabelsError as unfinished:
        if is_collected_by_run:
            raise
        return str(unfinished)
    return None
