"""Label Studio's own Python environment: its pins clash with Airflow's, so it is not installed beside Headrace.

It is made with the standard library's venv and pip, from the lock file in this package, by hash. A stamp with the hash
of the lock is written last: an installation that was interrupted begins again, a finished one is not repeated.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path

from headrace.stack import environment
from headrace.stack.errors import StackError
from headrace.stack.process import tied_to_this_process
from headrace.stack.state import log_tail

LOCK = Path(__file__).with_name("label-studio.txt")
FOLDER = ".venv-label-studio"
STAMP = "headrace-lock.sha256"
STAMP_OF_0_1 = ".installed"

NO_OUTGOING_CALLS = {
    "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
    "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
    "LABEL_STUDIO_SENTRY_DSN": "",
    "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
}
NOT_FOR_PIP = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
BUILD_TOOLS = re.compile(r"^(?:setuptools|wheel)==(?:.*\\\n)*.*\n", re.MULTILINE)
"""The lock's entries for the tools that build those packages of it that come as source only."""

Report = Callable[[str], None]


class InstallState(Enum):
    """How far an environment is."""

    MISSING = "missing"
    OUTDATED = "outdated"  # usable, but made from another lock file
    INSTALLED = "installed"


@dataclass(frozen=True)
class LabelStudioEnvironment:
    """A virtual environment that holds Label Studio, and its lock file."""

    folder: Path
    lock: Path = LOCK

    @property
    def program(self) -> Path:
        """The command `label-studio`."""
        return self.folder / "bin" / "label-studio"

    @property
    def template(self) -> Path:
        """A data folder with migrated, empty tables, which a new server starts from."""
        return self.folder / "template"

    @property
    def log(self) -> Path:
        """What the installation printed."""
        return self.folder / "install.log"

    def check(self) -> InstallState:
        """Whether it can be used. An interrupted installation cannot: it has no stamp."""
        stamp = self.folder / STAMP
        if not self.program.exists() or not (stamp.exists() or (self.folder / STAMP_OF_0_1).exists()):
            return InstallState.MISSING
        is_current = stamp.exists() and stamp.read_text() == self.lock_hash
        return InstallState.INSTALLED if is_current else InstallState.OUTDATED

    @property
    def lock_hash(self) -> str:
        """SHA-256 of the lock file."""
        return sha256(self.lock.read_bytes()).hexdigest()

    def install(self, report: Report) -> bool:
        """Install what the lock file says; False if that is done already.

        Raises:
            StackError: A step failed; the message ends with the log of that step.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(self.folder.parent):
            if self.check() is InstallState.INSTALLED:
                return False
            for stamp in (STAMP, STAMP_OF_0_1):
                (self.folder / stamp).unlink(missing_ok=True)
            report(f"creating the environment {self.folder}")
            self._create()
            count = len(re.findall(r"^[\w.-]+==", self.lock.read_text(), re.MULTILINE))
            report(f"installing {count} packages (the first time only)")
            self._install_packages()
            report("creating its empty database")
            self._create_template()
            (self.folder / STAMP).write_text(self.lock_hash)
        return True

    def _create(self) -> None:
        """Start from an empty folder: pip takes a half-installed package for an installed one."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        (self.folder / ".gitignore").write_text("*\n")
        self._run(sys.executable, "-m", "venv", str(self.folder))

    def _install_packages(self) -> None:
        """First the lock's build tools, then everything: packages without a wheel are built with those."""
        python = str(self.folder / "bin" / "python")
        # Half of the modules are never imported, so Python compiles those that are, at their first import.
        pip = (python, "-m", "pip", "install", "--no-deps", "--no-compile", "--require-hashes")
        tools = "".join(BUILD_TOOLS.findall(self.lock.read_text()))
        if tools:
            requirements = self.folder / "build-tools.txt"
            requirements.write_text(tools)
            self._run(*pip, "--requirement", str(requirements))
        self._run(*pip, "--no-build-isolation", "--requirement", str(self.lock))

    def _create_template(self) -> None:
        """Migrate an empty database once, of which every new server gets a copy."""
        draft = self.folder / "template.new"
        settings = {**environment.base_environment(), **NO_OUTGOING_CALLS, "LABEL_STUDIO_BASE_DATA_DIR": str(draft)}
        self._run(str(self.program), "init", "-q", env=settings)
        draft.replace(self.template)

    def _run(self, *command: str, env: Mapping[str, str] | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_FOR_PIP}
        settings = {**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"} if env is None else env
        with self.log.open("ab") as log:
            done = subprocess.run(
                tied_to_this_process(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=settings,
                check=False,
            )
        if done.returncode:
            raise StackError(
                f"Label Studio could not be installed: `{' '.join(command)}` ended with exit code {done.returncode}. "
                f"The end of {self.log}:\n{log_tail(self.log)}\n"
                "Next: fix the cause, then `headrace stack install`. The other servers start without it: "
                "`headrace stack up --only s3,postgres,dask,airflow`."
            )


def label_studio_environment() -> LabelStudioEnvironment:
    """The one beside the virtual environment that runs; for a Python outside of any, the one of this user."""
    in_venv = sys.prefix != sys.base_prefix
    parent = Path(sys.prefix).parent if in_venv else Path.home() / ".local" / "share" / "headrace"
    return LabelStudioEnvironment(parent / FOLDER)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time install below `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
