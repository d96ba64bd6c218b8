"""What a system of the stack declares: its processes, how each is prepared and probed, its settings and endpoints."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class CommandRunner(Protocol):
    """Runs commands on behalf of a server that is being prepared."""

    async def __call__(
        self,
        *command: str,
        env: Mapping[str, str],
        cwd: Path | None = None,
        user: str = "-",
        check: bool = True,
    ) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            StartFailedError: It failed, and `check` is set; without `check` the result is empty.
        """
        ...

    def note(self, text: str) -> None:
        """Show a line to the user."""
        ...


Probe = Callable[[float], Awaitable[bool]]
"""Whether a server is healthy. The argument is when it was started, so that an older heartbeat does not count."""

Step = Callable[[CommandRunner], Awaitable[None]]


@dataclass(frozen=True)
class Server:
    """One process; without a command, something to prepare that other servers depend on.

    Attributes:
        name: Name of the process and of its log.
        command: Program and arguments.
        probe: Tells whether it is healthy.
        depends_on: Servers that must be ready first.
        prepare: Runs before the command.
        post_start: Runs once it is healthy, before anything that depends on it starts.
        env: Its whole environment.
        cwd: Its folder, by default the stack's home.
        user: User to run as; `-` for the current one.
        runs_stages: It runs code of the project, so its environment gets the settings that all systems export.
        start_timeout_s: Seconds until it must be healthy.
        stop_signal: Asks it to stop.
        stop_timeout_s: Seconds until it is killed.
        max_restarts: How often it is started again after it died; then the stack stops.
    """

    name: str
    command: tuple[str, ...] = ()
    probe: Probe | None = None
    depends_on: tuple[str, ...] = ()
    prepare: Step | None = None
    post_start: Step | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    user: str = "-"
    runs_stages: bool = False
    start_timeout_s: float = 120
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 5
    max_restarts: int = 0


@dataclass(frozen=True)
class Endpoint:
    """Where users and clients reach a system, and how they log in."""

    name: str
    address: str
    user: str = ""
    password: str = ""


@dataclass(frozen=True)
class System:
    """One system of the stack, as it runs in one home.

    Attributes:
        name: What `--only` calls it.
        servers: Its processes.
        exports: Settings with which a pipeline reaches it: the content of `stack.env`.
        endpoints: Where users reach it.
    """

    name: str
    servers: tuple[Server, ...]
    exports: Mapping[str, str] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
