"""`python -m headrace.stack up|down|status|env`: the same commands as `headrace stack`."""

import sys

import typer

from headrace.errors import HeadraceError
from headrace.stack.cli import app

if __name__ == "__main__":
    try:
        app(prog_name="headrace stack")
    except HeadraceError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)
