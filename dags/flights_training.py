"""**A release → a model, measured.** Started by every release of `flights`.

`dvc repro` trains only if the tables, the code or the parameters changed since the metrics in `metrics/` were made; the
version step records them, so that a researcher's `git pull && dvc repro` finds the work done.

| when it fails | then |
|---|---|
| train | the log has the trace; by hand: `dvc repro --single-item flights-train` in the workspace |
| version | somebody pushed first, or a refresh is under way: it is tried again by itself |
"""

from airflow.sdk import chain, dag

from dags.parts.assets import model, release
from dags.parts.command import Command
from dags.parts.policy import DAG_POLICY, OVER_NETWORK
from dags.parts.workspace import at_origin


@dag(
    dag_id="flights_training",
    dag_display_name="Flights: training",
    schedule=[release("flights")],
    doc_md=__doc__,
    tags=["flights", "model"],
    **DAG_POLICY,
)
def flights_training() -> None:
    """Train, then record; the record is no new release of the tables, so it starts no other training."""
    workspace = at_origin()
    train = Command(
        task_id="train",
        task_display_name="Train and measure",
        command="dvc repro --single-item flights-train",
        facts="metrics/flights.json",
        outlets=[model("flights")],
    )
    version = Command(
        task_id="version",
        task_display_name="Record metrics",
        command="python -m pipelines version flights --json",
        **OVER_NETWORK,
    )
    chain(workspace, train, version)


flights_training()
