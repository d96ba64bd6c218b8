"""`make demo`: a fresh stack, the story, a summary; nothing is left running, whatever happens."""

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
from headrace.stack import console as stack_screen
from headrace.stack import control
from headrace.stack.paths import DEFAULT, REPOSITORY
from headrace.stack.state import Event, read_state
from infra.demo import summary
from infra.demo.errors import DemoError
from infra.demo.scenario import Teller
from infra.demo.screen import Screen

HOME = DEFAULT / "demo"
INTERRUPTED = 130


def main(
    home: Annotated[Path, typer.Option(help="Folder of the demo; an earlier demo in it is removed.")] = HOME,
    screenshots: Annotated[bool, typer.Option("--screenshots", help="Take the README's pictures (Chromium).")] = False,
) -> None:
    """Carry real data the whole way, under a real scheduler."""
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    try:
        _demo(Screen(console), home.resolve(), screenshots=screenshots)
        console.print(f"Done in {time.monotonic() - began:.0f} s; nothing is left running.")
    except KeyboardInterrupt:
        console.print(f"\nInterrupted after {time.monotonic() - began:.0f} s; nothing is left running.")
        sys.exit(INTERRUPTED)
    except HeadraceError as error:
        console.print(f"\n{error}", style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(f"Nothing is left running. The logs of all servers: {home / 'logs'}")
        sys.exit(1)


def _demo(screen: Screen, home: Path, *, screenshots: bool) -> None:
    with ExitStack() as stack:
        with screen.chapter("The stack: S3, PostgreSQL, Label Studio, Dask, Airflow"):
            _clear(home)
            env = stack.enter_context(_stack(screen, home))
        story = Teller.of(screen, env, home / "logs").tell()
        if screenshots:
            _take_pictures(screen, home)
        screen.console.print(summary.of(story, screen.took, home))
        screen.console.print("\nstopping the servers", style="dim")


def _take_pictures(screen: Screen, home: Path) -> None:
    from infra.demo.screenshots import take  # noqa: PLC0415  needs a browser, which the demo itself does not

    state = read_state(control.locate(home))
    for picture in take(state, REPOSITORY / "docs" / "images") if state else ():
        screen.say(f"picture: {picture}")


@contextmanager
def _stack(screen: Screen, home: Path) -> Iterator[control.Env]:
    """The servers, shown as they come up; that they stop is no news."""
    with ExitStack() as shown:
        watch = shown.enter_context(stack_screen.progress(screen.console))

        def starting(event: Event) -> None:
            if event.state not in stack_screen.STOPPING:
                watch(event)

        with control.running(home, watch=starting) as env:
            shown.close()
            yield env


def _clear(home: Path) -> None:
    """Stop and remove an earlier demo; refuse to remove anything else."""
    if not home.exists():
        return
    if any(home.iterdir()) and not (home / "stack").is_dir():
        raise DemoError(f"{home} is not empty and holds no stack, so it is not removed. Name another folder by --home.")
    control.down(home)
    shutil.rmtree(home)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
