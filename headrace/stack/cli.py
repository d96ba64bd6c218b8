"""`headrace stack`: the local stack from the command line."""

import json
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headrace.stack import console, control
from headrace.stack.paths import DEFAULT

app = typer.Typer(help="The local stack: real servers on 127.0.0.1.", no_args_is_help=True)
HomeOption = Annotated[Path, typer.Option("--home", help="Folder of data, logs and state.", show_default=".headrace")]
OnlyOption = Annotated[
    str, typer.Option("--only", metavar="SYSTEMS", help="Some systems, by name: s3,postgres,label-studio,dask,airflow.")
]
WIDTH = 160
UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3")


@app.command()
def up(
    home: HomeOption = DEFAULT,
    only: OnlyOption = "",
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and stop everything at Ctrl-C.")] = False,
) -> None:
    """Start what is not running, and print every page with user and password."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    err = Console(stderr=True)
    if foreground:
        _hold(home, names, err)
        return
    with console.progress(err) as watch:
        found = control.up(home, names, watch)
    _out().print(console.pages(found))
    where = "" if home == DEFAULT else f" --home {home}"
    err.print(f"Stop it with `headrace stack down{where}`; look at it with `headrace stack status{where}`.")


def _hold(home: Path, names: list[str], err: Console) -> None:
    with ExitStack() as stack:
        with console.progress(err) as watch:
            stack.enter_context(control.running(home, names, watch))
        _out().print(console.pages(control.status(home)))
        control.wait_for_end(home)


def _out() -> Console:
    """Standard output; in a file or a pipe no address is broken in two."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


@app.command()
def down(home: HomeOption = DEFAULT) -> None:
    """Stop every process of the stack; the data stays."""
    err = Console(stderr=True)
    with err.status("stopping"):
        stopped = control.down(home)
    err.print("stopped" if stopped else "nothing was running")


@app.command()
def status(
    home: HomeOption = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Ask every server how it is; exit code 3 when the stack is not up and healthy."""
    found = control.status(home)
    if as_json:
        typer.echo(json.dumps(console.as_json(found), indent=2))
    elif found.servers:
        _out().print(console.servers(found), console.pages(found))
    else:
        why = f": {found.whole.why}" if found.whole and found.whole.why else ""
        typer.echo(f"{found.home}: {found.state}{why}")
    if not found.healthy:
        raise typer.Exit(3)


@app.command()
def env(home: HomeOption = DEFAULT) -> None:
    """Print what a shell needs to reach the stack: `eval "$(headrace stack env)"`."""
    typer.echo(f"unset {' '.join(UNSET)}")
    for key, value in control.read_env(control.locate(home)).items():
        typer.echo(f"export {key}={shlex.quote(value)}")
