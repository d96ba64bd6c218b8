"""systems → running processes: each started when what it needs is ready, all stopped in the reverse order."""

import asyncio
import contextlib
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headrace.stack import launcher, process
from headrace.stack.errors import StartFailedError
from headrace.stack.paths import Site
from headrace.stack.server import Server, System
from headrace.stack.state import READY, Event, ServerState, State, log_of, tail

POLL_S = 0.2
Tell = Callable[[Event], None]


class Crew:
    """All servers of one stack, held by this process."""

    def __init__(
        self, site: Site, systems: Sequence[System], exports: Mapping[str, str], state: State, tell: Tell
    ) -> None:
        self.site, self.exports, self.state, self.tell = site, exports, state, tell
        self.servers = {server.name: server for system in systems for server in system.servers}
        self.ready = {name: asyncio.Event() for name in self.servers}
        self.processes: dict[str, Process] = {}

    async def run(self) -> None:
        """Start everything, then watch it; ends only by raising, or when it is cancelled."""
        for name in self.servers:
            keep_previous(log_of(self.site.home, name))
        self.state.write(self.site.home)
        async with asyncio.TaskGroup() as group:
            for server in self.servers.values():
                group.create_task(self.bring_up(server, group))
            for ready in self.ready.values():
                await ready.wait()
            self.state.state = READY
            self.state.write(self.site.home)
            self.tell(Event(READY))

    async def bring_up(self, server: Server, group: asyncio.TaskGroup) -> None:
        """Wait for what it needs, prepare, start, wait until it is healthy, follow up."""
        for need in server.needs:
            await self.ready[need].wait()
        began = time.monotonic()
        errand = Errand(self.site, server.name, self.tell)
        if server.prepare:
            self.tell(Event("preparing", server.name))
            await server.prepare(errand)
        if server.command:
            self.tell(Event("starting", server.name))
            child = await self.spawn(server)
            group.create_task(self.guard(server, child))
            await self.until_healthy(server)
        if server.follow_up:
            self.tell(Event("warming up", server.name))
            await server.follow_up(errand)
        self.note_state(server.name, READY)
        self.ready[server.name].set()
        self.tell(Event(READY, server.name, seconds=time.monotonic() - began))

    async def spawn(self, server: Server) -> Process:
        """Start the process in a session of its own, unable to outlive us."""
        shared = self.exports if server.pipeline else {}
        with log_of(self.site.home, server.name).open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *bound(server.command, server.account, server.stop),
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                cwd=server.cwd or self.site.home.root,
                env={**server.env, **shared},
                start_new_session=True,
            )
        self.processes[server.name] = child
        self.state.servers = [known for known in self.state.servers if known.name != server.name]
        log_path = str(log_of(self.site.home, server.name))
        self.state.servers.append(ServerState(server.name, process.Identity.of(child.pid), log_path))
        self.state.write(self.site.home)
        return child

    async def until_healthy(self, server: Server) -> None:
        """Ask until it answers, within its time limit."""
        started = time.time()
        try:
            async with asyncio.timeout(server.limit_s):
                while server.healthy and not await server.healthy(started):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise self.failed(server, f"is not healthy after {server.limit_s:.0f} s") from None

    async def guard(self, server: Server, child: Process) -> None:
        """Wait for the end of a process that should not end; replace it where that is allowed."""
        for _ in range(server.restarts):
            await child.wait()
            self.tell(Event("restarting", server.name, detail=ended(child)))
            child = await self.spawn(server)
        await child.wait()
        raise self.failed(server, ended(child))

    def failed(self, server: Server, what: str) -> StartFailedError:
        """The message of a server that is needed and not there."""
        log = log_of(self.site.home, server.name)
        return StartFailedError(
            f"{server.name} {what}; the other servers were stopped. The end of {log}:\n{tail(log)}\n"
            f"Next: `headrace stack up --home {self.site.home.root}` once the cause is removed."
        )

    def note_state(self, name: str, state: str) -> None:
        """Write down how far a server has come."""
        for known in self.state.servers:
            if known.name == name:
                known.state = state
        self.state.write(self.site.home)

    async def stop(self, why: str) -> None:
        """Stop everything, users before what they use, and write down why."""
        self.state.state, self.state.why = "stopping", why
        self.state.write(self.site.home)
        left = dict(self.processes)
        while left:
            used = {need for name in left for need in self.upstream(name)}
            wave = [name for name in left if name not in used]
            await asyncio.gather(*(self.halt(self.servers[name], left.pop(name)) for name in wave))
        self.state.state = "stopped"
        self.state.write(self.site.home)

    def upstream(self, name: str) -> set[str]:
        """Everything a server needs, directly or not."""
        needs = self.servers[name].needs
        return {*needs, *(far for need in needs for far in self.upstream(need))}

    async def halt(self, server: Server, child: Process) -> None:
        """Ask it to leave, then end it and all below it."""
        head = process.Identity.of(child.pid)
        members = process.family([head])
        self.tell(Event("stopping", server.name))
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(server.stop)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(server.grace_s):
                await child.wait()
        await asyncio.to_thread(process.end, {*members, *process.family([head])}, 0.0)
        self.tell(Event("stopped", server.name))


class Errand:
    """Runs a command to its end on behalf of one server, its words going to that server's log."""

    def __init__(self, site: Site, server: str, tell: Tell) -> None:
        self.log, self.server, self.tell, self.root = log_of(site.home, server), server, tell, site.home.root

    async def __call__(
        self, *command: str, env: Mapping[str, str], cwd: Path | None = None, account: str = "-", check: bool = True
    ) -> str:
        """Return what it printed."""
        with self.log.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *bound(command, account), stdin=DEVNULL, stdout=PIPE, stderr=log, cwd=cwd or self.root, env=env
            )
            try:
                output, _ = await child.communicate()
            finally:
                if child.returncode is None:
                    process.end([*process.family([process.Identity.of(child.pid)])], grace=0)
            log.write(output)
        if child.returncode and check:
            raise StartFailedError(
                f"{self.server} could not be prepared: `{' '.join(command)}` {ended(child)}. "
                f"The end of {self.log}:\n{tail(self.log)}"
            )
        return "" if child.returncode else output.decode().strip()

    def note(self, text: str) -> None:
        """Tell the person who waits."""
        self.tell(Event("note", self.server, detail=text))


def bound(command: Sequence[str], account: str, death: int = 15) -> tuple[str, ...]:
    """The same command, tied to this process's life."""
    return (sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), str(int(death)), account, *command)


def ended(child: Process) -> str:
    """How a process ended, in words."""
    code = child.returncode or 0
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def keep_previous(log: Path) -> None:
    """Begin a new log and keep the one before."""
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
