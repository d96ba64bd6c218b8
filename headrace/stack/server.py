"""What a system of the stack declares: its processes, how each is prepared and found healthy, its exports, its page."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Runner(Protocol):
    """Runs one command to its end on behalf of a server that is being prepared."""

    async def __call__(
        self,
        *command: str,
        env: Mapping[str, str],
        cwd: Path | None = None,
        account: str = "-",
        check: bool = True,
    ) -> str:
        """Return what it printed; raise with the end of the log when it fails (or return "" without `check`)."""
        ...

    def note(self, text: str) -> None:
        """Tell the person who waits."""
        ...


Probe = Callable[[float], Awaitable[bool]]
"""Is it healthy? The argument: when the process was started, so that an older heartbeat is not believed."""

Step = Callable[[Runner], Awaitable[None]]


@dataclass(frozen=True)
class Server:
    """One process, or, without a command, one thing to prepare that others need."""

    name: str
    command: tuple[str, ...] = ()
    healthy: Probe | None = None
    needs: tuple[str, ...] = ()
    prepare: Step | None = None
    follow_up: Step | None = None  # once healthy, before anything that needs it starts
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    account: str = "-"
    pipeline: bool = False  # it runs our stages, so it is given what all systems export
    limit_s: float = 120
    stop: signal.Signals = signal.SIGTERM
    grace_s: float = 5
    restarts: int = 0  # how often a dead one is started again before the stack gives up


@dataclass(frozen=True)
class Page:
    """Where a person, or a client, finds a system."""

    name: str
    address: str
    user: str = ""
    password: str = ""


@dataclass(frozen=True)
class System:
    """One system we do not own, as this home runs it."""

    name: str
    servers: tuple[Server, ...]
    exports: Mapping[str, str] = field(default_factory=dict)
    pages: tuple[Page, ...] = ()
    needs: tuple[str, ...] = ()  # other systems
