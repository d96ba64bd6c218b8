"""Starts the servers of a stack in the order of their dependencies, watches them, and stops them in reverse order."""

import asyncio
import contextlib
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.stack.config import StackConfig
from headrace.stack.errors import StartFailedError
from headrace.stack.paths import low_disk_note
from headrace.stack.process import ProcessIdentity, process_tree, terminate, tied_to_this_process
from headrace.stack.server import Server, System
from headrace.stack.state import NOTE, READY, STOPPED, STOPPING, Event, EventHandler, ServerState, StackState, log_tail

POLL_S = 0.2


class ProcessManager:
    """The servers of one stack, as children of this process."""

    def __init__(
        self,
        config: StackConfig,
        systems: Sequence[System],
        exports: Mapping[str, str],
        state: StackState,
        emit: EventHandler,
    ) -> None:
        self.paths, self.exports, self.state, self.emit = config.paths, exports, state, emit
        self.servers = {server.name: server for system in systems for server in system.servers}
        self.ready = {name: asyncio.Event() for name in self.servers}
        self.processes: dict[str, Process] = {}

    async def run(self) -> None:
        """Start everything, then watch it; ends only by raising, or when it is cancelled."""
        for name in self.servers:
            rotate_log(self.paths.log(name))
        self.state.write(self.paths)
        async with asyncio.TaskGroup() as group:
            for server in self.servers.values():
                group.create_task(self.start(server, group))
            for ready in self.ready.values():
                await ready.wait()
            self.state.state = READY
            self.state.write(self.paths)
            self.emit(Event(READY))

    async def start(self, server: Server, group: asyncio.TaskGroup) -> None:
        """Wait for its dependencies, prepare it, start it, wait until it is healthy, run its last step."""
        for name in server.depends_on:
            await self.ready[name].wait()
        started_at = time.monotonic()
        run_command = LoggedCommandRunner(self.paths.home, self.paths.log(server.name), server.name, self.emit)
        if server.prepare:
            self.emit(Event("preparing", server.name))
            await server.prepare(run_command)
        if server.command:
            self.emit(Event("starting", server.name))
            child = await self.spawn(server)
            group.create_task(self.watch(server, child))
            await self.wait_until_healthy(server)
        if server.post_start:
            self.emit(Event("warming up", server.name))
            await server.post_start(run_command)
        self.record_ready(server.name)
        self.ready[server.name].set()
        self.emit(Event(READY, server.name, seconds=time.monotonic() - started_at))

    async def spawn(self, server: Server) -> Process:
        """Start the process, in a session of its own and unable to outlive this one."""
        exports = self.exports if server.runs_stages else {}
        log_path = self.paths.log(server.name)
        with log_path.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *tied_to_this_process(server.command, server.user, server.stop_signal),
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                cwd=server.cwd or self.paths.home,
                env={**server.env, **exports},
                start_new_session=True,
            )
        self.processes[server.name] = child
        self.state.servers = [other for other in self.state.servers if other.name != server.name]
        self.state.servers.append(ServerState(server.name, ProcessIdentity.from_pid(child.pid), str(log_path)))
        self.state.write(self.paths)
        return child

    async def wait_until_healthy(self, server: Server) -> None:
        """Probe it until it is healthy, or its time is up."""
        started_at = time.time()
        try:
            async with asyncio.timeout(server.start_timeout_s):
                while server.probe and not await server.probe(started_at):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise self.start_error(server, f"is not healthy after {server.start_timeout_s:.0f} s") from None

    async def watch(self, server: Server, child: Process) -> None:
        """Wait for a process that should not end; restart it as often as it may be."""
        for _ in range(server.max_restarts):
            await child.wait()
            self.emit(Event("restarting", server.name, detail=describe_exit(child)))
            child = await self.spawn(server)
        await child.wait()
        raise self.start_error(server, describe_exit(child))

    def start_error(self, server: Server, problem: str) -> StartFailedError:
        """The error of a server that is needed and does not run."""
        log = self.paths.log(server.name)
        return StartFailedError(
            f"{server.name} {problem}; the other servers were stopped. The end of {log}:\n{log_tail(log)}"
            f"{low_disk_note(self.paths.home)}\n"
            f"Next: `headrace stack up --home {self.paths.home}`, once the cause is fixed."
        )

    def record_ready(self, name: str) -> None:
        """Write to the state file that a server is ready."""
        for server in self.state.servers:
            if server.name == name:
                server.state = READY
        self.state.write(self.paths)

    async def stop(self, error: str) -> None:
        """Stop everything, dependents first, and record why."""
        self.state.state, self.state.error = STOPPING, error
        self.write_state()
        remaining = dict(self.processes)
        while remaining:
            in_use = {name for dependent in remaining for name in self.dependencies(dependent)}
            unused = [name for name in remaining if name not in in_use]
            await asyncio.gather(*(self.stop_server(self.servers[name], remaining.pop(name)) for name in unused))
        self.state.state = STOPPED
        self.write_state()

    def write_state(self) -> None:
        """Write the state if the disk takes it: the servers are stopped all the same."""
        with contextlib.suppress(OSError):
            self.state.write(self.paths)

    def dependencies(self, name: str) -> set[str]:
        """Everything that a server depends on, directly or not."""
        direct = self.servers[name].depends_on
        return {*direct, *(indirect for other in direct for indirect in self.dependencies(other))}

    async def stop_server(self, server: Server, child: Process) -> None:
        """Send its stop signal, then kill what still runs of it."""
        root = ProcessIdentity.from_pid(child.pid)
        members = process_tree([root])
        self.emit(Event(STOPPING, server.name))
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(server.stop_signal)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(server.stop_timeout_s):
                await child.wait()
        await asyncio.to_thread(terminate, {*members, *process_tree([root])}, 0.0)
        self.emit(Event(STOPPED, server.name))


class LoggedCommandRunner:
    """Runs commands on behalf of one server; their output goes to that server's log."""

    def __init__(self, cwd: Path, log: Path, server: str, emit: EventHandler) -> None:
        self.cwd, self.log, self.server, self.emit = cwd, log, server, emit

    async def __call__(
        self, *command: str, env: Mapping[str, str], cwd: Path | None = None, user: str = "-", check: bool = True
    ) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            StartFailedError: It failed, and `check` is set.
        """
        with self.log.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *tied_to_this_process(command, user),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
                cwd=cwd or self.cwd,
                env=env,
            )
            try:
                output, _ = await child.communicate()
            finally:
                if child.returncode is None:
                    terminate(process_tree([ProcessIdentity.from_pid(child.pid)]), timeout_s=0)
            log.write(output)
        if child.returncode and check:
            raise StartFailedError(
                f"{self.server} could not be prepared: `{' '.join(command)}` {describe_exit(child)}. "
                f"The end of {self.log}:\n{log_tail(self.log)}{low_disk_note(self.cwd)}"
            )
        return "" if child.returncode else output.decode().strip()

    def note(self, text: str) -> None:
        """Show a line to the user."""
        self.emit(Event(NOTE, self.server, detail=text))


def describe_exit(child: Process) -> str:
    """How a process ended."""
    code = child.returncode or 0
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def rotate_log(log: Path) -> None:
    """Keep the log of the start before as `<name>.previous.log`."""
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
