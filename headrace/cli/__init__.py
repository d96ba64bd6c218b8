"""The command line: one command per step, in the order data flows. Each imports what it needs when it runs."""

import os
import sys
import traceback
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from headrace import __version__
from headrace.cli import (
    accept,
    build,
    check,
    demo,
    features,
    inspect,
    label,
    life_cycle,
    lineage,
    logs,
    maintenance,
    preview,
    project,
    runs,
    sql,
)
from headrace.cli.output import error_text, keep_stdout_for_results
from headrace.errors import HeadraceError
from headrace.unexpected_errors import is_known_os_error, to_filesystem_error
from headrace.workspace import load_env_files

STACK = "stack"

ORDER = (
    "ingest",
    "validate",
    "transform",
    "label",
    "release",
    "publish",
    "retrieve",
    "run",
    "accept",
    "runs",
    "plan",
    "preview",
    "status",
    "releases",
    "lineage",
    "diff",
    "sql",
    "doctor",
    "rename",
    "drop",
    "prune",
    "gc",
    "check",
    "dvc-sync",
    STACK,
    "demo",
    "init",
    "new",
)
"""Commands in the order of `--help`: as data flows, then those that inspect, maintain, and create projects."""


class OrderedGroup(TyperGroup):
    """Lists commands in `ORDER`, and imports the local stack only when it is named."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  a type that Typer keeps to itself
        found = {*super().list_commands(ctx), STACK}
        return [*(name for name in ORDER if name in found), *sorted(found.difference(ORDER))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        if cmd_name != STACK:
            return super().get_command(ctx, cmd_name)
        from headrace.stack.cli import app as stack  # noqa: PLC0415  deployed pipelines do not need it

        only = typer.Typer()
        only.add_typer(stack, name=STACK)
        logs.accept_log_options(only)
        return typer.main.get_group(only).get_command(ctx, STACK)


app = typer.Typer(
    name="headrace",
    cls=OrderedGroup,
    help="Build versioned releases, features and training rows from raw data and labels.\n\n"
    "Data flows through the commands in this order: ingest → validate → transform → label → release → publish →"
    " retrieve. Each works only on what changed, and can be run again at any time.",
    epilog="Exit codes: 0 success; 1 failure: fix what the message names; 2 wrong usage; 75 temporary failure (network,"
    " lock, lost race): run the same command again later.\n\n"
    "Start a project: headrace init my-project. In a project: headrace status <dataset>",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
project.add_to(app)
build.add_to(app)
app.add_typer(label.app, name="label")
app.add_typer(runs.app, name="runs")
app.add_typer(demo.app, name="demo")
features.add_to(app)
accept.add_to(app)
inspect.add_to(app)
preview.add_to(app)
check.add_to(app)
lineage.add_to(app)
sql.add_to(app)
life_cycle.add_to(app)
maintenance.add_to(app)
logs.accept_log_options(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headrace {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, show_default=False, metavar="", help="Log more: what each step decides."
        ),
    ] = 0,
    quiet: Annotated[
        int,
        typer.Option(
            "--quiet", "-q", count=True, show_default=False, metavar="", help="Log warnings only; -qq: errors only."
        ),
    ] = 0,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            "--log-format", help="Format of the log on standard error: plain lines, or one JSON object per line."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["HEADRACE_DEBUG"] = "1"
    load_env_files()
    logs.set_up_logging(verbose, quiet, log_format)


def run() -> None:
    """Run the command line. A known error is a message, without a stack trace unless `--debug` asks for it."""
    as_json = "--json" in sys.argv
    if as_json:
        keep_stdout_for_results()
    try:
        app(prog_name="headrace")
    except HeadraceError as error:
        _fail(error, error, as_json=as_json)
    except OSError as error:
        if not is_known_os_error(error):
            raise
        _fail(to_filesystem_error(error), error, as_json=as_json)


def _fail(error: HeadraceError, raised: BaseException, *, as_json: bool) -> None:
    if os.environ.get("HEADRACE_DEBUG"):
        traceback.print_exception(raised)
    typer.echo(error_text(error, as_json=as_json or logs.is_json()), err=True)
    sys.exit(error.exit_code)
