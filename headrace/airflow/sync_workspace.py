"""Where commands run: the first of them brings the workspace to its origin, a researcher may have pushed."""

from headrace.airflow.command import Command
from headrace.airflow.defaults import OVER_NETWORK


def at_origin() -> Command:
    """The task that does so; it refuses where that is no step forward."""
    return Command(
        task_id="workspace",
        task_display_name="Bring workspace to origin",
        command="git pull --ff-only --tags",
        **OVER_NETWORK,
    )
