"""`python -m infra.stack up|down|status|env`: the same commands as `headrace stack`."""

import sys

import typer

from infra.stack.cli import app
from pipelines.errors import HeadraceError

if __name__ == "__main__":
    try:
        app(prog_name="headrace stack")
    except HeadraceError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)
