"""The door to the stack: `up`, `running`, `down`, `status`, for the command line, the demo and the tests."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.stack import process
from headrace.stack.errors import StackError, StartFailedError
from headrace.stack.paths import DEFAULT, REPOSITORY, Home, load_site
from headrace.stack.servers import chosen, describe
from headrace.stack.state import EXIT_BUSY, READY, Event, ServerState, State, log_of, read_state, tail

STOP_S = 45.0
START_S = 600.0
POLL_S = 0.2

Env = dict[str, str]
Watch = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Watch nothing."""


@dataclass(frozen=True)
class Status:
    """What runs in a home now, asked of the servers themselves."""

    home: Path
    state: str
    servers: tuple[tuple[ServerState, bool], ...] = ()
    whole: State | None = None

    @property
    def healthy(self) -> bool:
        """Whether the stack was started to its end and every server of it answers."""
        return self.state == READY and all(well for _, well in self.servers)


def up(home: Path = DEFAULT, only: Iterable[str] = (), watch: Watch = silent, repository: Path = REPOSITORY) -> Status:
    """Start what is not running, or find it; the servers live on when this returns, and only then."""
    place, names = locate(home, repository), chosen(only)
    with started(place, names, watch) as owner:
        if owner is not None:
            owner.let_go()
    return status(place.root)


@contextmanager
def running(
    home: Path = DEFAULT, only: Iterable[str] = (), watch: Watch = silent, repository: Path = REPOSITORY
) -> Iterator[Env]:
    """The stack for as long as the block lasts and this process lives; one that ran before is used and left running."""
    place, names = locate(home, repository), chosen(only)
    with started(place, names, watch):
        yield read_env(place)


def down(home: Path = DEFAULT, watch: Watch = silent) -> bool:
    """Stop everything of this home and make sure; False when nothing ran."""
    place = locate(home)
    state = read_state(place)
    if state is None:
        return False
    heads = [state.keeper, *(server.identity for server in state.servers)]
    members = process.family(heads)
    if not members and not held(place):
        return False
    watch(Event("stopping"))
    if keeper := state.keeper.process():
        process.send([keeper], signal.SIGTERM)
        process.wait([keeper], STOP_S)
    if left := process.end([*members, *process.family(heads)], grace=2):
        raise StackError(
            f"these processes do not end, not even by SIGKILL: {', '.join(str(one.pid) for one in left)}.\n"
            f"Next: look at them with `ps`, then `headrace stack down --home {place.root}` again."
        )
    return True


def status(home: Path = DEFAULT) -> Status:
    """Ask every server; a number in a file proves nothing."""
    place = locate(home)
    state = read_state(place)
    if state is None:
        return Status(place.root, "never started")
    if not held(place):
        return Status(place.root, "stopped", (), state)
    return Status(place.root, state.state, asyncio.run(ask(place, state)), state)


def wait_for_end(home: Path) -> None:
    """Wait until the stack of this home ends; raise with the reason when nobody told it to."""
    place = locate(home)
    while held(place):
        time.sleep(POLL_S)
    if (state := read_state(place)) and state.why:
        raise StackError(state.why)


async def ask(place: Home, state: State) -> tuple[tuple[ServerState, bool], ...]:
    """Each server with its health: alive, the same process, and it answers."""
    systems = describe(load_site(place), state.systems)
    probes = {server.name: server.healthy for system in systems for server in system.servers}

    async def well(known: ServerState) -> bool:
        probe = probes.get(known.name)
        return known.identity.alive() and (probe is None or await probe(known.identity.started))

    return tuple(zip(state.servers, await asyncio.gather(*map(well, state.servers)), strict=True))


def locate(home: Path, repository: Path = REPOSITORY) -> Home:
    """The home at this path."""
    return Home(home.expanduser().resolve(), repository.resolve())


def read_env(place: Home) -> Env:
    """`stack.env` as a mapping."""
    if not place.env.exists():
        raise StackError(f"no stack was started in {place.root}: expected {place.env}.\nNext: `headrace stack up`.")
    return dict(line.split("=", 1) for line in place.env.read_text().splitlines() if "=" in line)


def held(place: Home) -> bool:
    """Whether a supervisor lives: it holds the lock for as long as it does."""
    if not place.lock.exists():
        return False
    with place.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def started(place: Home, names: tuple[str, ...], watch: Watch) -> Iterator["Owner | None"]:
    """An owner of a stack that has just come up, or nobody when it was there before."""
    owner = None if held(place) else begin(place, names)
    try:
        if owner is None or not owner.wait_until_ready(watch):
            join(place, names)
        yield owner
    finally:
        if owner is not None:
            owner.close(watch)


def begin(place: Home, names: tuple[str, ...]) -> "Owner":
    """A new supervisor, once nothing of an earlier one is left."""
    if state := read_state(place):
        process.end(process.family(server.identity for server in state.servers), grace=2)
    return Owner(place, names)


def join(place: Home, names: tuple[str, ...]) -> None:
    """Wait until the stack that somebody else started is up, and make sure that it is what was asked for."""
    until = time.monotonic() + START_S
    while not (found := status(place.root)).healthy:
        state = found.whole
        sick = state is not None and state.keeper.alive() and state.state == READY
        if sick or not held(place) or time.monotonic() > until:
            raise StackError(not_well(found))
        time.sleep(POLL_S)
    running = found.whole.systems if found.whole else []
    if missing := [name for name in names if name not in running]:
        raise StackError(
            f"the stack in {place.root} runs without {', '.join(missing)} (it runs {', '.join(running)}).\n"
            f"Next: `headrace stack down --home {place.root}`, then start it again."
        )


def not_well(found: Status) -> str:
    """What to say about a stack that runs and does not answer."""
    sick = [known for known, well in found.servers if not well]
    where = "\n".join(
        f"{known.name} does not answer; the end of {known.log}:\n{tail(Path(known.log))}" for known in sick
    )
    return (
        f"the stack in {found.home} is {found.state}, and not healthy.\n{where}\n"
        f"Next: `headrace stack down --home {found.home}`, then `headrace stack up --home {found.home}`."
    )


class Owner:
    """The supervisor, seen from the process that started it: it stops when this end of the lifeline closes."""

    def __init__(self, place: Home, names: Iterable[str]) -> None:
        place.logs.mkdir(parents=True, exist_ok=True)
        self.log = log_of(place, "supervisor")
        self.kept = False
        code = Path(__file__).resolve().parents[2]
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        with self.log.open("ab") as log:
            self.supervisor = subprocess.Popen(
                [
                    sys.executable, "-m", "headrace.stack.supervisor", "--home", str(place.root),
                    "--repository", str(place.repository), *names,
                ],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=place.root, start_new_session=True,
                env=env | {"PYTHONPATH": str(code)},
            )  # fmt: skip

    def wait_until_ready(self, watch: Watch) -> bool:
        """Pass on what it tells; False when another supervisor was a moment quicker."""
        for event in self.events():
            if event.state == "failed" and not event.server:
                raise StartFailedError(event.detail)
            watch(event)
            if event.state == READY and not event.server:
                return True
        if self.supervisor.wait(STOP_S) == EXIT_BUSY:
            return False
        raise StartFailedError(
            f"the supervisor of the stack ended with exit code {self.supervisor.returncode}. The end of {self.log}:\n"
            f"{tail(self.log)}\nNext: `headrace stack up` again."
        )

    def events(self) -> Iterator[Event]:
        """What it tells, one event a line."""
        for line in self.supervisor.stdout or ():
            yield Event(**json.loads(line))

    def let_go(self) -> None:
        """Leave it running when this process ends."""
        if self.supervisor.stdin:
            self.supervisor.stdin.write(b"stay\n")
            self.supervisor.stdin.flush()
        self.kept = True

    def close(self, watch: Watch) -> None:
        """Close the lifeline, and unless it was told to stay, wait until everything has gone."""
        for pipe in (self.supervisor.stdin, self.supervisor.stdout if self.kept else None):
            if pipe:
                pipe.close()
        if self.kept:
            self.supervisor.returncode = 0  # it is not ours to wait for any more
            return
        for event in self.events():
            watch(event)
        try:
            self.supervisor.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.supervisor.kill()  # the kernel tells those below
            self.supervisor.wait()
        if self.supervisor.stdout:
            self.supervisor.stdout.close()
