"""Commands as a person would type them in the workspace."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.stack import environment
from infra.demo.errors import DemoError


@dataclass(frozen=True)
class Typed:
    """A shell in the workspace of a running stack."""

    workspace: Path
    env: Mapping[str, str]

    @classmethod
    def of(cls, env: Mapping[str, str], workspace: Path) -> "Typed":
        """With the addresses of the stack whose `stack.env` this is."""
        own = {"PYTHONPATH": str(workspace), "HEADRACE_WORKSPACE": str(workspace), "DVC_NO_ANALYTICS": "true"}
        return cls(workspace, {**environment.plain(), **env, **own})

    def run(self, *words: str) -> dict[str, Any]:
        """Run `headrace` with these words; what it prints as JSON.

        Raises:
            DemoError: It failed; with what it said.
        """
        command = [sys.executable, "-m", "headrace", *words, "--json"]
        done = subprocess.run(command, cwd=self.workspace, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"`headrace {' '.join(words)}` failed in {self.workspace}:\n{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found
