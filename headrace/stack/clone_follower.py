"""The process that has a stack follow the clone that it serves: a commit is enough for Airflow to run it.

It asks git once a second, which costs a few milliseconds; each platform has another way to watch files.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from headrace.errors import HeadraceError, TransientError
from headrace.stack.paths import StackPaths
from headrace.stack.served_clone import BRANCH, serve_last_commit
from headrace.storage import git

POLL_S = 1.0
RETRY_S = 10.0
"""Seconds until a commit that could not be served is tried again, unless the cause passes by itself."""

log = logging.getLogger(__name__)


def follow(paths: StackPaths, project: Path) -> str:
    """Serve the clone's last commit, and have the workspace show it, so that Airflow reads its DAG files.

    Returns:
        The tip of the branch that is served.

    Raises:
        HeadraceError: The commit cannot be served; what was served before stays.
    """
    tip = serve_last_commit(paths, project)
    if paths.workspace.exists():
        git.git(paths.workspace, "pull", "--ff-only", "--tags", "--quiet", git.REMOTE, BRANCH)
    return tip


def main(arguments: Sequence[str] | None = None) -> None:
    """Follow the clone forever; an error is logged once, and what was served stays served."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--project", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    paths, served, reported = StackPaths(options.home, options.project), "", ""
    while True:
        pause_s = POLL_S
        try:
            newest = git.head(options.project)
            if newest != served:
                tip = follow(paths, options.project)
                served = newest
                log.info("serving the commit %s of %s; %s is at %s", newest[:10], options.project, BRANCH, tip[:10])
        except (HeadraceError, OSError) as error:
            if str(error) != reported:
                log.error("%s", error)  # noqa: TRY400  a message for people, who need no stack trace
            reported = str(error)
            pause_s = POLL_S if isinstance(error, TransientError) else RETRY_S
        time.sleep(pause_s)


if __name__ == "__main__":
    main()
