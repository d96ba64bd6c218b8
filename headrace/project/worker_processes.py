"""Processes of a Dask worker, each with the code of one bundle: a Python process holds one version of a project.

The worker itself loads no project. It passes a request to an idle process of the bundle, or starts one, and returns
the answer; both are bytes to it, because the project's classes can be loaded in that process and in the driver alone.
They go over a socket pair of their own, so whatever a kernel prints reaches the worker's log and nothing else.
"""

import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from subprocess import DEVNULL, Popen, TimeoutExpired

from headrace.errors import HeadraceError
from headrace.project.code_bundle import CodeBundle
from headrace.workspace import VARIABLE

FOLDER = "headrace-code"
"""Folder of the bundles, in the worker's local directory, which Dask deletes."""

IDLE_S = 300.0
"""How long a process waits for its next request before it is ended; the last one's folder goes with it."""

EXIT_S = 10.0
"""How long to wait for the exit code of a process whose connection is closed."""


class ProcessDiedError(Exception):
    """The process that computed partitions ended before it answered. Dask tries again, perhaps on another worker."""


class ComputationFailedError(Exception):
    """Computing raised an error, which is the only argument, pickled."""


def compute_on_worker(code: CodeBundle, request: bytes, processes_per_thread: int) -> bytes:
    """Run a request in a process that has loaded `code`; the answer, pickled.

    Args:
        code: The project's code.
        request: What `WorkerTask.request` returns.
        processes_per_thread: Processes that the worker keeps at most, for each of its threads.

    Raises:
        ProcessDiedError: The process ended before it answered.
        ComputationFailedError: It raised an error.
    """
    from distributed import get_worker  # noqa: PLC0415  the processes, which import this module too, need no Dask

    worker = get_worker()
    pool = _process_pool(Path(worker.local_directory) / FOLDER)
    return pool.call(code, request, processes_per_thread * worker.state.nthreads)


class CodeProcess:
    """A process that runs the code in one folder, one request at a time."""

    # no failpoint: what the process writes is in failpoints of its own
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.idle_since = time.monotonic()
        self._connection, theirs = Pipe()
        # -P: the current folder is not on the import path, and with it whatever engine it holds.
        command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
        environment = {**os.environ, VARIABLE: str(folder)}
        with theirs:
            self._process = Popen(command, pass_fds=[theirs.fileno()], stdin=DEVNULL, env=environment)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def call(self, request: bytes) -> bytes:
        """Send a request and wait for the answer."""
        try:
            self._connection.send(request)
            succeeded, answer = self._connection.recv()
        except (EOFError, OSError):
            reason = self._describe_exit()
            self.end()
            raise ProcessDiedError(reason) from None
        if not succeeded:
            raise ComputationFailedError(answer)
        return bytes(answer)

    def end(self) -> None:
        """End it, whatever it does."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _describe_exit(self) -> str:
        with suppress(TimeoutExpired):
            self._process.wait(EXIT_S)
        code = self._process.poll()
        if code is None:
            return "closed its connection"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class ProcessPool:
    """The processes of one Dask worker.

    Args:
        folder: Where bundles are unpacked.
        idle_s: How long an idle process is kept.
    """

    def __init__(self, folder: Path, idle_s: float = IDLE_S) -> None:
        self._folder, self._idle_s = folder, idle_s
        self._lock = threading.Lock()
        self._busy: list[CodeProcess] = []
        self._idle: list[CodeProcess] = []  # the one that waits longest comes first
        self._timer: threading.Timer | None = None

    def call(self, code: CodeBundle, request: bytes, size: int) -> bytes:
        """Run the request in a process with that code.

        Before another process is started, idle ones of other bundles are ended, until there are fewer than `size`.
        """
        process = self._take(code, size)
        try:
            return process.call(request)
        finally:
            self._give_back(process)

    # no failpoint: deletes code that the next run sends again
    def end_idle(self, longer_than_s: float = 0) -> None:
        """End the processes that have been idle for so long, and delete the bundles that no other process uses."""
        with self._lock:
            for process in [one for one in self._idle if time.monotonic() - one.idle_since >= longer_than_s]:
                self._end(process)
            used = {one.folder for one in (*self._busy, *self._idle)}
            for folder in set(self._folder.glob("*")) - used:
                shutil.rmtree(folder, ignore_errors=True)
            self._timer = None
            self._set_timer()

    def _take(self, code: CodeBundle, size: int) -> CodeProcess:
        with self._lock:
            folder = code.unpack(self._folder)
            for dead in [one for one in self._idle if not one.is_alive]:
                self._end(dead)
            process = next((one for one in reversed(self._idle) if one.folder == folder), None)
            if process is None:
                while self._idle and len(self._idle) + len(self._busy) >= size:
                    self._end(self._idle[0])
                process = CodeProcess(folder)
            else:
                self._idle.remove(process)
            self._busy.append(process)
            return process

    def _give_back(self, process: CodeProcess) -> None:
        with self._lock:
            self._busy.remove(process)
            process.idle_since = time.monotonic()
            self._idle.append(process)
            if not process.is_alive:
                self._end(process)
            self._set_timer()

    def _end(self, process: CodeProcess) -> None:
        self._idle.remove(process)
        process.end()

    def _set_timer(self) -> None:
        if self._idle and self._timer is None:
            self._timer = threading.Timer(self._idle_s, self.end_idle, [self._idle_s])
            self._timer.daemon = True
            self._timer.start()


@cache
def _process_pool(folder: Path) -> ProcessPool:
    return ProcessPool(folder)


# In the process


def serve(connection: Connection) -> None:
    """Answer requests until the worker is gone."""
    requests: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    while True:
        connection.send(_answer(requests.get()))


# no failpoint: puts into a queue of this process
def _receive(connection: Connection, requests: "SimpleQueue[bytes]") -> None:
    """Receive requests in a thread: a worker that dies ends this process at once, not after the present request."""
    with suppress(EOFError, OSError):
        while True:
            requests.put(connection.recv())
    os._exit(0)


def _answer(request: bytes) -> tuple[bool, bytes]:
    """Whether the request succeeded, and its result or its error, pickled."""
    from headrace.project.worker_task import run_request  # noqa: PLC0415  the Dask worker loads no engine

    try:
        return True, pickle.dumps(run_request(request))
    except Exception as error:  # noqa: BLE001  every error is the driver's
        return False, _pickle_error(error)


def _pickle_error(error: Exception) -> bytes:
    """The error, with its stack trace unless its message says everything; as text if it cannot travel."""
    if not isinstance(error, HeadraceError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # noqa: S301  our own
    except Exception:  # noqa: BLE001  whatever a class of the project raises
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
    return pickled


def main() -> None:
    """Serve the socket that the command line names."""
    socket = int(sys.argv[1])
    os.set_inheritable(socket, False)  # a program that a kernel starts must not keep it open
    serve(Connection(socket))


if __name__ == "__main__":
    main()
