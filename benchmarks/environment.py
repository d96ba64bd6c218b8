"""Workspaces for the benchmarks: each has its own origin, bucket, database and DVC remote."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from measure import REPOSITORY, Contender, counted_servers

if TYPE_CHECKING:
    from headrace.stack.server import Endpoint

ENVIRONMENT_PREFIXES = ("AIRFLOW", "AWS_", "DASK_", "FEAST_", "HEADRACE_", "LABEL_STUDIO_")


@dataclass(frozen=True)
class Workspace:
    """A clone of the working tree, its environment, and the folder of its bucket on the server's disk."""

    root: Path
    env: Mapping[str, str]
    bucket: Path

    def headrace(self, name: str, *arguments: str) -> Contender:
        """A `headrace` command, run with the clone's code."""
        return Contender(name, [sys.executable, "-m", "headrace", *arguments], self.root, self.env)

    def script(self, name: str, script: str, *arguments: str) -> Contender:
        """A script, run with the clone's code."""
        return Contender(name, [sys.executable, script, *arguments], self.root, self.env)


@contextmanager
def run_servers(*names: str) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """Run servers of the stack, and count their CPU; a folder, and the environment variables that name the servers."""
    from headrace.stack.control import running  # noqa: PLC0415
    from headrace.stack.paths import StackPaths  # noqa: PLC0415
    from headrace.stack.state import read_state  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIXES)]:
        del os.environ[name]
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        home = Path(folder) / "home"
        with running(home, names) as env:
            state = read_state(StackPaths(home))
            if "HEADRACE_DATABASE_URL" in env and state:
                allow_new_databases(env["HEADRACE_DATABASE_URL"], state.endpoints)
            with counted_servers(server.process.pid for server in (state.servers if state else ())):
                yield Path(folder), env


def create_workspace(folder: Path, env: Mapping[str, str], name: str) -> Workspace:
    """Create a workspace with a bucket and a database."""
    origin, root, bucket = folder / f"{name}.git", folder / name, folder / "home" / "stack" / "s3" / name
    bucket.mkdir()
    run_git(folder, "clone", "--quiet", "--bare", str(_template(folder)), str(origin))
    run_git(folder, "clone", "--quiet", str(origin), str(root))
    keys = f"access_key_id = {env['AWS_ACCESS_KEY_ID']}\nsecret_access_key = {env['AWS_SECRET_ACCESS_KEY']}"
    remote = f"url = s3://{name}/dvc\nendpointurl = {env['AWS_ENDPOINT_URL']}\n{keys}"
    (root / ".dvc/config.local").write_text(f"['remote \"storage\"']\n{remote}\n")
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    own = {**env, "HEADRACE_BUCKET": name, "HEADRACE_WORKSPACE": str(root), "PYTHONPATH": path}
    if "HEADRACE_DATABASE_URL" in env:
        own["HEADRACE_DATABASE_URL"] = new_database(env["HEADRACE_DATABASE_URL"], name)
    return Workspace(root, own, bucket)


def allow_new_databases(address: str, endpoints: Iterable["Endpoint"]) -> None:
    """Let the role of a database create databases of its own, which the stack lets only the superuser do."""
    import psycopg  # noqa: PLC0415
    from sqlalchemy.engine import make_url  # noqa: PLC0415

    url = make_url(address)
    [superuser] = [endpoint for endpoint in endpoints if f":{url.port}" in endpoint.address]
    server = psycopg.conninfo.make_conninfo(host=url.host, port=url.port, dbname="postgres")
    with psycopg.connect(server, user=superuser.user, password=superuser.password, autocommit=True) as connection:
        connection.execute(f'ALTER ROLE "{url.username}" CREATEDB'.encode())


def new_database(address: str, name: str) -> str:
    """Create a database; its address."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(address.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{address.rpartition('/')[0]}/{name}"


def _template(folder: Path) -> Path:
    """The working tree, as it is now, as a repository of one commit."""
    root = folder / "template"
    if root.exists():
        return root
    listed = run_git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (REPOSITORY / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, root / name)
    run_git(root, "init", "--quiet", "--initial-branch", "main")
    run_git(root, "add", "--all")
    run_git(root, "commit", "--quiet", "--message", "The working tree")
    return root


def run_git(folder: Path, *arguments: str) -> str:
    """Run git; its output."""
    identity = ("-c", "user.name=Bench", "-c", "user.email=bench@localhost")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
