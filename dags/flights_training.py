"""**A release → a model, measured.** Started by every release of `flights`.

`dvc repro` trains only if the tables, the code or the parameters changed since the metrics in `metrics/` were made; the
version step records them, so that a researcher's `git pull && dvc repro` finds the work done.

| when it fails | then |
|---|---|
| train | the log has the trace; by hand: `dvc repro --single-item flights-train` in the workspace |
| release | somebody pushed first, or a refresh is under way: it is tried again by itself |
"""

from airflow.sdk import chain, dag

from headrace.airflow.assets import model, release
from headrace.airflow.command import Command
from headrace.airflow.defaults import DAG_POLICY, OVER_NETWORK
from headrace.airflow.sync_workspace import at_origin


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
        task_id="release",
        task_display_name="Record metrics",
        command="headrace release flights --json",
        **OVER_NETWORK,
    )
    chain(workspace, train, version)


flights_training()
