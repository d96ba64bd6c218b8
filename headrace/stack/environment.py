"""The environment that a server starts with: what the machine needs, and nothing else of the user's shell."""

import hashlib
import os
import sys
import sysconfig
from pathlib import Path

import headrace
from headrace.stack.errors import INSTALL_EXTRA, NotInstalledError

INHERITED = (
    "HOME", "LANG", "LC_ALL", "LOGNAME", "SHELL", "SSL_CERT_DIR", "SSL_CERT_FILE", "SYSTEMROOT", "TMPDIR", "TZ", "USER",
)  # fmt: skip


def base_environment() -> dict[str, str]:
    """A few variables of the shell, with the commands of this Python environment first on the PATH.

    Label Studio reads a bare HOST, PORT, USERNAME or DEBUG, Airflow AIRFLOW__*, boto3 AWS_PROFILE; and with
    PYTHONDONTWRITEBYTECODE every process compiles a thousand modules again. SHLVL is set because standard input of an
    Airflow task is a socket: a first-level bash then takes itself for a remote login and reads ~/.bashrc, which may put
    another Python first.
    """
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    path = f"{bin_folder()}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return inherited | {"PATH": path, "PYTHONUNBUFFERED": "1", "SHLVL": "1", "VIRTUAL_ENV": sys.prefix}


def bin_folder() -> Path:
    """Where the commands of this Python environment are."""
    return Path(sysconfig.get_path("scripts"))


def find_program(name: str) -> str:
    """Path of a command that a package of the extra `stack` installs.

    Raises:
        NotInstalledError: It is not there.
    """
    program = bin_folder() / name
    if not program.exists():
        raise NotInstalledError(f"{name} is not installed: expected {program}.\nNext: {INSTALL_EXTRA}.")
    return str(program)


def engine_version() -> str:
    """What identifies the engine that this process runs: its version and, in a source tree, its files."""
    hashed = hashlib.sha256()
    root = Path(headrace.__file__).parent
    for path in sorted(root.rglob("*.py")):
        hashed.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return f"{headrace.__version__} {hashed.hexdigest()[:12]} {root}"


def engine_path() -> dict[str, str]:
    """PYTHONPATH for a process that must run the engine of this process; empty for an engine in site-packages.

    An engine that runs from a source tree (an editable install, or PYTHONPATH) is passed on by its path.
    """
    root = Path(headrace.__file__).resolve().parents[1]
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    return {} if root in installed else {"PYTHONPATH": str(root)}
