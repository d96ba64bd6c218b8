"""How the stack is shown: its progress while it starts (on standard error), and tables of what runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from headrace.stack.control import StackStatus
from headrace.stack.state import INSTALLING, NOTE, READY, STOPPED, STOPPING, Event, EventHandler


@contextmanager
def show_progress(console: Console) -> Iterator[EventHandler]:
    """Show the servers as they start: redrawn on a terminal, one line per finished step elsewhere."""
    if not console.is_terminal:
        yield lambda event: print_event(console, event)
        return
    table = ServerProgress()
    with Live(table, console=console, refresh_per_second=8):
        yield table.update


def print_event(console: Console, event: Event) -> None:
    """One line for each event that ends something, and for steps of an installation."""
    line = ""
    if event.state == NOTE:
        line = f"note: {event.detail}"
    elif event.state == INSTALLING:
        line = f"{event.server:<22} {event.state}: {event.detail}"
    elif event.server and event.state == READY:
        line = f"{event.server:<22} ready in {event.seconds:5.1f} s"
    elif event.server and event.state == STOPPED:
        line = f"{event.server:<22} stopped"
    if line:
        console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)


class ServerProgress:
    """One line per server, redrawn as events arrive."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[float, Event]] = {}
        self.notes: list[str] = []
        self.spinner = Spinner("dots")

    def update(self, event: Event) -> None:
        """Take in one event."""
        if event.state == NOTE:
            self.notes.append(event.detail)
        elif event.server:
            self.rows[event.server] = (time.monotonic(), event)

    def __rich__(self) -> RenderableType:
        """The table as of now."""
        grid = Table.grid(padding=(0, 1))
        for name, (since, event) in self.rows.items():
            is_done = event.state in (READY, STOPPED)
            mark = Text("✓", style="green") if is_done else self.spinner
            grid.add_row(mark, name, self._describe(event, time.monotonic() - since))
        return Group(grid, *(Text(f"note: {note}", style="yellow") for note in self.notes))

    def _describe(self, event: Event, elapsed_s: float) -> Text:
        if event.state == READY:
            return Text(f"ready in {event.seconds:.1f} s", style="dim")
        if event.state in (STOPPING, STOPPED):
            return Text(event.state)
        step = f"{event.state}: {event.detail}" if event.state == INSTALLING else event.state
        return Text(f"{step}  {elapsed_s:.0f} s")


def describe_stack(found: StackStatus) -> str:
    """Where the stack is, which clone it serves, with which systems, and which commit runs work on."""
    systems = f" with {', '.join(found.record.systems)}" if found.record else ""
    serves = f"serves {found.project}" if found.project else "serves no project"
    lines = [f"The stack in {found.paths.home} {serves}{systems}.", *(found.served.describe() if found.served else ())]
    return "\n".join(lines)


def endpoint_table(found: StackStatus) -> Table:
    """Address, user and password of each system."""
    table = Table(box=box.SIMPLE)
    for column in ("service", "address", "user", "password"):
        table.add_column(column, overflow="fold", no_wrap=column == "address")
    for endpoint in found.record.endpoints if found.record else ():
        table.add_row(endpoint.name, endpoint.address, endpoint.user, endpoint.password)
    return table


def server_table(found: StackStatus) -> Table:
    """Process number, health and log of each server."""
    table = Table(box=box.SIMPLE)
    for column in ("server", "pid", "health", "log"):
        table.add_column(column, overflow="fold")
    for server, healthy in found.servers:
        health = Text("healthy", style="green") if healthy else Text("does not answer", style="red")
        table.add_row(server.name, str(server.process.pid), health, server.log)
    return table


def status_json(found: StackStatus) -> dict[str, Any]:
    """The status as JSON, without passwords."""
    record = found.record
    return {
        "home": str(found.paths.home),
        "project": found.project or None,
        "commit": found.served.commit if found.served else None,
        "uncommitted": list(found.served.uncommitted) if found.served else [],
        "state": found.state,
        "error": (record.error if record else "") or None,
        "healthy": found.is_healthy,
        "systems": record.systems if record else [],
        "endpoints": {endpoint.name: endpoint.address for endpoint in record.endpoints} if record else {},
        "servers": [
            {"name": server.name, "pid": server.process.pid, "healthy": healthy, "log": server.log}
            for server, healthy in found.servers
        ],
    }
