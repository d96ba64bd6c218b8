"""A task is the command one would type: a process of its own in the workspace, whose output is the task's log.

Own process, because worker processes started inside a task die (Airflow blocks its database there, and a spawned
child imports Airflow first), and because no DAG file shall pay for the libraries of a stage.
"""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, ClassVar

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException

STOP_S = 30
MOST_SHOWN = 30
PRIVATE_TO_AIRFLOW = ("AIRFLOW", "_AIRFLOW")


class Command(BaseOperator):
    """Run `command`; what it prints as JSON is the task's result, and goes with the events of its outlets.

    Args:
        command: As typed in the workspace; a template. With `--json` in it, its standard output is its facts.
        facts: A JSON file in the workspace that the command writes, if that holds the facts.
    """

    template_fields: Sequence[str] = ("command",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"command": "bash"}
    ui_color = "#e6f1f7"

    def __init__(self, *, command: str, facts: str | None = None, **settings: Any) -> None:  # noqa: ANN401  Airflow's own
        super().__init__(**settings)
        self.command = command
        self.facts = facts
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> Any:  # noqa: ANN401  any JSON
        """Run it to its end; its facts.

        Raises:
            AirflowException: It ended with another exit code than 0.
        """
        folder = workspace()
        self.log.info("%s$ %s", folder, self.command)
        printed = self._run(folder)
        found = shortened(self._facts(folder, printed))
        for outlet in self.outlets if isinstance(found, Mapping) else ():
            context["outlet_events"][outlet].extra = dict(found)
        return found

    def on_kill(self) -> None:
        """Stop the command and what it started: first ask, then insist."""
        if self._process and self._process.poll() is None:
            _signal(self._process, signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                _signal(self._process, signal.SIGKILL)

    def _run(self, folder: Path) -> str:
        with subprocess.Popen(
            shlex.split(self.command),
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            self._process = process
            try:
                printed = self._follow(process)
            finally:
                self.on_kill()
        if process.returncode:
            raise AirflowException(
                f"`{self.command}` ended with exit code {process.returncode}; its message stands above. "
                f"To run it by hand: cd {folder} && {self.command}"
            )
        return printed

    def _follow(self, process: subprocess.Popen[str]) -> str:
        """Log both outputs as they come; the standard one once more as a whole."""
        printed: list[str] = []
        asides = Thread(target=self._log, args=(process.stderr, []))
        asides.start()
        self._log(process.stdout, printed)
        asides.join()
        process.wait()
        return "\n".join(printed)

    def _log(self, stream: IO[str] | None, lines: list[str]) -> None:
        for line in stream or ():
            lines.append(line.rstrip("\n"))
            self.log.info("%s", lines[-1])

    def _facts(self, folder: Path, printed: str) -> Any:  # noqa: ANN401  any JSON
        if self.facts:
            return json.loads((folder / self.facts).read_text())
        return json.loads(printed) if "--json" in shlex.split(self.command) else None


def workspace() -> Path:
    """The git clone in which commands run."""
    return Path(os.environ.get("HEADRACE_WORKSPACE", "."))


def environment() -> dict[str, str]:
    """The task's environment without what is Airflow's own: its keys are no business of a stage."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE_TO_AIRFLOW)}


def shortened(value: Any, most: int = MOST_SHOWN) -> Any:  # noqa: ANN401  any JSON
    """The same with long lists and objects cut, so that facts about ten years of days fit an event.

    Args:
        value: Any JSON.
        most: Entries of a list or object that are kept; one more says how many there were.
    """
    if isinstance(value, Mapping):
        kept = {str(key): shortened(item, most) for key, item in list(value.items())[:most]}
        return kept if len(value) <= most else {**kept, "…": f"{len(value) - most:,} more"}
    if isinstance(value, list):
        kept_items = [shortened(item, most) for item in value[:most]]
        return kept_items if len(value) <= most else [*kept_items, f"… {len(value) - most:,} more"]
    return value


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
