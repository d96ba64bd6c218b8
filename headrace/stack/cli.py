"""`headrace stack`: the local stack from the command line."""

import json
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.extras import require_extra

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.stack.control import StackStatus

HELP = (
    "Run the servers that this project needs on this machine: S3, PostgreSQL, Label Studio, Dask and Airflow.\n\n"
    "They come from packages, without root or containers, listen on 127.0.0.1 only, and keep everything in one folder, "
    "`.headrace` of the project. Stages run in its `workspace/`, a git clone of what is committed in the project."
)
EPILOG = (
    'Start with: headrace stack up --only s3,postgres; then: eval "$(headrace stack env)", so that this shell reaches '
    "them; at the end: headrace stack down"
)

app = typer.Typer(help=HELP, epilog=EPILOG, no_args_is_help=True)
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the stack's data, logs and state.", show_default=".headrace of the project"),
]
OnlyOption = Annotated[
    str,
    typer.Option(
        "--only",
        metavar="SYSTEMS",
        help="Only these systems and what they depend on: s3,postgres,label-studio,workspace,dask,airflow,s3-browser.",
        show_default="all",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
PIPE_WIDTH = 160
NOT_RUNNING = 3
UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3")


def _require_extra() -> None:
    """Called by each command before its imports, so that `--help` works without the extra."""
    require_extra("stack", "headrace stack")


@app.command(epilog="Example: headrace stack up --only s3,postgres")
def up(
    home: HomeOption = None,
    only: OnlyOption = "",
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in the foreground; Ctrl-C stops everything.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the servers that are not running; print each address with user and password.

    The first time, Label Studio is installed (`headrace stack install`).
    """
    _require_extra()
    from headrace.stack import console, control  # noqa: PLC0415

    names = [name.strip() for name in only.split(",") if name.strip()]
    err = _console(stderr=True)
    if foreground:
        _run_in_foreground(home, names, err, as_json=as_json)
        return
    with console.show_progress(err) as on_event:
        found = control.up(home, names, on_event)
    _print_endpoints(found, as_json=as_json)
    option = f" --home {home}" if home else ""
    begin = "It was running already. " if found.was_running else ""
    err.print(f"{begin}Check it with `headrace stack status{option}`, stop it with `headrace stack down{option}`.")


def _run_in_foreground(home: Path | None, names: list[str], err: "Console", *, as_json: bool) -> None:
    from headrace.stack import console, control  # noqa: PLC0415

    with ExitStack() as stack:
        with console.show_progress(err) as on_event:
            stack.enter_context(control.running(home, names, on_event))
        _print_endpoints(control.status(home), as_json=as_json)
        control.wait_until_stopped(home)


@app.command(epilog="Example: headrace stack down")
def down(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stop every process of the stack; its data stays."""
    _require_extra()
    from headrace.stack import control  # noqa: PLC0415

    err = _console(stderr=True)
    with err.status("stopping"):
        stopped = control.down(home)
    if as_json:
        _print_json({"stopped": stopped})
    else:
        err.print("stopped" if stopped else "nothing was running")


@app.command(epilog="Example: headrace stack status --json")
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Probe every server; exit code 3 unless the stack runs and is healthy."""
    _require_extra()
    from headrace.stack import console, control  # noqa: PLC0415

    found = control.status(home)
    if as_json:
        _print_json(console.status_json(found))
    elif found.servers:
        _console().print(console.server_table(found))
        _print_endpoints(found, as_json=False)
    else:
        error = f": {found.record.error}" if found.record and found.record.error else ""
        typer.echo(f"{found.paths.home}: {found.state}{error}")
    if not found.is_healthy:
        raise typer.Exit(NOT_RUNNING)


@app.command(epilog="Example: headrace stack env")
def env(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Print the settings with which a shell reaches the stack. Use it as: eval "$(headrace stack env)"."""
    _require_extra()
    from headrace.stack.control import read_env  # noqa: PLC0415
    from headrace.stack.paths import stack_paths  # noqa: PLC0415

    settings = read_env(stack_paths(home))
    if as_json:
        _print_json(settings)
        return
    typer.echo(f"unset {' '.join(UNSET)}")
    for key, value in settings.items():
        typer.echo(f"export {key}={shlex.quote(value)}")


@app.command(epilog="Example: headrace stack install")
def install(as_json: JsonOption = False) -> None:
    """Install Label Studio in a Python environment of its own: its pins clash with Airflow's.

    Does nothing if the environment is up to date; finishes an installation that was interrupted.
    """
    _require_extra()
    from headrace.stack.label_studio_environment import label_studio_environment  # noqa: PLC0415

    environment, err = label_studio_environment(), _console(stderr=True)
    installed = environment.install(lambda step: err.print(f"Label Studio: {step}", soft_wrap=True, highlight=False))
    if as_json:
        _print_json({"environment": str(environment.folder), "installed": installed})
    elif installed:
        err.print(f"Label Studio is installed in {environment.folder}.", soft_wrap=True, highlight=False)


def _print_endpoints(found: "StackStatus", *, as_json: bool) -> None:
    from headrace.stack import console  # noqa: PLC0415

    if as_json:
        _print_json(console.status_json(found))
    else:
        typer.echo(console.describe_stack(found))
        _console().print(console.endpoint_table(found))


def _print_json(content: dict[str, Any]) -> None:
    """Print to standard output; with `--json` the command line has redirected `sys.stdout` to standard error."""
    typer.echo(json.dumps(content, indent=2), file=sys.__stdout__ if sys.stdout is sys.stderr else None)


def _console(*, stderr: bool = False) -> "Console":
    """Standard output or error; in a file or a pipe, wide enough that no address is broken in two."""
    from rich.console import Console  # noqa: PLC0415

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH)
