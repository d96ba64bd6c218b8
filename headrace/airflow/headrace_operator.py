"""A task runs the command that one would type, as a process in the workspace; its output is the task's log.

It is a process of its own because worker processes started inside a task die (Airflow blocks its database there, and a
spawned child imports Airflow first), and because no DAG file may pay for the libraries of a stage.
"""

import json
import logging
import os
import shlex
import signal
import subprocess
import sysconfig
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any, ClassVar

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

from headrace.errors import TRANSIENT_EXIT_CODE

STOP_TIMEOUT_S = 30
MAX_ENTRIES = 30
LAST_LINES = 200
AIRFLOW_VARIABLES = ("AIRFLOW", "_AIRFLOW")


@dataclass(frozen=True)
class FinishedCommand:
    """How a command ended.

    Attributes:
        exit_code: Its exit code; negative if a signal killed it, then the signal's number.
        stdout: Its standard output.
        stderr: The last lines of its standard error.
    """

    exit_code: int
    stdout: str
    stderr: str


class HeadraceOperator(BaseOperator):
    """Run a command. The JSON that it prints is the task's result, and goes with the events of its outlets.

    A failed command is retried only if it may succeed later: it exited with 75 (a transient error of Headrace), or a
    signal killed it, as when its machine goes down. Any other exit code fails the task at once, and so does a command
    that takes longer than `execution_timeout`.

    Args:
        command: The command as typed in the workspace; a template. With `--json` in it, its standard output is the
            result.
        result_file: A JSON file in the workspace that the command writes, if that holds the result.
        is_transient_output: Says of a failed command of another tool, which knows no exit code 75, whether what it
            printed on standard error means that it may succeed later.
    """

    template_fields: Sequence[str] = ("command",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"command": "bash"}
    ui_color = "#e6f1f7"

    def __init__(
        self,
        *,
        command: str,
        result_file: str | None = None,
        is_transient_output: Callable[[str], bool] = lambda _stderr: False,
        **settings: Any,  # noqa: ANN401  Airflow's own
    ) -> None:
        super().__init__(**settings)
        self.command = command
        self.result_file = result_file
        self.is_transient_output = is_transient_output
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> Any:  # noqa: ANN401  any JSON
        """Run the command to its end; its result.

        Raises:
            AirflowException: It failed and may succeed later: Airflow retries the task.
            AirflowFailException: It failed for good.
        """
        folder = workspace_folder()
        self.log.info("%s$ %s", folder, self.command)
        finished = self._run(folder)
        if finished.exit_code:
            raise self._error(folder, finished)
        result = truncate(self._result(folder, finished.stdout))
        for outlet in self.outlets if isinstance(result, Mapping) else ():
            context["outlet_events"][outlet].extra = dict(result)
        return result

    def on_kill(self) -> None:
        """Stop the command and what it started: by SIGTERM, and by SIGKILL if that is not heeded."""
        if self._process and self._process.poll() is None:
            _kill(self._process, signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _kill(self._process, signal.SIGKILL)

    def _run(self, folder: Path) -> FinishedCommand:
        with subprocess.Popen(
            shlex.split(self.command),
            cwd=folder,
            env=command_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            self._process = process
            try:
                return self._follow(process)
            except AirflowTaskTimeout:
                raise AirflowFailException(
                    f"`{self.command}` did not end within {self.execution_timeout}. Find out what it waits for (the log"
                    f" above), then clear the task, or run it by hand: cd {folder} && {self.command}"
                ) from None
            finally:
                self.on_kill()

    def _follow(self, process: subprocess.Popen[str]) -> FinishedCommand:
        """Log both outputs line by line as they come."""
        stdout: list[str] = []
        stderr: deque[str] = deque(maxlen=LAST_LINES)

        def follow_stderr() -> None:
            for line in _lines(process.stderr):
                level, text = parse_log_line(line)
                self.log.log(level, "%s", text)
                stderr.append(text)

        follower = Thread(target=follow_stderr)
        follower.start()
        for line in _lines(process.stdout):
            self.log.info("%s", line)
            stdout.append(line)
        follower.join()
        return FinishedCommand(process.wait(), "\n".join(stdout), "\n".join(stderr))

    def _error(self, folder: Path, finished: FinishedCommand) -> AirflowException:
        """The error that makes Airflow retry the task, or fail it at once."""
        code = finished.exit_code
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        by_hand = f"Its message is above. To run it by hand: cd {folder} && {self.command}"
        if code < 0 or code == TRANSIENT_EXIT_CODE or self.is_transient_output(finished.stderr):
            return AirflowException(f"`{self.command}` {how}, which may pass: Airflow retries it. {by_hand}")
        return AirflowFailException(f"`{self.command}` {how}. A retry would give the same answer. {by_hand}")

    def _result(self, folder: Path, stdout: str) -> Any:  # noqa: ANN401  any JSON
        if self.result_file:
            return json.loads((folder / self.result_file).read_text())
        return json.loads(stdout) if "--json" in shlex.split(self.command) else None


def workspace_folder() -> Path:
    """The git clone in which commands run: HEADRACE_WORKSPACE, or the current folder."""
    return Path(os.environ.get("HEADRACE_WORKSPACE", "")).absolute()


def command_environment(folder: Path) -> dict[str, str]:
    """The environment of a command: the task's, without Airflow's own variables, which hold its credentials.

    `headrace` is the one that this process imports. The log comes as JSON lines, so that levels reach Airflow's log.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(AIRFLOW_VARIABLES)}
    return kept | {
        "HEADRACE_WORKSPACE": str(folder),
        "HEADRACE_LOG_FORMAT": "json",
        "LANGUAGE": "en",  # what other tools print is read here
        "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath))),
    }


def parse_log_line(line: str) -> tuple[int, str]:
    """Level and text of a line of standard error: a JSON line of `headrace` (a log record or an error), or plain."""
    try:
        found = json.loads(line) if line.startswith("{") else None
    except ValueError:
        found = None
    match found:
        case {"error": {"message": str(message)}}:
            return logging.ERROR, message
        case {"level": str(level), "message": str(message), **rest}:
            trace = rest.get("exception")
            text = f"{message}\n{trace}" if trace else message
            return logging.getLevelNamesMapping().get(level, logging.INFO), text
    return logging.INFO, line


def truncate(value: Any, most: int = MAX_ENTRIES) -> Any:  # noqa: ANN401  any JSON
    """The same JSON with long lists and objects cut, so that a result about ten years of days fits an event.

    Args:
        value: Any JSON.
        most: Entries of a list or object that are kept; one more says how many were cut.
    """
    if isinstance(value, Mapping):
        kept = {str(key): truncate(item, most) for key, item in list(value.items())[:most]}
        return kept if len(value) <= most else {**kept, "…": f"{len(value) - most:,} more"}
    if isinstance(value, list):
        kept_items = [truncate(item, most) for item in value[:most]]
        return kept_items if len(value) <= most else [*kept_items, f"… {len(value) - most:,} more"]
    return value


def _lines(stream: IO[str] | None) -> Iterator[str]:
    return (line.rstrip("\n") for line in stream or ())


def _kill(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
