"""What a person sees of the stack: its progress while it starts (on stderr), a table when it is there."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from headrace.stack.control import Status, Watch
from headrace.stack.state import READY, Event

STOPPING = ("stopping", "stopped")


@contextmanager
def progress(console: Console) -> Iterator[Watch]:
    """Show each server as it comes up: alive on a terminal, one plain line per server elsewhere."""
    if not console.is_terminal:
        yield lambda event: plain(console, event)
        return
    board = Board()
    with Live(board, console=console, refresh_per_second=8):
        yield board.watch


def plain(console: Console, event: Event) -> None:
    """One line for what is done, none for each step on the way."""
    if event.state == "note":
        console.print(f"  note: {event.detail}", soft_wrap=True, markup=False, highlight=False)
    elif event.server and event.state == READY:
        console.print(f"  {event.server:<22} ready in {event.seconds:5.1f} s", markup=False, highlight=False)
    elif event.server and event.state == "stopped":
        console.print(f"  {event.server:<22} stopped", markup=False, highlight=False)


class Board:
    """A line per server, redrawn as events come."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[float, Event]] = {}
        self.notes: list[str] = []
        self.spinner = Spinner("dots")

    def watch(self, event: Event) -> None:
        """Take in one event."""
        if event.state == "note":
            self.notes.append(event.detail)
        elif event.server:
            self.rows[event.server] = (time.monotonic(), event)

    def __rich__(self) -> RenderableType:
        """The board as it stands."""
        grid = Table.grid(padding=(0, 1))
        for name, (since, event) in self.rows.items():
            grid.add_row(self.mark(event), name, self.word(event, time.monotonic() - since))
        return Group(grid, *(Text(f"note: {note}", style="yellow") for note in self.notes))

    def mark(self, event: Event) -> RenderableType:
        """Done, or turning."""
        return Text("✓", style="green") if event.state in (READY, "stopped") else self.spinner

    def word(self, event: Event, waited: float) -> Text:
        """What it is at, and for how long."""
        if event.state == READY:
            return Text(f"ready in {event.seconds:.1f} s", style="dim")
        return Text(event.state if event.state in STOPPING else f"{event.state}  {waited:.0f} s")


def pages(found: Status) -> Table:
    """Where each system is, and how to get in."""
    table = Table(title=f"The stack in {found.home}", title_justify="left", box=box.SIMPLE)
    for column in ("page", "address", "user", "password"):
        table.add_column(column, overflow="fold", no_wrap=column == "address")
    for page in found.whole.pages if found.whole else ():
        table.add_row(page.name, page.address, page.user, page.password)
    return table


def servers(found: Status) -> Table:
    """Each process with its number and health."""
    table = Table(box=box.SIMPLE)
    for column in ("server", "pid", "health", "log"):
        table.add_column(column, overflow="fold")
    for known, well in found.servers:
        health = Text("healthy", style="green") if well else Text("does not answer", style="red")
        table.add_row(known.name, str(known.identity.pid), health, known.log)
    return table


def as_json(found: Status) -> dict[str, object]:
    """The same for machines; no passwords."""
    whole = found.whole
    return {
        "home": str(found.home),
        "state": found.state,
        "why": whole.why if whole else "",
        "healthy": found.healthy,
        "pages": {page.name: page.address for page in whole.pages} if whole else {},
        "servers": [
            {"name": known.name, "pid": known.identity.pid, "healthy": well, "log": known.log}
            for known, well in found.servers
        ],
    }
