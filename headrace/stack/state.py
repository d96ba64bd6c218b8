"""What the supervisor writes down and tells, and every other command reads: who runs, in what state, where to look."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headrace.stack.paths import Home, write_private
from headrace.stack.process import Identity
from headrace.stack.server import Page

READY = "ready"
EXIT_BUSY = 3
"""The supervisor's answer when another one holds the home."""


@dataclass(frozen=True)
class Event:
    """One step of one server, or (without a server) of the stack."""

    state: str
    server: str = ""
    detail: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """As it travels."""
        return asdict(self)


@dataclass
class ServerState:
    """A server that has been started."""

    name: str
    identity: Identity
    log: str
    state: str = "starting"


@dataclass
class State:
    """The whole stack; `keeper` is the process to tell when it shall stop."""

    keeper: Identity
    systems: list[str]
    pages: list[Page] = field(default_factory=list)
    servers: list[ServerState] = field(default_factory=list)
    state: str = "starting"
    why: str = ""

    def write(self, home: Home) -> None:
        """Pages carry passwords, so the file is its owner's alone."""
        write_private(home.state, json.dumps(asdict(self), indent=2))


def read_state(home: Home) -> State | None:
    """What was last written; nothing when no stack was ever started here."""
    if not home.state.exists():
        return None
    raw: Mapping[str, Any] = json.loads(home.state.read_text())
    return State(
        keeper=Identity(**raw["keeper"]),
        systems=raw["systems"],
        pages=[Page(**page) for page in raw["pages"]],
        servers=[
            ServerState(server["name"], Identity(**server["identity"]), server["log"], server["state"])
            for server in raw["servers"]
        ],
        state=raw["state"],
        why=raw["why"],
    )


def log_of(home: Home, name: str) -> Path:
    """The log of one process."""
    return home.logs / f"{name}.log"


def tail(path: Path, lines: int = 15) -> str:
    """The end of a log, indented under the message that shows it."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(f"  | {line}" for line in text.splitlines()[-lines:]) or "  | (empty)"
