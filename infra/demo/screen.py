"""What a person sees while the demo runs: chapters with their time, and each task as it stands."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from infra.demo.airflow import Task

MARKS = {"success": ("✓", "green"), "failed": ("✗", "red"), "up_for_retry": ("✗", "red"), "deferred": ("…", "yellow")}
WORDS = {"deferred": "deferred: waits for people, holds no worker", "up_for_retry": "failed"}
SAID_ONCE = ("success", "deferred", "failed", "up_for_retry")

Tell = Callable[[list[Task]], None]


@dataclass
class Screen:
    """The console, and how long each chapter took."""

    console: Console
    took: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """A part of the story."""
        self.console.print(Rule(f"{len(self.took) + 1}  {title}", align="left", style="cyan"))
        began = time.monotonic()
        yield
        self.took[title] = time.monotonic() - began
        self.console.print(f"[dim]{self.took[title]:.1f} s[/]\n")

    def say(self, text: str) -> None:
        """A line of the story."""
        self.console.print(text, soft_wrap=True, highlight=False)

    @contextmanager
    def run(self, title: str) -> Iterator[Tell]:
        """The tasks of a run: redrawn on a terminal, one line for each end elsewhere."""
        self.say(f"[bold]{title}[/]")
        board = Board()
        if not self.console.is_terminal:
            yield lambda tasks: self._plain(board, tasks)
            return
        with Live(board, console=self.console, refresh_per_second=8):
            yield board.see

    def _plain(self, board: "Board", tasks: list[Task]) -> None:
        for task in tasks:
            before = board.tasks.get(task.id)
            if task.state in SAID_ONCE and (before is None or before.state != task.state):
                self.say(f"  {MARKS[task.state][0]} {task.title:<28} {word(task)}")
        board.see(tasks)


@dataclass
class Board:
    """The tasks of one run."""

    tasks: dict[str, Task] = field(default_factory=dict)
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def see(self, tasks: list[Task]) -> None:
        """Take in how they stand."""
        self.tasks = {task.id: task for task in tasks}

    def __rich__(self) -> RenderableType:
        """The board as it stands."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=3, justify="right")
        for task in self.tasks.values():
            grid.add_row(self._mark(task), task.title, Text(word(task), style="dim"))
        return grid

    def _mark(self, task: Task) -> RenderableType:
        if task.state in MARKS:
            mark, style = MARKS[task.state]
            return Text(mark, style=style)
        return self.spinner if task.state in ("running", "queued") else Text("·", style="dim")


def word(task: Task) -> str:
    """How a task stands, in a word or a number."""
    return f"{task.seconds:.1f} s" if task.state == "success" else WORDS.get(task.state, task.state)


def table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> RenderableType:
    """A table for the summary: a name a row, then numbers."""
    made = Table(box=None, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        made.add_column(name, justify="right" if place else "left", header_style="dim")
    for row in rows:
        made.add_row(*row)
    return Group(Text(title, style="bold"), Padding(made, (0, 0, 0, 2)))
