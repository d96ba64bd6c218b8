"""Histories of annotations that two workspaces have collected: both are kept, as one history."""

from headrace.dataset import Dataset
from headrace.engine.run import run_stage
from headrace.label import table_names
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.settings import load_settings
from headrace.storage.table_store import TableStore


def merge_histories(dataset: Dataset, table_store: TableStore, commit: str) -> None:
    """Add the annotation events that `commit` records to those of the workspace, and compute what depends on them."""
    from headrace.label.annotation_log import merge_logs  # noqa: PLC0415  only who meets another release pays

    for labeling in dataset.labels:
        table = table_names.annotations_table(dataset, labeling)
        with table_store.lock_table(table):
            if released := table_store.recorded_manifest(table, commit):
                table_store.checkout(merge_logs(table_store, released, table_store.manifest(table)))
    execute = Executor(load_settings(table_store.root))
    for stage in graph.dataset_stages(dataset):
        run_stage(stage, table_store, execute)
