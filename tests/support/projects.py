"""A project outside of this repository, in which commands run."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """A project folder in which commands run."""

    root: Path

    def run(self, *command: str, fails: bool = False, settings: Mapping[str, str] | None = None) -> str:
        """What a command of this environment prints; it must succeed, or fail where that is expected."""
        done = subprocess.run(
            [Path(sys.executable).parent / command[0], *command[1:]],
            cwd=self.root,
            env={**os.environ, "DVC_NO_ANALYTICS": "1", **(settings or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def headrace(self, *arguments: str, fails: bool = False, settings: Mapping[str, str] | None = None) -> str:
        """What `headrace` prints."""
        return self.run("headrace", *arguments, fails=fails, settings=settings)
