"""The first task of a DAG whose commands share an isolated run: it fixes the commit that they work on."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow.sdk import Context

from headrace.airflow.headrace_operator import HeadraceOperator, workspace_folder
from headrace.storage import git
from headrace.workspace import SERVED_PROJECT, SERVED_REF

RUN = "--run {{ run_id }}"
"""The option that puts a command into the run of its DAG run, on whichever machine it is executed."""

FOLLOW_TIMEOUT_S = 10.0
POLL_S = 0.3
MOST_SHOWN = 5


class StartRunOperator(HeadraceOperator):
    """Start the run. In a local stack, first wait until the last commit of the clone that it serves is there."""

    def execute(self, context: Context) -> Any:  # noqa: ANN401  any JSON
        """Run the command, once the log says which commit the run works on and what is not in it."""
        if project := os.environ.get(SERVED_PROJECT):
            for level, line in describe_served(Path(project), workspace_folder()):
                self.log.log(level, "%s", line)
        return super().execute(context)


def describe_served(project: Path, workspace: Path, timeout_s: float = FOLLOW_TIMEOUT_S) -> Iterator[tuple[int, str]]:
    """Level and text of what to log about the commit of the clone `project` that a run works on."""
    if not (newest := git.resolve(project, "HEAD") if project.is_dir() else ""):
        yield logging.WARNING, f"{project} is not there any more. The run works on the last commit that was served."
        return
    subject = git.git(project, "log", "-1", "--format=%s", newest)
    if _is_served(newest, workspace, timeout_s):
        yield logging.INFO, f'The run works on the last commit of {project}: {newest[:10]} "{subject}".'
    else:
        text = f'The run works on an earlier commit than the last one of {project}, {newest[:10]} "{subject}".'
        yield logging.WARNING, f"{text} `headrace stack status` and the stack's logs/workspace.log say why."
    if files := git.uncommitted_files(project):
        more = f" and {len(files) - MOST_SHOWN} more" if len(files) > MOST_SHOWN else ""
        text = f"Uncommitted changes are not in the run: {', '.join(files[:MOST_SHOWN])}{more}."
        yield logging.WARNING, f"{text} Commit them and clear the DAG run; or type the commands in {project}."


def _is_served(commit: str, workspace: Path, timeout_s: float) -> bool:
    """Whether the origin of the workspace has followed the clone; it takes a second after a commit."""
    deadline = time.monotonic() + timeout_s
    while not git.git(workspace, "ls-remote", git.REMOTE, SERVED_REF).startswith(commit):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def start_run(dataset: str) -> StartRunOperator:
    """The task; a run that has started before, because the DAG run was cleared, moves to the newest commit."""
    return StartRunOperator(
        task_id="start_run", task_display_name="Start the run", command=f"headrace runs start {dataset} {RUN} --json"
    )


def update_run(dataset: str) -> StartRunOperator:
    """The task after a wait: the run moves to the newest commit, so that it continues the latest release."""
    return StartRunOperator(
        task_id="update_run", task_display_name="Update the run", command=f"headrace runs start {dataset} {RUN} --json"
    )
