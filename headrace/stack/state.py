"""The state of a stack: written by the supervisor, read by every other command."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headrace.stack.errors import DamagedJsonError
from headrace.stack.paths import StackPaths, read_json, write_private
from headrace.stack.process import ProcessIdentity
from headrace.stack.server import Endpoint

STARTING, READY, STOPPING, STOPPED = "starting", "ready", "stopping", "stopped"
INSTALLING, NOTE, FAILED = "installing", "note", "failed"
UNREADABLE = "unreadable"
"""The state of a stack whose state file is damaged: only its watchdog is known, by the lock file."""

EXIT_ALREADY_RUNNING = 3
"""Exit code of a supervisor that found another one in its home."""


@dataclass(frozen=True)
class Event:
    """One step of a server, or (without a server) of the stack; `seconds` is how long the server took to be ready."""

    state: str
    server: str = ""
    detail: str = ""
    seconds: float = 0.0


EventHandler = Callable[[Event], None]


@dataclass
class ServerState:
    """A server that was started."""

    name: str
    process: ProcessIdentity
    log: str
    state: str = STARTING


@dataclass
class StackState:
    """The state of a whole stack.

    Attributes:
        watchdog: The process to signal when the stack shall stop.
        project: Folder of the project that the stack serves; empty for servers that need none.
        systems: Names of the systems.
        home: Folder of the stack when it was started; empty if an earlier version wrote the state.
        engine: The engine that its servers loaded (`environment.engine_version`); empty likewise.
        endpoints: Where users reach them, with passwords.
        servers: The processes.
        state: `starting`, `ready`, `stopping` or `stopped`.
        error: Why the stack stopped, if no one asked for it.
    """

    watchdog: ProcessIdentity
    project: str
    systems: list[str]
    home: str = ""
    engine: str = ""
    endpoints: list[Endpoint] = field(default_factory=list)
    servers: list[ServerState] = field(default_factory=list)
    state: str = STARTING
    error: str = ""

    def write(self, paths: StackPaths) -> None:
        """Write it, readable by the owner alone: endpoints carry passwords."""
        write_private(paths.state, json.dumps(asdict(self), indent=2))


def read_state(paths: StackPaths) -> StackState | None:
    """The last state that was written; None if no stack was ever started here."""
    try:
        raw = read_json(paths.state)
        return _parse(raw) if raw else None
    except (DamagedJsonError, KeyError, TypeError) as error:
        text = f"{paths.state} is damaged ({error})"
        return StackState(read_watchdog(paths), "", [], str(paths.home), state=UNREADABLE, error=text)


def write_watchdog(paths: StackPaths, watchdog: ProcessIdentity) -> None:
    """Write to the lock file which process to signal, for a stack whose state file is lost."""
    paths.lock.write_text(json.dumps(asdict(watchdog)))  # not replaced: the lock is held on this very file


def read_watchdog(paths: StackPaths) -> ProcessIdentity:
    """The watchdog by the lock file; a process that does not run if the file does not say."""
    try:
        return ProcessIdentity(**read_json(paths.lock))
    except (DamagedJsonError, TypeError):
        return ProcessIdentity(0, 0.0)


def _parse(raw: dict[str, Any]) -> StackState:
    if "keeper" in raw:
        raw = _from_0_1(raw)
    servers = [
        ServerState(item["name"], ProcessIdentity(**item["process"]), item["log"], item["state"])
        for item in raw["servers"]
    ]
    endpoints = [Endpoint(**item) for item in raw["endpoints"]]
    rest = {name: raw[name] for name in ("project", "systems", "state", "error")}
    rest |= {name: raw.get(name, "") for name in ("home", "engine")}
    return StackState(ProcessIdentity(**raw["watchdog"]), endpoints=endpoints, servers=servers, **rest)


def _from_0_1(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The state as Headrace 0.1 wrote it, in today's terms: a stack that it started can still be stopped."""

    def identity(item: Mapping[str, Any]) -> dict[str, Any]:
        return {"pid": item["pid"], "started_at": item["started"]}

    servers = [{**item, "process": identity(item["identity"])} for item in raw["servers"]]
    renamed = {"watchdog": identity(raw["keeper"]), "servers": servers, "endpoints": raw["pages"], "error": raw["why"]}
    return {"project": "", **raw, **renamed}


def log_tail(path: Path, lines: int = 15) -> str:
    """The end of a log, indented for a message."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(f"  | {line}" for line in text.splitlines()[-lines:]) or "  | (empty)"
