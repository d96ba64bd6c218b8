"""How the command line speaks: results on standard output (or `--json`), progress on standard error."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headrace.engine.run import StageResult
    from headrace.settings import Settings
    from headrace.storage.table_store import Lake

DatasetArgument = Annotated[str, typer.Argument(help="The dataset, as its folder in pipelines/ is called.")]
TableOption = Annotated[list[str] | None, typer.Option("--table", "-t", help="Only this table; may be repeated.")]
PartitionOption = Annotated[
    str | None, typer.Option("--partition", "-p", help="Only this partition, for example 2013-01-09.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def workspace() -> "tuple[Settings, Lake]":
    """The settings of the workspace one stands in, and its tables."""
    from headrace.settings import load_settings  # noqa: PLC0415  only a command that asks for data pays for the imports
    from headrace.storage.table_store import Lake  # noqa: PLC0415

    settings = load_settings()
    return settings, Lake.at(settings.workspace, passes_on=settings.commit == "remote")


def result(content: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """Print what a command found: `content` for machines, or `lines` for people."""
    text = json.dumps(content, indent=2, default=str) if as_json else "\n".join(lines)
    typer.echo(text, file=sys.__stdout__ if sys.stdout is sys.stderr else None)


def keep_stdout_for_results() -> None:
    """From here on, what a library prints (a retry, a hint) goes to standard error, and a result stays good JSON."""
    sys.stdout = sys.stderr


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on standard error, one a table; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _label, _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415  only a terminal pays for the import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label)
            bars.update(tasks[label], completed=done, total=total)

        yield tell


def some(names: Sequence[str], most: int = 4) -> str:
    """A few of `names` and how many more: `2013-01-01, 2013-01-02 … 14 in all`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} … {len(names)} in all"


def report(ran: "Sequence[StageResult]", *, as_json: bool) -> None:
    """Print what runs of stages did."""
    result(stages(ran), [_line(item) for item in ran], as_json=as_json)


def stages(ran: "Sequence[StageResult]") -> dict[str, Any]:
    """What runs of stages did, for machines."""
    return {"stages": [_content(item) for item in ran]}


def _content(ran: "StageResult") -> dict[str, Any]:
    return {
        "table": ran.stage.table,
        "built": {name: list(why) for name, why in ran.built.items()},
        "kept": ran.kept,
        "gone": list(ran.gone),
        "totals": ran.totals,
        "collected_by": ran.collected_by,
        "checks": dict(ran.checks),
    }


def _line(ran: "StageResult") -> str:
    done = f"{len(ran.built)} computed ({some(list(ran.built))})" if ran.built else "nothing to do"
    gone = f", {len(ran.gone)} gone ({some(list(ran.gone))})" if ran.gone else ""
    totals = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in ran.totals.items())
    checks = "".join(f"\n  rejected by {check}: {rows:,}" for check, rows in ran.checks.most_common())
    engines = "".join(f"; {count} collected by {engine}" for engine, count in sorted(ran.collected_by.items()))
    return f"{ran.stage.table}: {done}{gone}, {ran.kept} carried over; {totals}{engines}{checks}"
