"""The task before other commands that work in the workspace itself, on the same machine: it follows its origin."""

from headrace.airflow.headrace_operator import HeadraceOperator
from headrace.storage.git import is_transient_output


def sync_workspace() -> HeadraceOperator:
    """The task; it fails where the workspace has commits that its origin has not, and changes nothing then."""
    return HeadraceOperator(
        task_id="sync_workspace",
        task_display_name="Sync the workspace",
        command="git pull --ff-only --tags",
        is_transient_output=is_transient_output,
    )
