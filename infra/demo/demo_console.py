"""What the demo prints while it runs: sections with their duration, and the tasks of each DAG run."""

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

from infra.demo.airflow_client import TaskInstance

MARKS = {"success": ("✓", "green"), "failed": ("✗", "red"), "up_for_retry": ("✗", "red"), "deferred": ("…", "yellow")}
DESCRIPTIONS = {"deferred": "deferred: waits for people, holds no worker", "up_for_retry": "failed"}
PRINTED_STATES = ("success", "deferred", "failed", "up_for_retry")

OnTasks = Callable[[list[TaskInstance]], None]


@dataclass
class DemoConsole:
    """The console, and how long each section took."""

    rich: Console
    durations_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def section(self, title: str) -> Iterator[None]:
        """A numbered part of the demo."""
        self.rich.print(Rule(f"{len(self.durations_s) + 1}  {title}", align="left", style="cyan"))
        started_at = time.monotonic()
        yield
        self.durations_s[title] = time.monotonic() - started_at
        self.rich.print(f"[dim]{self.durations_s[title]:.1f} s[/]\n")

    def print(self, text: str) -> None:
        """Print one line."""
        self.rich.print(text, soft_wrap=True, highlight=False)

    @contextmanager
    def dag_run(self, title: str) -> Iterator[OnTasks]:
        """The tasks of a DAG run: redrawn on a terminal, one line per final state elsewhere."""
        self.print(f"[bold]{title}[/]")
        table = TaskProgress()
        if not self.rich.is_terminal:
            yield lambda tasks: self._print_changes(table, tasks)
            return
        with Live(table, console=self.rich, refresh_per_second=8):
            yield table.update

    def _print_changes(self, table: "TaskProgress", tasks: list[TaskInstance]) -> None:
        for task in tasks:
            before = table.tasks.get(task.id)
            if task.state in PRINTED_STATES and (before is None or before.state != task.state):
                self.print(f"  {MARKS[task.state][0]} {task.title:<28} {describe_state(task)}")
        table.update(tasks)


@dataclass
class TaskProgress:
    """The tasks of one DAG run."""

    tasks: dict[str, TaskInstance] = field(default_factory=dict)
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def update(self, tasks: list[TaskInstance]) -> None:
        """Replace the tasks by newer ones."""
        self.tasks = {task.id: task for task in tasks}

    def __rich__(self) -> RenderableType:
        """The table as of now."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=3, justify="right")
        for task in self.tasks.values():
            grid.add_row(self._mark(task), task.title, Text(describe_state(task), style="dim"))
        return grid

    def _mark(self, task: TaskInstance) -> RenderableType:
        if task.state in MARKS:
            mark, style = MARKS[task.state]
            return Text(mark, style=style)
        return self.spinner if task.state in ("running", "queued") else Text("·", style="dim")


def describe_state(task: TaskInstance) -> str:
    """Duration of a finished task, state of any other."""
    return f"{task.duration_s:.1f} s" if task.state == "success" else DESCRIPTIONS.get(task.state, task.state)


def titled_table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> RenderableType:
    """A table of the summary: a name per row, then numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", header_style="dim")
    for row in rows:
        table.add_row(*row)
    return Group(Text(title, style="bold"), Padding(table, (0, 0, 0, 2)))
