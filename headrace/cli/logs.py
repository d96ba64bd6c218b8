"""The log of the command line: on standard error, as plain lines, as JSON lines, or through Rich on a terminal.

The choice is in two environment variables (HEADRACE_LOG_LEVEL, HEADRACE_LOG_FORMAT), which the options of the command
line set for this process and those that it starts. Only the command line sets up logging: the library logs to named
loggers and leaves the rest to the program that imports it.
"""

import inspect
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headrace.errors import NotConfiguredError
from headrace.workspace import PACKAGE

if TYPE_CHECKING:
    from rich.console import Console

LEVEL, FORMAT = "HEADRACE_LOG_LEVEL", "HEADRACE_LOG_FORMAT"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FORMATS = ("text", "json")
OURS = ("headrace", PACKAGE)
"""Loggers that get the chosen level; other libraries log warnings and errors."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time` (UTC), `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class StderrHandler(logging.Handler):
    """Writes lines to whatever standard error is now."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201


class TerminalHandler(StderrHandler):
    """Shows records through Rich, above the progress bars. Imported late: most commands log nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        _rich_handler().emit(record)


def set_up_logging(verbose: int = 0, quiet: int = 0, form: str | None = None) -> None:
    """Set up the log from the environment and these options; the options are stored in the environment.

    Args:
        verbose: How many levels below HEADRACE_LOG_LEVEL are logged.
        quiet: How many levels from HEADRACE_LOG_LEVEL on are not logged.
        form: Overrides HEADRACE_LOG_FORMAT.

    Raises:
        NotConfiguredError: A variable has an unknown value.
    """
    place = LEVELS.index(log_level()) + quiet - verbose
    os.environ[LEVEL] = level = LEVELS[min(max(place, 0), len(LEVELS) - 1)]
    os.environ[FORMAT] = form = form or log_format()
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, StderrHandler)]
    root.addHandler(_handler(form))
    for name in OURS:
        logging.getLogger(name).setLevel(level)


def log_level() -> str:
    """The current level of the log."""
    return _one_of(LEVELS, (os.environ.get(LEVEL) or "INFO").upper(), LEVEL)


def log_format() -> str:
    """The current format of the log."""
    return _one_of(FORMATS, (os.environ.get(FORMAT) or "text").lower(), FORMAT)


def is_json() -> bool:
    """Whether the log is written as JSON."""
    return os.environ.get(FORMAT, "").lower() == "json"


def _one_of(offered: tuple[str, ...], value: str, name: str) -> str:
    if value not in offered:
        raise NotConfiguredError(f"{name}: expected one of {', '.join(offered)}, found {value}.")
    return value


def _handler(form: str) -> StderrHandler:
    if form == "text" and sys.stderr.isatty():
        return TerminalHandler()
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else _plain_formatter())
    return handler


def _plain_formatter() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


def shows_progress_bars() -> bool:
    """Whether progress is shown as bars: on a terminal, unless the log is JSON or quiet."""
    return sys.stderr.isatty() and log_format() == "text" and log_level() in {"DEBUG", "INFO"}


@cache
def terminal() -> "Console":
    """The terminal on standard error, which progress bars and the log share."""
    from rich.console import Console  # noqa: PLC0415  only a terminal pays for the import

    return Console(stderr=True)


@cache
def _rich_handler() -> logging.Handler:
    from rich.logging import RichHandler  # noqa: PLC0415

    return RichHandler(console=terminal(), show_path=False, log_time_format="%X")


def accept_log_options(app: typer.Typer) -> None:
    """Let every command of `app` accept the log options, too: people append `-v` to a command that they have typed."""
    for command in app.registered_commands:
        if command.callback:
            command.callback = _with_log_options(command.callback)
    for group in app.registered_groups:
        if group.typer_instance:
            accept_log_options(group.typer_instance)


LOG_OPTIONS = (
    ("log_verbose", 0, Annotated[int, typer.Option("--verbose", "-v", count=True, hidden=True)]),
    ("log_quiet", 0, Annotated[int, typer.Option("--quiet", "-q", count=True, hidden=True)]),
    ("log_form", None, Annotated[Literal["text", "json"] | None, typer.Option("--log-format", hidden=True)]),
)


def _with_log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the log options added to its signature, from which Typer reads its options; added once."""
    signature = inspect.signature(command)
    if LOG_OPTIONS[0][0] in signature.parameters:
        return command

    @wraps(command)
    def with_log_options(*, log_verbose: int, log_quiet: int, log_form: str | None, **options: Any) -> Any:  # noqa: ANN401
        if log_verbose or log_quiet or log_form:
            set_up_logging(log_verbose, log_quiet, log_form)
        return command(**options)

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in LOG_OPTIONS
    ]
    with_log_options.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *added]
    )
    with_log_options.__annotations__ = command.__annotations__ | {name: kind for name, _, kind in LOG_OPTIONS}
    return with_log_options
