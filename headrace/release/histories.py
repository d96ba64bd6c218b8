"""Histories that two workspaces have recorded, of annotations or of database tables: both are kept, as one history."""

from headrace.dataset import Dataset, Source, raw_table
from headrace.engine.run import run_stage
from headrace.label import table_names
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.settings import load_settings
from headrace.storage.table_store import TableStore


def history_tables(dataset: Dataset) -> list[str]:
    """The raw tables of a dataset that are histories."""
    return [raw_table(dataset.name, source.name) for source in dataset.sources if source.is_history]


def merge_histories(dataset: Dataset, table_store: TableStore, commit: str) -> None:
    """Add the events and changes that `commit` records to those of the workspace, and compute what depends on them."""
    from headrace.label.annotation_log import merge_logs  # noqa: PLC0415  only who meets another release pays

    for labeling in dataset.labels:
        table = table_names.annotations_table(dataset, labeling)
        with table_store.lock_table(table):
            if released := table_store.recorded_manifest(table, commit):
                table_store.checkout(merge_logs(table_store, released, table_store.manifest(table)))
    for source in (one for one in dataset.sources if one.is_history):
        _merge_table_history(dataset, source, table_store, commit)
    execute = Executor(load_settings(table_store.root))
    for stage in graph.dataset_stages(dataset):
        run_stage(stage, table_store, execute)


def _merge_table_history(dataset: Dataset, source: Source, table_store: TableStore, commit: str) -> None:
    from headrace.ingest.table_history import merge_histories as merge_tables  # noqa: PLC0415  as above

    table = raw_table(dataset.name, source.name)
    with table_store.lock_table(table):
        if released := table_store.recorded_manifest(table, commit):
            own = table_store.manifest(table)
            table_store.checkout(merge_tables(table_store, released, own, source.partitioning))
