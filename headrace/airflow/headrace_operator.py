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

from headrace.airflow.findings_question import RefusedStep, accept_command, ask
from headrace.errors import TRANSIENT_EXIT_CODE
from headrace.storage.git import is_transient_output as is_transient_git_output

STOP_TIMEOUT_S = 30
MAX_ENTRIES = 30
LAST_LINES = 200
AIRFLOW_VARIABLES = ("AIRFLOW", "_AIRFLOW")
SYNC_WORKSPACE = "git pull --ff-only --tags"
"""Has a workspace follow its origin. It fails where the workspace has commits that its origin has not, and changes
nothing then."""


@dataclass(frozen=True)
class FinishedCommand:
    """How a command ended.

    Attributes:
        exit_code: Its exit code; negative if a signal killed it, then the signal's number.
        stdout: Its standard output.
        stderr: The last lines of its standard error.
        error: The error of `headrace` that it printed last, as JSON; empty if it printed none.
    """

    exit_code: int
    stdout: str
    stderr: str
    error: Mapping[str, Any]


class FindingsFailError(AirflowFailException):
    """A guard refused the command.

    Attributes:
        refused: The error of the command, with its findings.
    """

    def __init__(self, message: str, refused: RefusedStep) -> None:
        super().__init__(message)
        self.refused = refused


class HeadraceOperator(BaseOperator):
    """Run a command. The JSON that it prints is the task's result, and goes with the events of its outlets.

    A failed command is retried only if it may succeed later: it exited with 75 (a transient error of Headrace), or a
    signal killed it, as when its machine goes down. Where a guard refused it, the task asks a person whether what was
    found is accepted, and runs the command again if it is. Any other exit code fails the task at once, and so does a
    command that takes longer than `execution_timeout`.

    Args:
        command: The command as typed in the workspace; a template. With `--json` in it, its standard output is the
            result.
        sync_workspace: Whether the workspace follows its origin first. It is the same task, since another one may be
            executed on another machine.
        is_transient_output: Says of a failed command of another tool, which knows no exit code 75, whether what it
            printed on standard error means that it may succeed later.
    """

    template_fields: Sequence[str] = ("before", "command")
    template_fields_renderers: ClassVar[dict[str, str]] = {"before": "bash", "command": "bash"}
    ui_color = "#e6f1f7"

    def __init__(
        self,
        *,
        command: str,
        sync_workspace: bool = False,
        is_transient_output: Callable[[str], bool] = lambda _stderr: False,
        **settings: Any,  # noqa: ANN401  Airflow's own
    ) -> None:
        super().__init__(**settings)
        self.command = command
        self.before = SYNC_WORKSPACE if sync_workspace else ""
        self.is_transient_output = is_transient_output
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> Any:  # noqa: ANN401  any JSON
        """Run the command to its end; its result.

        Raises:
            AirflowException: It failed and may succeed later: Airflow retries the task.
            AirflowFailException: It failed for good.
            TaskAwaitingInput: A guard refused it, and the task waits for a person.
        """
        try:
            return self._execute(context)
        except FindingsFailError as error:
            ask(context, error.refused, self.execute_answer.__name__)

    def execute_answer(self, context: Context, refused: RefusedStep, event: Mapping[str, Any]) -> Any:  # noqa: ANN401  any JSON
        """Record that a person accepted the findings, and run the command again; its result.

        Args:
            context: Airflow's.
            refused: The error of the command, with its findings.
            event: The answer, as Airflow gives it.

        Raises:
            AirflowException: There are other findings now, or the command may succeed later: Airflow retries the task,
                and asks again where it must.
            AirflowFailException: They were refused, nobody answered, or the command failed for good.
        """
        self._run(accept_command(self.command, refused, event), is_result=True)
        try:
            return self._execute(context)
        except FindingsFailError as error:  # Airflow keeps the text of a task's first question until its next try
            raise AirflowException(
                f"Other findings than those accepted, about which Airflow asks again. {error}"
            ) from None

    def _execute(self, context: Context) -> Any:  # noqa: ANN401  any JSON
        if self.before:
            self._run(self.before, is_transient_git_output)
        is_json = "--json" in shlex.split(self.command)
        stdout = self._run(self.command, self.is_transient_output, is_result=is_json)
        result = truncate(json.loads(stdout) if is_json else None)
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

    def _run(
        self,
        command: str,
        is_transient_output: Callable[[str], bool] = lambda _stderr: False,
        *,
        is_result: bool = False,
    ) -> str:
        """Run a command to its end; its standard output, which is logged unless it is the task's result."""
        folder = workspace_folder()
        self.log.info("%s$ %s", folder, command)
        finished = self._call(folder, command, is_result=is_result)
        code = finished.exit_code
        if not code:
            return finished.stdout
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        by_hand = f"Its message is above. {self._by_hand(folder)}"
        if code < 0 or code == TRANSIENT_EXIT_CODE or is_transient_output(finished.stderr):
            raise AirflowException(f"`{command}` {how}, which may pass: Airflow retries it. {by_hand}")
        message = f"`{command}` {how}. A retry would give the same answer. {by_hand}"
        if finished.error.get("findings"):
            raise FindingsFailError(message, finished.error)
        raise AirflowFailException(message)

    def _by_hand(self, folder: Path) -> str:
        typed = " && ".join(filter(None, (f"cd {folder}", self.before, self.command)))
        return f"To run it by hand: {typed}"

    def _call(self, folder: Path, command: str, *, is_result: bool) -> FinishedCommand:
        with subprocess.Popen(
            shlex.split(command),
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
                return self._follow(process, is_result=is_result)
            except AirflowTaskTimeout:
                raise AirflowFailException(
                    f"`{command}` did not end within {self.execution_timeout}. Find out what it waits for (the log"
                    f" above), then clear the task. {self._by_hand(folder)}"
                ) from None
            finally:
                self.on_kill()

    def _follow(self, process: subprocess.Popen[str], *, is_result: bool) -> FinishedCommand:
        """Log both outputs line by line as they come, but not the JSON that is the result: XCom has it."""
        stdout: list[str] = []
        stderr: deque[str] = deque(maxlen=LAST_LINES)
        errors: deque[Mapping[str, Any]] = deque(({},), maxlen=1)

        def follow_stderr() -> None:
            for line in _lines(process.stderr):
                level, text = parse_log_line(line)
                self.log.log(level, "%s", text)
                stderr.append(text)
                errors.extend(parse_error(line))

        follower = Thread(target=follow_stderr)
        follower.start()
        for line in _lines(process.stdout):
            if not is_result:
                self.log.info("%s", line)
            stdout.append(line)
        follower.join()
        return FinishedCommand(process.wait(), "\n".join(stdout), "\n".join(stderr), errors[0])


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
        "HEADRACE_SUMMARY": "1",  # the lines that a person would read on a terminal, since the result is JSON
        "LANGUAGE": "en",  # what other tools print is read here
        "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath))),
    }


def parse_log_line(line: str) -> tuple[int, str]:
    """Level and text of a line of standard error: a JSON line of `headrace` (a log record or an error), or plain."""
    match _parse_json(line):
        case {"error": {"message": str(message)}}:
            return logging.ERROR, message
        case {"level": str(level), "message": str(message), **rest}:
            trace = rest.get("exception")
            text = f"{message}\n{trace}" if trace else message
            return logging.getLevelNamesMapping().get(level, logging.INFO), text
    return logging.INFO, line


def parse_error(line: str) -> list[Mapping[str, Any]]:
    """The error of `headrace` that a line of standard error is; none if it is another line."""
    match _parse_json(line) if line.startswith('{"error":') else None:
        case {"error": {"message": str()} as error}:
            return [error]
    return []


def _parse_json(line: str) -> Any:  # noqa: ANN401  any JSON
    try:
        return json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None


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
