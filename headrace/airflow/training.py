"""**A release → a model with metrics.** Started by every release of the dataset.

`dvc repro` trains only if the tables, the code or the parameters changed since the metrics were written; the release
task records them, so that a researcher's `git pull && dvc repro` finds the work done.

A task is retried by itself where the cause may pass. Everything else fails at once:

| when it fails | then |
|---|---|
| sync_workspace | the workspace has commits that `origin` lacks: `git pull --rebase`, `git push` there, clear the run |
| pull | the DVC remote does not answer, or lacks objects: `headrace doctor` |
| train | the log has the error; by hand: the command in *Rendered Templates*, in the workspace |
| release | others recorded other metrics, or code is not pushed: the log says what to run |
"""

import re

from airflow.sdk import DAG, chain, dag

from headrace.airflow.assets import model_asset, release_asset
from headrace.airflow.defaults import DAG_DEFAULTS
from headrace.airflow.headrace_operator import HeadraceOperator
from headrace.airflow.sync_workspace import sync_workspace
from headrace.errors import TRANSIENT_EXIT_CODE

TRANSIENT_DVC = re.compile(
    rf"unable to acquire lock|is busy, it is being blocked by|exited with ({TRANSIENT_EXIT_CODE}\b|-\d+)", re.IGNORECASE
)
"""What DVC prints when another `dvc` holds the workspace, and when the command of a stage exited with our exit code or
was killed by a signal."""


def training_dag(dataset: str, *, stage: str, metrics: str) -> DAG:
    """The DAG that trains a model on every release of a dataset.

    Args:
        dataset: The dataset.
        stage: The stage of `dvc.yaml` that trains and measures.
        metrics: The JSON file of metrics that the stage writes, relative to the workspace.
    """

    @dag(
        dag_id=f"{dataset}_training",
        dag_display_name=f"{dataset.replace('_', ' ').capitalize()}: training",
        schedule=[release_asset(dataset)],
        doc_md=__doc__,
        tags=[dataset, "model"],
        **DAG_DEFAULTS,
    )
    def commands() -> None:
        # Releases are made in worktrees, so the workspace does not show the tables of the latest one by itself.
        pull = HeadraceOperator(
            task_id="pull",
            task_display_name="Pull the tables",
            command=f"dvc pull --force --with-deps {stage}",
            is_transient_output=lambda stderr: bool(TRANSIENT_DVC.search(stderr)),
        )
        train = HeadraceOperator(
            task_id="train",
            task_display_name="Train and measure",
            command=f"dvc repro --single-item {stage}",
            result_file=metrics,
            is_transient_output=lambda stderr: bool(TRANSIENT_DVC.search(stderr)),
            outlets=[model_asset(dataset)],
        )
        # No outlet: the tables are as they were, so this is no reason to train again.
        release = HeadraceOperator(
            task_id="release", task_display_name="Record metrics", command=f"headrace release {dataset} --json"
        )
        chain(sync_workspace(), pull, train, release)

    return commands()
