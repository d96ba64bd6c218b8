"""The first task of a DAG whose commands share an isolated run: it fixes the commit that they work on."""

from headrace.airflow.headrace_operator import HeadraceOperator

RUN = "--run {{ run_id }}"
"""The option that puts a command into the run of its DAG run, on whichever machine it is executed."""


def start_run(dataset: str) -> HeadraceOperator:
    """The task; a run that has started before, because the DAG run was cleared, moves to the newest commit."""
    return HeadraceOperator(
        task_id="start_run", task_display_name="Start the run", command=f"headrace runs start {dataset} {RUN} --json"
    )


def update_run(dataset: str) -> HeadraceOperator:
    """The task after a wait: the run moves to the newest commit, so that it continues the latest release."""
    return HeadraceOperator(
        task_id="update_run", task_display_name="Update the run", command=f"headrace runs start {dataset} {RUN} --json"
    )
