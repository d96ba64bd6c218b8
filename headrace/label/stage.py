"""annotations → labels, as a stage of the graph.

The labels are a pure function of the annotations, so a corrected answer changes the partition of its item and no other.
Imported by every command that plans: no SDK, no NumPy and no scikit-learn here.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from headrace.dataset import Dataset, LabelingTask
from headrace.engine.compute import compute_partitions
from headrace.engine.partition_errors import combine_stage_errors
from headrace.engine.plan import Plan
from headrace.engine.run import Done, StageResult, run_stage
from headrace.engine.stage import InputPaths, PartitionOutput, Stage
from headrace.errors import HeadraceError
from headrace.label import table_names
from headrace.label.consensus import Consensus, create_consensus
from headrace.storage.table_store import TableStore


def label_stage(dataset: Dataset, labeling: LabelingTask) -> Stage:
    """The stage that makes the labels of a labeling task from its annotations."""
    rejected_table = table_names.rejected_table(dataset, labeling)
    consensus = create_consensus(dataset, labeling)
    return Stage(
        verb="label",
        dataset=dataset.name,
        table=table_names.labels_table(dataset, labeling),
        companion_tables=(rejected_table,),
        reads=consensus.reads,
        modules=(*labeling.modules, labeling.sample.__module__),
        files=labeling.files,
        libraries=("polars", "pyarrow", *consensus.libraries),
        partitions=consensus.partitions,
        compute=partial(_compute, consensus, labeling.keys, rejected_table),
    )


def run_label_stage(dataset: Dataset, labeling: LabelingTask, table_store: TableStore) -> StageResult:
    """Bring the labels up to date in this process: a day of answers is small."""
    return run_stage(label_stage(dataset, labeling), table_store, _run_inline)


def _compute(
    consensus: Consensus,
    keys: tuple[str, ...],
    rejected_table: str,
    _partition: str,
    files: InputPaths,
    _params: Mapping[str, Any],
) -> PartitionOutput:
    result = consensus.aggregate_partition(files)
    return PartitionOutput(
        result.labels,
        (*keys, "sample_id"),
        metadata=result.counts,
        companions={rejected_table: result.rejected} if result.rejected.height else {},
    )


def _run_inline(plan: Plan, table_store: TableStore, done: Done) -> None:
    failed: dict[str, HeadraceError] = {}
    for partition, made in compute_partitions(plan.stage, plan.stale, plan.fingerprint, table_store):
        if isinstance(made, HeadraceError):
            failed[partition] = made
        else:
            done(partition, made)
    if failed:
        raise combine_stage_errors(plan, table_store, failed)
