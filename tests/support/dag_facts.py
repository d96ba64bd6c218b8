"""Reads the DAG files as Airflow's DAG processor does, and prints what is in them; run as a separate process."""

import json
import sys
import time
from pathlib import Path
from typing import Any

DATA_LIBRARIES = (
    "boto3", "botocore", "dask", "dataframely", "distributed", "dvc", "feast", "label_studio_sdk", "numpy", "pandas",
    "pipelines", "polars", "psycopg", "pyarrow", "sklearn",
)  # fmt: skip


def read_dags(folder: Path) -> dict[str, Any]:
    """Errors, DAGs with their tasks, loaded data libraries, and the CPU time of Airflow's imports and of the files."""
    started = time.process_time()
    import airflow.sdk  # noqa: PLC0415
    from airflow.dag_processing.dagbag import BundleDagBag  # noqa: PLC0415

    imported = time.process_time()
    bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
    return {
        "import_cpu_s": imported - started,
        "parse_cpu_s": time.process_time() - imported,
        "errors": bag.import_errors,
        "loaded": sorted(set(DATA_LIBRARIES) & set(sys.modules)),
        "dags": {name: _describe_dag(dag) for name, dag in bag.dags.items()},
        "airflow": airflow.sdk.__version__,
    }


def _describe_dag(dag: Any) -> dict[str, Any]:  # noqa: ANN401  Airflow's own
    return {
        "title": dag.dag_display_name,
        "doc": dag.doc_md or "",
        "tags": sorted(dag.tags),
        "links": dag.owner_links,
        "schedule": type(dag.timetable).__name__,
        "start": dag.start_date and str(dag.start_date),
        "catchup": dag.catchup,
        "at_once": dag.max_active_runs,
        "run_types": sorted(dag.allowed_run_types or ()),
        "file": Path(dag.fileloc).name,
        "order": [task.task_id for task in dag.topological_sort()],
        "tasks": {task.task_id: _describe_task(task) for task in dag.tasks},
    }


def _describe_task(task: Any) -> dict[str, Any]:  # noqa: ANN401  Airflow's own
    return {
        "title": task.task_display_name,
        "owner": task.owner,
        "kind": type(task).__name__,
        "before": getattr(task, "before", ""),
        "command": getattr(task, "command", ""),
        "retries": task.retries,
        "retry_delay_s": task.retry_delay.total_seconds(),
        "retry_backoff": task.retry_exponential_backoff,
        "max_retry_delay_s": task.max_retry_delay and task.max_retry_delay.total_seconds(),
        "at_once": task.max_active_tis_per_dag,
        "outlets": [asset.name for asset in task.outlets],
        "after": sorted(task.upstream_task_ids),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(read_dags(Path(sys.argv[1]))))
