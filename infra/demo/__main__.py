"""`make demo`: a fresh stack, the story, a summary; nothing is left running, whatever happens."""

import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from infra.demo import summary
from infra.demo.errors import DemoError
from infra.demo.screen import Screen
from infra.demo.story import Teller
from infra.stack import control
from infra.stack import screen as stack_screen
from infra.stack.home import DEFAULT
from pipelines.errors import HeadraceError

HOME = DEFAULT / "demo"
INTERRUPTED = 130


def main(
    home: Annotated[Path, typer.Option(help="Folder of the demo; an earlier demo in it is removed.")] = HOME,
) -> None:
    """Carry real data the whole way, under a real scheduler."""
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    try:
        _demo(Screen(console), home.resolve())
        console.print(f"Done in {time.monotonic() - began:.0f} s; nothing is left running.")
    except KeyboardInterrupt:
        console.print(f"\nInterrupted after {time.monotonic() - began:.0f} s; nothing is left running.")
        sys.exit(INTERRUPTED)
    except HeadraceError as error:
        console.print(f"\n{error}", style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(f"Nothing is left running. The logs of all servers: {home / 'logs'}")
        sys.exit(1)


def _demo(screen: Screen, home: Path) -> None:
    with ExitStack() as stack:
        with screen.chapter("The stack: S3, PostgreSQL, Label Studio, Dask, Airflow"):
            _clear(home)
            with stack_screen.progress(screen.console) as watch:
                env = stack.enter_context(control.running(home, watch=watch))
        story = Teller.of(screen, env, home / "logs").tell()
        screen.console.print(summary.of(story, screen.took, home))
        screen.console.print("\nstopping the servers", style="dim")


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
