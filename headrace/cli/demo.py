"""`headrace demo`: the data of a project's demo, for the local stack that serves the project."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.output import JsonOption

LOADER = "infra.demo.load"
"""Module of the project that loads its data: the engine has none."""

MOST_DAYS = 365

app = typer.Typer(help="Put the data of the project's demo into the local stack.", no_args_is_help=True)


@app.callback()
def demo() -> None:
    """Keep `load` a command of a group, though it is the only one."""


@app.command(epilog="Example: headrace demo load --days 14")
def load(
    *,
    days: Annotated[int, typer.Option(min=1, max=MOST_DAYS, help="Days of data.")] = 14,
    home: Annotated[
        Path | None, typer.Option("--home", help="Folder of the stack.", show_default=".headrace of the project")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put the demo's data into the running stack: objects into its bucket, rows into its database.

    Safe to repeat: what is there stays, and more days can be added. Then Airflow's DAGs have something to do.
    """
    from headrace.extras import require_extra  # noqa: PLC0415

    require_extra("stack", "headrace demo")
    from headrace.stack.control import read_running_env  # noqa: PLC0415

    project, env = read_running_env(home, ("s3", "postgres"))
    options = ["--days", str(days), *(["--json"] if as_json else [])]
    _require_loader(project)
    done = subprocess.run([sys.executable, "-m", LOADER, *options], cwd=project, env={**os.environ, **env}, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


def _require_loader(project: Path) -> None:
    from headrace.errors import HeadraceError  # noqa: PLC0415

    file = project / f"{LOADER.replace('.', '/')}.py"
    if not file.exists():
        raise HeadraceError(
            f"{project} has no demo data: expected {file.relative_to(project)}, which the repository of Headrace has."
            " `headrace new NAME --from SAMPLE` adds a dataset of your own."
        )
