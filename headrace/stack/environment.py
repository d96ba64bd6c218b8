"""The environment that a server starts with: what the machine needs, nothing that a user's shell happens to hold."""

import os
import sys
from pathlib import Path

KEPT = (
    "HOME", "LANG", "LC_ALL", "LOGNAME", "SHELL", "SSL_CERT_DIR", "SSL_CERT_FILE", "SYSTEMROOT", "TMPDIR", "TZ", "USER",
)  # fmt: skip


def plain() -> dict[str, str]:
    """The few variables kept, with the environment's own commands first on the PATH.

    A bare HOST, PORT, USERNAME or DEBUG would be read by Label Studio, AIRFLOW__* by Airflow, AWS_PROFILE by boto3; and
    PYTHONDONTWRITEBYTECODE would have every process compile a thousand modules again. SHLVL is set because a task's
    standard input is a socket, and a first-level bash then takes itself for a remote login and reads ~/.bashrc, which
    may put another Python first.
    """
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    path = f"{binaries()}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return kept | {"PATH": path, "PYTHONUNBUFFERED": "1", "SHLVL": "1", "VIRTUAL_ENV": sys.prefix}


def binaries() -> Path:
    """Where the commands of this environment lie."""
    return Path(sys.prefix) / "bin"
