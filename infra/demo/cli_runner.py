"""Runs `headrace` commands as a person types them in the workspace."""

import json
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.stack.environment import base_environment, engine_path, find_program
from headrace.workspace import VARIABLE
from infra.demo.errors import DemoError


@dataclass(frozen=True)
class CliRunner:
    """A shell in the workspace of a running stack."""

    workspace: Path
    env: Mapping[str, str]

    @classmethod
    def create(cls, env: Mapping[str, str], workspace: Path) -> "CliRunner":
        """With the settings of the stack whose `stack.env` is given."""
        own = {VARIABLE: str(workspace), "DVC_NO_ANALYTICS": "true"}
        return cls(workspace, {**base_environment(), **engine_path(), **env, **own})

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run `headrace` with these arguments and `--json`; its result.

        Raises:
            DemoError: It failed; with its message.
        """
        result: dict[str, Any] = json.loads(self._output(*arguments, "--json"))
        return result

    def query(self, dataset: str, statement: str) -> list[dict[str, Any]]:
        """The rows of an SQL query over the tables of a dataset.

        Raises:
            DemoError: It failed; with its message.
        """
        rows: list[dict[str, Any]] = json.loads(self._output("sql", dataset, statement, "--format", "json"))
        return rows

    def _output(self, *arguments: str) -> str:
        command = [find_program("headrace"), *arguments]
        done = subprocess.run(command, cwd=self.workspace, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"`{shlex.join(command)}` failed in {self.workspace}:\n{done.stderr[-2000:]}")
        return done.stdout
