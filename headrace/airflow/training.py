"""**A release → a model with metrics.** Started by every release of the dataset.

`dvc repro` runs in the worktree of an isolated run, on the commit that *Start the run* found, with the tables of the
latest release: what is in the workspace is neither used nor changed. It trains only if the tables, the code or the
parameters changed since the metrics were written. Then the metrics are recorded on the release branch, so that a
researcher's `git pull && dvc pull && dvc repro` finds the work done.

A task is retried automatically where the cause may pass. Everything else fails at once:

| when it fails | then |
|---|---|
| start_run | git's `origin` refuses the run, or lacks the code branch: the log says which |
| train | a bug in the code of the stage: the log has the error; fix it, push, clear the whole DAG run |
| train | or the dataset's code changed meanwhile: the log names the files; clear the whole DAG run |

Every task is safe to clear and to run again. By hand: type the command in *Rendered Templates* as it is, in any clone
of the project; `--run` continues this run there.
"""

import re
import shlex
from pathlib import Path

from airflow.sdk import DAG, chain, dag

from headrace.airflow.assets import model_asset, release_asset
from headrace.airflow.dataset_facts import DatasetFacts, read_facts
from headrace.airflow.headrace_operator import HeadraceOperator
from headrace.airflow.start_run import RUN, start_run
from headrace.errors import TRANSIENT_EXIT_CODE

TRANSIENT_DVC = re.compile(
    rf"unable to acquire lock|is busy, it is being blocked by|exited with ({TRANSIENT_EXIT_CODE}\b|-\d+)", re.IGNORECASE
)
"""What DVC prints when another `dvc` holds the worktree, and when the command of a stage exited with our exit code or
was killed by a signal."""


def training_dag(dataset: str, *, stage: str, metrics: str, project: Path | None = None) -> DAG:
    """The DAG that trains a model on every release of a dataset.

    Args:
        dataset: The dataset.
        stage: The stage of `dvc.yaml` that trains and measures. Of a table it depends on `_manifest/head.json`.
        metrics: The JSON file of metrics that the stage writes, relative to the workspace.
        project: Folder of the project, whose declaration names owner and tags.
    """
    facts = read_facts(project, dataset) if project else DatasetFacts()

    @dag(
        dag_id=f"{dataset}_training",
        dag_display_name=f"{dataset.replace('_', ' ').capitalize()}: training",
        schedule=[release_asset(dataset)],
        description=facts.description or None,
        doc_md=facts.introduction() + (__doc__ or ""),
        tags=[dataset, "model", *facts.dag_tags()],
        **facts.dag_settings(),
    )
    def commands() -> None:
        # One task, since the metrics are in a worktree of the machine that trains until they are recorded. The outlet
        # is the model alone: the tables are as they were, so this is no reason to train again.
        train = HeadraceOperator(
            task_id="train",
            task_display_name="Train and record metrics",
            command=f"headrace runs exec {dataset} {RUN} --release --result {shlex.quote(metrics)} --json"
            f" -- dvc repro --single-item {shlex.quote(stage)}",
            is_transient_output=lambda stderr: bool(TRANSIENT_DVC.search(stderr)),
            outlets=[model_asset(dataset)],
        )
        chain(start_run(dataset), train)

    return commands()
