"""The command line: a verb a command, in the order data flows. Each imports what it needs when it is asked for."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from headrace.cli import build, check, features, inspect, label, lineage, maintenance
from headrace.cli.output import keep_stdout_for_results
from headrace.errors import HeadraceError

ORDER = (
    "ingest",
    "validate",
    "transform",
    "label",
    "release",
    "publish",
    "retrieve",
    "run",
    "plan",
    "status",
    "lineage",
    "diff",
    "doctor",
    "gc",
)


STACK = "stack"


class InOrder(TyperGroup):
    """Commands in the order data flows, then those that look, then the rest."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  a type that Typer keeps to itself
        """Names of the commands, as help lists them."""
        rest = [name for name in super().list_commands(ctx) if name not in ORDER]
        return [*ORDER, *rest, STACK]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """The command of that name; the local stack, which is no part of a deployed pipeline, only for who names it."""
        if cmd_name != STACK:
            return super().get_command(ctx, cmd_name)
        from headrace.stack.cli import app as stack  # noqa: PLC0415

        only = typer.Typer()
        only.add_typer(stack, name=STACK)
        return typer.main.get_group(only).get_command(ctx, STACK)


app = typer.Typer(
    name="headrace",
    cls=InOrder,
    help="Carry raw data and labels to versioned releases, features and training tables.\n\n"
    "A dataset flows through its verbs: ingest → validate → transform → label → release → publish → retrieve. Each "
    "only for what changed, and is safe to run again.",
    epilog="Begin with: make demo; then: headrace status flights",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
build.add_to(app)
app.add_typer(label.app, name="label")
features.add_to(app)
inspect.add_to(app)
check.add_to(app)
lineage.add_to(app)
maintenance.add_to(app)


@app.callback()
def options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["HEADRACE_DEBUG"] = "1"


def run() -> None:
    """Run the command line; a known error is a message and exit code 1, never a stack trace (unless `--debug`)."""
    if "--json" in sys.argv:
        keep_stdout_for_results()
    try:
        app(prog_name="headrace")
    except HeadraceError as error:
        if os.environ.get("HEADRACE_DEBUG"):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
