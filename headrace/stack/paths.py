"""HOME: where a stack keeps its data, logs, secrets and state; one folder, removed with one `rm`.

Secrets are made once per home and never leave it; ports are kept so that a restart serves the same addresses.
"""

import base64
import json
import os
import random
import secrets
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT = REPOSITORY / ".headrace"
ADDRESS = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20_000, 32_000  # below the range from which outgoing connections take theirs


@dataclass(frozen=True)
class Home:
    """The paths of one stack."""

    root: Path
    repository: Path = REPOSITORY

    @property
    def stack(self) -> Path:
        """Data of the servers, a folder each."""
        return self.root / "stack"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """Who runs: written by the supervisor, read by every other command."""
        return self.root / "stack.json"

    @property
    def env(self) -> Path:
        """What a pipeline must know to reach the servers (KEY=value lines)."""
        return self.root / "stack.env"

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.stack / "lock"

    @property
    def origin(self) -> Path:
        """The bare repository that releases are pushed to."""
        return self.root / "origin.git"

    @property
    def workspace(self) -> Path:
        """The clone in which stages run."""
        return self.root / "workspace"

    @property
    def label_studio(self) -> Path:
        """Label Studio's environment, beside this one: its pins clash with Airflow's."""
        return Path(sys.prefix).parent / ".venv-label-studio"


@dataclass(frozen=True)
class Secrets:
    """Passwords and keys of one home."""

    s3_key: str
    s3_secret: str
    postgres: str
    label_studio: str
    label_studio_token: str
    airflow: str
    airflow_jwt: str
    airflow_session: str
    airflow_fernet: str
    pseudonym_key: str

    @classmethod
    def new(cls) -> "Secrets":
        """Fresh ones."""
        return cls(
            s3_key=f"headrace{secrets.token_hex(2)}",
            s3_secret=secrets.token_hex(10),
            postgres=secrets.token_hex(10),
            label_studio=secrets.token_hex(6),
            label_studio_token=secrets.token_hex(20),
            airflow=secrets.token_hex(6),
            airflow_jwt=secrets.token_hex(64),
            airflow_session=secrets.token_hex(32),
            pseudonym_key=secrets.token_hex(32),
            airflow_fernet=base64.urlsafe_b64encode(os.urandom(32)).decode(),
        )


@dataclass(frozen=True)
class Site:
    """A home together with its secrets and ports: all that a server needs to be described."""

    home: Home
    secrets: Secrets
    ports: Mapping[str, int]

    def url(self, name: str) -> str:
        """Address of a server that speaks HTTP."""
        return f"http://{ADDRESS}:{self.ports[name]}"

    def folder(self, name: str) -> Path:
        """Data folder of one server."""
        return self.home.stack / name


def open_site(home: Home, names: Iterable[str]) -> Site:
    """Load or make the secrets; keep each port that is still free, take another where it is not."""
    site = load_site(home)
    taken = set(site.ports.values())
    ports = dict(site.ports)
    for name in names:
        if name not in ports or not is_free(ports[name]):
            ports[name] = free_port(taken)
            taken.add(ports[name])
    write_private(home.stack / "ports.json", json.dumps(ports, indent=2))
    return Site(home, site.secrets, ports)


def load_site(home: Home) -> Site:
    """What the home remembers; secrets are made when there are none yet."""
    home.stack.mkdir(parents=True, exist_ok=True)
    home.logs.mkdir(parents=True, exist_ok=True)
    keys, ports = home.stack / "secrets.json", home.stack / "ports.json"
    remembered = read_json(keys)
    secret = Secrets(**{**vars(Secrets.new()), **remembered})  # a home of an earlier version lacks the newer ones
    if vars(secret) != remembered:
        write_private(keys, json.dumps(vars(secret), indent=2))
    return Site(home, secret, read_json(ports))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one when there is no file."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def free_port(taken: Iterable[int]) -> int:
    """A port that nobody listens on and that is not in `taken`."""
    avoid = set(taken)
    while True:
        port = random.randrange(FIRST_PORT, LAST_PORT)  # noqa: S311 -- spread, not secrecy
        if port not in avoid and is_free(port):
            return port


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
