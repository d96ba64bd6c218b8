"""`make demo`: starts a new stack, runs the scenario, prints a summary; nothing is left running, whatever happens."""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from headrace.errors import HeadraceError
from headrace.stack import console as stack_console
from headrace.stack import control
from headrace.stack.paths import HOME, StackPaths
from headrace.stack.state import STOPPED, STOPPING, Event, read_state
from infra.demo.demo_console import DemoConsole
from infra.demo.errors import DemoError
from infra.demo.scenario import Scenario
from infra.demo.summary import render_summary

PROJECT = Path(__file__).resolve().parents[2]
DEMO_HOME = PROJECT / HOME / "demo"
INTERRUPTED = 130


def main(
    home: Annotated[Path, typer.Option(help="Folder of the demo; an earlier demo in it is removed.")] = DEMO_HOME,
    screenshots: Annotated[bool, typer.Option("--screenshots", help="Take the README's pictures (Chromium).")] = False,
) -> None:
    """Run real data through the whole pipeline, under a real scheduler."""
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    started_at = time.monotonic()
    try:
        _run_demo(DemoConsole(console), home.resolve(), screenshots=screenshots)
        console.print(f"Done in {time.monotonic() - started_at:.0f} s; nothing is left running.")
    except KeyboardInterrupt:
        console.print(f"\nInterrupted after {time.monotonic() - started_at:.0f} s; nothing is left running.")
        sys.exit(INTERRUPTED)
    except HeadraceError as error:
        console.print(f"\n{error}", style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(f"Nothing is left running. The logs of all servers: {home / 'logs'}")
        sys.exit(1)


def _run_demo(console: DemoConsole, home: Path, *, screenshots: bool) -> None:
    with ExitStack() as stack:
        with console.section("The stack: S3, PostgreSQL, Label Studio, Dask, Airflow"):
            _remove_earlier_demo(home)
            env = stack.enter_context(_running_stack(console, home))
        result = Scenario.create(console, env, home / "logs").run()
        if screenshots:
            _take_screenshots(console, home)
        console.rich.print(render_summary(result, console.durations_s, home))
        console.rich.print("\nstopping the servers", style="dim")


def _take_screenshots(console: DemoConsole, home: Path) -> None:
    from infra.demo.screenshots import take_screenshots  # noqa: PLC0415  needs a browser, which the demo does not

    state = read_state(StackPaths(home))
    for file in take_screenshots(state, PROJECT / "docs" / "images") if state else ():
        console.print(f"screenshot: {file}")


@contextmanager
def _running_stack(console: DemoConsole, home: Path) -> Iterator[control.Env]:
    """The servers; their start is shown, their stop is not."""
    with ExitStack() as shown:
        show = shown.enter_context(stack_console.show_progress(console.rich))

        def show_start(event: Event) -> None:
            if event.state not in (STOPPING, STOPPED):
                show(event)

        with control.running(home, on_event=show_start, project=PROJECT) as env:
            shown.close()
            yield env


def _remove_earlier_demo(home: Path) -> None:
    """Stop and remove an earlier demo; refuse to remove anything else."""
    if not home.exists():
        return
    if any(home.iterdir()) and not (home / "stack").is_dir():
        raise DemoError(
            f"{home} is not empty and holds no stack, so it is not removed. Choose another folder with --home."
        )
    control.down(home)
    shutil.rmtree(home)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
