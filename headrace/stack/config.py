"""Credentials and ports of a stack: created once per home and kept, so that a restart serves the same addresses."""

import base64
import json
import os
import random
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.stack.errors import DamagedJsonError
from headrace.stack.paths import StackPaths, read_json, write_private

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20_000, 32_000  # below the range from which outgoing connections take theirs


@dataclass(frozen=True)
class Credentials:
    """Passwords and keys of one stack."""

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
    def generate(cls) -> "Credentials":
        """New random ones."""
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
class StackConfig:
    """All that describes the servers of one stack: paths, credentials and ports."""

    paths: StackPaths
    credentials: Credentials
    ports: Mapping[str, int]

    def url(self, name: str) -> str:
        """URL of an HTTP server."""
        return f"http://{HOST}:{self.ports[name]}"

    def folder(self, name: str) -> Path:
        """Data folder of a server."""
        return self.paths.data / name


def load_config(paths: StackPaths) -> StackConfig:
    """What the home holds; credentials that it lacks are generated.

    Raises:
        DamagedJsonError: The file with the credentials is damaged.
    """
    paths.create()
    file = paths.data / "secrets.json"
    try:
        stored = read_json(file)
    except DamagedJsonError as error:
        raise DamagedJsonError(
            f"{error} It holds the passwords that the data of the servers was created with.\n"
            f"Next: restore the file from a backup; or remove {paths.data}, which starts with empty servers."
        ) from None
    # Another version of Headrace may have stored fewer or more.
    credentials = Credentials(**{name: stored.get(name, new) for name, new in vars(Credentials.generate()).items()})
    if vars(credentials) != stored:
        write_private(file, json.dumps(vars(credentials), indent=2))
    return StackConfig(paths, credentials, _read_ports(paths.data / "ports.json"))


def _read_ports(file: Path) -> dict[str, int]:
    """The stored ports; none if the file is damaged: other ports are as good."""
    try:
        return {name: port for name, port in read_json(file).items() if isinstance(port, int)}
    except DamagedJsonError:
        return {}


def allocate_ports(paths: StackPaths, names: Iterable[str]) -> StackConfig:
    """The configuration with a port for each name: the stored one if it is free, otherwise another."""
    config = load_config(paths)
    ports = dict(config.ports)
    for name in names:
        if name not in ports or not is_free(ports[name]):
            ports[name] = free_port(excluded=ports.values())
    write_private(paths.data / "ports.json", json.dumps(ports, indent=2))
    return StackConfig(paths, config.credentials, ports)


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(excluded: Iterable[int]) -> int:
    """A port that no process listens on and that is not in `excluded`."""
    taken = set(excluded)
    while True:
        port = random.randrange(FIRST_PORT, LAST_PORT)  # noqa: S311  spread, not secrecy
        if port not in taken and is_free(port):
            return port
