"""Starts, finds and stops a stack, for the command line, the demo and the tests."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from headrace.stack.config import load_config
from headrace.stack.environment import engine_path, engine_version
from headrace.stack.errors import StackError, StartFailedError
from headrace.stack.label_studio_environment import InstallState, label_studio_environment
from headrace.stack.paths import StackPaths, disk_message, stack_paths
from headrace.stack.process import process_tree, send_signal, terminate, wait_for_exit
from headrace.stack.served_clone import ServedClone, served_clone
from headrace.stack.servers import build_systems, label_studio, port_names, select_systems, workspace
from headrace.stack.state import (
    EXIT_ALREADY_RUNNING,
    FAILED,
    INSTALLING,
    NOTE,
    READY,
    STOPPED,
    STOPPING,
    UNREADABLE,
    Event,
    EventHandler,
    ServerState,
    StackState,
    log_tail,
    read_state,
)
from headrace.stack.supervisor import DETACH
from headrace.storage.git import GitError

STOP_TIMEOUT_S = 45.0
START_TIMEOUT_S = 600.0
FOLLOW_TIMEOUT_S = 10.0
POLL_S = 0.2

Env = dict[str, str]


def ignore_events(_event: Event) -> None:
    """Handle no event."""


@dataclass(frozen=True)
class StackStatus:
    """What runs in a home now, according to the servers themselves.

    Attributes:
        paths: Where the stack is, and the project that it serves.
        state: `never started`, or the last state that the supervisor wrote.
        servers: Each server and whether it is healthy; empty if the stack does not run.
        record: What the supervisor wrote.
        was_running: The stack ran before `up` was called.
        served: The clone and the commit that runs work on; None if the stack has no workspace.
    """

    paths: StackPaths
    state: str
    servers: tuple[tuple[ServerState, bool], ...] = ()
    record: StackState | None = None
    was_running: bool = False
    served: ServedClone | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether the stack is started completely and every server of it is healthy."""
        return self.state == READY and all(healthy for _, healthy in self.servers)

    @property
    def project(self) -> str:
        """Folder of the project that the stack serves; empty if none."""
        return self.record.project if self.record else str(self.paths.project or "")


def up(
    home: Path | None = None,
    only: Iterable[str] = (),
    on_event: EventHandler = ignore_events,
    project: Path | None = None,
) -> StackStatus:
    """Start a stack that stays when this process ends, or find the one that runs, and have it follow what changed.

    A stack that runs follows the commits of its clone by itself. It is started again if the engine has changed since.

    Args:
        home: Folder of the stack, by default `.headrace` of the project.
        only: Names of systems; all by default. What they depend on is added.
        on_event: Called with the progress of each server.
        project: The project to serve, by default that of the current folder.

    Raises:
        StackError: It cannot be started, or the one that runs lacks a system or serves another project.
    """
    paths, names = stack_paths(home, project), select_systems(only)
    names = _stop_outdated(paths, names, on_event)
    with _started(paths, names, on_event) as supervisor:
        if supervisor is not None:
            supervisor.detach()
    if supervisor is None:
        _wait_until_served(paths, on_event)
    return replace(status(paths.home), was_running=supervisor is None)


@contextmanager
def running(
    home: Path | None = None,
    only: Iterable[str] = (),
    on_event: EventHandler = ignore_events,
    project: Path | None = None,
) -> Iterator[Env]:
    """A stack for as long as the block lasts and this process lives; one that ran before stays.

    Arguments and errors are those of `up`. Yields the content of `stack.env`.
    """
    paths, names = stack_paths(home, project), select_systems(only)
    with _started(paths, names, on_event):
        yield read_env(paths)


def down(home: Path | None = None, on_event: EventHandler = ignore_events) -> bool:
    """Stop every process of the stack; False if nothing ran.

    Raises:
        StackError: A process survives SIGKILL.
    """
    paths = stack_paths(home)
    state = read_own_state(paths)
    if state is None:
        return False
    roots = [state.watchdog, *(server.process for server in state.servers)]
    members = process_tree(roots)
    if not members and not is_locked(paths):
        return False
    on_event(Event(STOPPING))
    if watchdog := state.watchdog.find_process():
        send_signal([watchdog], signal.SIGTERM)
        wait_for_exit([watchdog], STOP_TIMEOUT_S)
    if survivors := terminate([*members, *process_tree(roots)], timeout_s=2):
        raise StackError(
            f"These processes do not end, even by SIGKILL: {', '.join(str(process.pid) for process in survivors)}.\n"
            f"Next: look at them with `ps`, then run `headrace stack down --home {paths.home}` again."
        )
    return True


def status(home: Path | None = None) -> StackStatus:
    """Probe every server of the stack: a process number in a file proves nothing."""
    paths = stack_paths(home)
    record = read_own_state(paths)
    if record is None:
        return StackStatus(paths, "never started")
    if not is_locked(paths):
        return StackStatus(paths, STOPPED, (), record)
    served = _read_served(paths, record)
    return StackStatus(paths, record.state, asyncio.run(_probe_servers(paths, record)), record, served=served)


def wait_until_stopped(home: Path | None = None) -> None:
    """Wait until the stack stops.

    Raises:
        StackError: It stopped by itself; with the reason.
    """
    paths = stack_paths(home)
    while is_locked(paths):
        time.sleep(POLL_S)
    if (state := read_state(paths)) and state.error:
        raise StackError(state.error)


def read_env(paths: StackPaths) -> Env:
    """The content of `stack.env`.

    Raises:
        StackError: No stack was ever started there.
    """
    if not paths.env.exists():
        raise StackError(f"No stack was started in {paths.home}: expected {paths.env}.\nNext: `headrace stack up`.")
    return dict(line.split("=", 1) for line in paths.env.read_text().splitlines() if "=" in line)


def read_running_env(home: Path | None, required: Iterable[str]) -> tuple[Path, Env]:
    """The project that a healthy stack serves, and the content of its `stack.env`.

    Raises:
        StackError: It does not run, is not healthy, lacks one of the systems, or serves no project.
    """
    found = status(home)
    option = f" --home {found.paths.home}" if home else ""
    if not found.is_healthy:
        raise StackError(
            f"The stack in {found.paths.home} is {found.state}, and not healthy: expected it to run.\n"
            f"Next: `headrace stack up{option}`."
        )
    systems = found.record.systems if found.record else []
    if missing := [name for name in required if name not in systems]:
        raise StackError(
            f"The stack in {found.paths.home} runs without {', '.join(missing)}.\n"
            f"Next: `headrace stack down{option}`, then `headrace stack up{option}`."
        )
    if not found.project:
        raise StackError(f"The stack in {found.paths.home} serves no project.\nNext: start one in a project.")
    return Path(found.project), read_env(found.paths)


def read_own_state(paths: StackPaths) -> StackState | None:
    """The state, unless it was copied here with the folder of another stack, whose processes are none of ours."""
    state = read_state(paths)
    is_foreign = state is not None and state.home not in ("", str(paths.home))
    return None if is_foreign and not is_locked(paths) else state


def is_locked(paths: StackPaths) -> bool:
    """Whether a supervisor lives: it holds the lock for as long as it does."""
    if not paths.lock.exists():
        return False
    with paths.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _read_served(paths: StackPaths, record: StackState) -> ServedClone | None:
    if workspace.NAME not in record.systems or not record.project:
        return None
    with contextlib.suppress(GitError, OSError):  # the clone may be gone
        return served_clone(paths, Path(record.project))
    return None


def _stop_outdated(paths: StackPaths, names: tuple[str, ...], on_event: EventHandler) -> tuple[str, ...]:
    """Stop a stack whose servers have loaded another engine than this one; the systems to start then."""
    record = read_own_state(paths) if is_locked(paths) else None
    if record is None or record.state != READY or record.engine == engine_version():
        return names
    if paths.project and record.project not in ("", str(paths.project)):
        return names  # refused in what follows
    before, now = record.engine or "an earlier version", engine_version()
    on_event(
        Event(NOTE, detail=f"the engine has changed since the stack was started ({before}; now {now}): restarting it")
    )
    down(paths.home, on_event)
    return select_systems({*names, *record.systems})


def _wait_until_served(paths: StackPaths, on_event: EventHandler) -> None:
    """Wait until a stack that runs has followed the last commit of its clone, or tell that it has not."""
    record = read_own_state(paths)
    deadline = time.monotonic() + FOLLOW_TIMEOUT_S
    while record and (served := _read_served(paths, record)):
        if served.is_newest:
            return
        if time.monotonic() > deadline:
            log = paths.log(workspace.NAME)
            on_event(Event(NOTE, detail=f"the last commit is not served yet; the end of {log}:\n{log_tail(log, 3)}"))
            return
        time.sleep(POLL_S)


async def _probe_servers(paths: StackPaths, record: StackState) -> tuple[tuple[ServerState, bool], ...]:
    """Each server, and whether the very process that was started runs and answers its probe."""
    served = StackPaths(paths.home, Path(record.project) if record.project else paths.project)
    config = load_config(served)
    if not set(port_names(record.systems)) <= config.ports.keys():  # the file with them was lost
        return tuple((server, False) for server in record.servers)
    systems = build_systems(config, record.systems)
    probes = {server.name: server.probe for system in systems for server in system.servers}

    async def is_healthy(server: ServerState) -> bool:
        probe = probes.get(server.name)
        return server.process.is_running() and (probe is None or await probe(server.process.started_at))

    return tuple(zip(record.servers, await asyncio.gather(*map(is_healthy, record.servers)), strict=True))


@contextmanager
def _started(paths: StackPaths, names: tuple[str, ...], on_event: EventHandler) -> Iterator["SupervisorHandle | None"]:
    """The supervisor of a stack that has just come up; None if the stack ran before."""
    supervisor = None if is_locked(paths) else _start_supervisor(paths, names, on_event)
    try:
        if supervisor is not None and not supervisor.wait_until_ready(on_event):
            supervisor.close(on_event)
            supervisor = None
        if supervisor is None:
            _wait_for_running_stack(paths, names)
        yield supervisor
    finally:
        if supervisor is not None:
            supervisor.close(on_event)


def _start_supervisor(paths: StackPaths, names: tuple[str, ...], on_event: EventHandler) -> "SupervisorHandle":
    """A new supervisor, once nothing of an earlier one is left and Label Studio is installed."""
    if state := read_own_state(paths):
        terminate(process_tree(server.process for server in state.servers), timeout_s=2)
    if label_studio.NAME in names:
        _ensure_label_studio(on_event)
    try:
        return SupervisorHandle(paths, names)
    except OSError as error:
        raise StartFailedError(disk_message(paths.home, error)) from None


def _ensure_label_studio(on_event: EventHandler) -> None:
    installed = label_studio_environment()
    state = installed.check()
    if state is InstallState.MISSING:
        installed.install(lambda step: on_event(Event(INSTALLING, label_studio.NAME, detail=step)))
    elif state is InstallState.OUTDATED:
        advice = f"{installed.folder} is of another version; `headrace stack install` brings Label Studio up to date"
        on_event(Event(NOTE, label_studio.NAME, detail=advice))


def _wait_for_running_stack(paths: StackPaths, names: tuple[str, ...]) -> None:
    """Wait until a stack that another process started is healthy, and check that it is the one asked for."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (found := status(paths.home)).is_healthy:
        record = found.record
        is_broken = record is not None and record.watchdog.is_running() and record.state in (READY, UNREADABLE)
        if is_broken or not is_locked(paths) or time.monotonic() > deadline:
            raise StackError(_unhealthy_message(found))
        time.sleep(POLL_S)
    systems = found.record.systems if found.record else []
    next_step = f"Next: `headrace stack down --home {paths.home}`, then start it again."
    if missing := [name for name in names if name not in systems]:
        raise StackError(
            f"The stack in {paths.home} runs without {', '.join(missing)} (it runs {', '.join(systems)}).\n{next_step}"
        )
    if workspace.NAME in names and paths.project and Path(found.project) != paths.project:
        raise StackError(
            f"The stack in {paths.home} serves {found.project}: expected the project {paths.project}.\n{next_step}"
        )


def _unhealthy_message(found: StackStatus) -> str:
    home = found.paths.home
    logs = "\n".join(
        f"{server.name} does not answer; the end of {server.log}:\n{log_tail(Path(server.log))}"
        for server, healthy in found.servers
        if not healthy
    )
    cause = f"{found.record.error}\n" if found.record and found.record.error else ""
    return (
        f"The stack in {home} is {found.state}, and not healthy.\n{cause}{logs}\n"
        f"Next: `headrace stack down --home {home}`, then `headrace stack up --home {home}`."
    )


class SupervisorHandle:
    """A supervisor, as the process that started it sees it: it stops when this process ends, unless detached."""

    def __init__(self, paths: StackPaths, names: Iterable[str]) -> None:
        paths.create()
        self.log = paths.log("supervisor")
        self.is_detached = False
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        project = ("--project", str(paths.project)) if paths.project else ()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "headrace.stack.supervisor", "--home", str(paths.home), *project, *names),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=paths.home,
                start_new_session=True,
                env=inherited | engine_path(),
            )

    def wait_until_ready(self, on_event: EventHandler) -> bool:
        """Pass its events on until all servers are ready; False if another supervisor was faster.

        Raises:
            StartFailedError: A server failed, or the supervisor itself.
        """
        for event in self.events():
            if event.state == FAILED and not event.server:
                raise StartFailedError(event.detail)
            on_event(event)
            if event.state == READY and not event.server:
                return True
        if self.process.wait(STOP_TIMEOUT_S) == EXIT_ALREADY_RUNNING:
            return False
        raise StartFailedError(
            f"The supervisor of the stack ended with exit code {self.process.returncode}. The end of {self.log}:\n"
            f"{log_tail(self.log)}\nNext: `headrace stack up` again."
        )

    def events(self) -> Iterator[Event]:
        """Its events, as they come."""
        for line in self.process.stdout or ():
            yield Event(**json.loads(line))

    def detach(self) -> None:
        """Let it run when this process ends."""
        if self.process.stdin:
            try:
                self.process.stdin.write(DETACH + b"\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                raise StartFailedError(
                    "The stack stopped just after it had started. `headrace stack status` says why."
                ) from None
        self.is_detached = True

    def close(self, on_event: EventHandler) -> None:
        """Close its standard input; unless it is detached, wait until all servers have ended."""
        for pipe in (self.process.stdin, self.process.stdout if self.is_detached else None):
            if pipe:
                with contextlib.suppress(BrokenPipeError):  # the supervisor has ended
                    pipe.close()
        if self.is_detached:
            self.process.returncode = 0  # no longer a child to wait for
            return
        for event in self.events():
            on_event(event)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()  # the kernel signals its children
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
