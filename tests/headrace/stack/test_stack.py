"""The local stack: servers that come up together, are found again, listen on 127.0.0.1 only and die with their owner.

Real servers throughout; most tests need no more than S3 and PostgreSQL, which are up within a second.
"""

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import psutil
import psycopg
import pytest
from servers import (
    HOST,
    POSTGRESQL_ACCOUNT,
    create_postgresql_data,
    is_listening,
    postgresql_program,
    run_server,
    wait_until,
)
from stack_processes import processes, state_of

from headrace.settings import Settings
from headrace.stack import control, launcher, probes
from headrace.stack.config import load_config
from headrace.stack.errors import StackError, StartFailedError
from headrace.stack.paths import StackPaths, low_disk_note
from headrace.stack.process import still_running
from headrace.stack.servers import postgres
from headrace.stack.state import Event

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[3]
HEADRACE = str(Path(sys.executable).with_name("headrace"))
BASE = ("s3", "postgres")
OWNER = """
import sys, time
from pathlib import Path
from headrace.stack import control
with control.running(Path(sys.argv[1]), sys.argv[2:]):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    control.down(tmp_path / "home")


@pytest.fixture
def owner(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the stack running."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, home, *BASE], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        yield child
        child.kill()


def test_what_is_exported_reaches_every_server(home: Path) -> None:
    with control.running(home, BASE) as env:
        listing = boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
        ).list_objects_v2(Bucket=env["HEADRACE_BUCKET"])
        with psycopg.connect(env["HEADRACE_DATABASE_URL"].replace("+psycopg", "")) as source:
            database = source.execute("select current_database()").fetchone()

        found = control.status(home)

    assert listing["Name"] == "headrace"
    assert database == ("source",)
    assert found.is_healthy
    assert [server.name for server, _ in found.servers] == ["s3", "postgres"]


def test_after_the_block_nothing_is_left(home: Path) -> None:
    with control.running(home, BASE):
        members = processes(state_of(home))

    assert len(members) > 4
    assert still_running(members) == []
    assert control.status(home).state == "stopped"


def test_a_second_up_finds_the_first(home: Path) -> None:
    first = control.up(home, BASE)
    events: list[Event] = []

    second = control.up(home, BASE, events.append)

    assert [server.process for server, _ in first.servers] == [server.process for server, _ in second.servers]
    assert second.is_healthy
    assert events == [], "nothing was started"


def test_the_servers_outlive_the_up_that_has_ended(home: Path) -> None:
    command = [HEADRACE, "stack", "up", "--home", str(home), "--only", ",".join(BASE)]

    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)

    assert control.status(home).is_healthy
    assert control.read_env(StackPaths(home))["AWS_ENDPOINT_URL"] in printed.stdout
    assert "ready in" in printed.stderr, "progress goes to stderr"


def test_a_stack_that_lacks_what_is_asked_for_says_so(home: Path) -> None:
    control.up(home, ["s3"])

    with pytest.raises(StackError, match=r"runs without postgres \(it runs s3\)[\s\S]*headrace stack down"):
        control.up(home, BASE)


def test_an_unknown_system_is_named_with_those_there_are(home: Path) -> None:
    with pytest.raises(StackError, match=r"There is no system mysql in the stack\. There are: s3, postgres"):
        control.up(home, ["mysql"])


def test_down_twice_is_fine(home: Path) -> None:
    control.up(home, BASE)
    members = processes(state_of(home))

    assert control.down(home) is True
    assert control.down(home) is False
    assert still_running(members) == []


def test_down_where_nothing_ever_ran_is_fine(home: Path) -> None:
    assert control.down(home) is False
    assert control.status(home).state == "never started"


def test_a_restart_keeps_addresses_secrets_and_data(home: Path) -> None:
    with control.running(home, BASE) as first:
        (home / "stack" / "s3" / "headrace" / "kept.txt").write_text("kept")

    with control.running(home, BASE) as second:
        assert second == first
        assert (home / "stack" / "s3" / "headrace" / "kept.txt").read_text() == "kept"


def test_a_home_of_an_earlier_version_gets_the_secrets_it_lacks_and_keeps_the_others(home: Path) -> None:
    first = load_config(StackPaths(home)).credentials
    keys = home / "stack" / "secrets.json"
    keys.write_text(json.dumps({name: value for name, value in vars(first).items() if name != "pseudonym_key"}))

    second = load_config(StackPaths(home)).credentials

    assert second.postgres == first.postgres
    assert second.pseudonym_key not in ("", first.pseudonym_key)
    assert load_config(StackPaths(home)).credentials == second, "and they stay"


def test_a_port_that_somebody_took_meanwhile_is_left_to_him(home: Path) -> None:
    with control.running(home, ["s3"]) as first:
        port = int(first["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])

    with socket.create_server(("127.0.0.1", port)), control.running(home, ["s3"]) as second:
        assert second["AWS_ENDPOINT_URL"] != first["AWS_ENDPOINT_URL"]
        assert control.status(home).is_healthy


def test_a_killed_owner_leaves_no_process_behind(home: Path, owner: "subprocess.Popen[str]") -> None:
    members = processes(state_of(home))

    owner.kill()

    assert wait_until(lambda: still_running(members) == [])


def test_ctrl_c_leaves_no_process_behind(home: Path, owner: "subprocess.Popen[str]") -> None:
    members = processes(state_of(home))

    owner.send_signal(signal.SIGINT)

    assert wait_until(lambda: still_running(members) == [])


def test_an_up_killed_while_it_starts_leaves_no_process_behind(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, home, *BASE], cwd=ROOT) as child:
        assert wait_until(lambda: (home / "stack.json").exists() and bool(state_of(home).servers))
        members = processes(state_of(home))
        child.kill()

    assert wait_until(lambda: still_running([*members, *processes(state_of(home))]) == [])
    assert control.down(home) is False


@pytest.mark.parametrize("victim", ["watchdog", "supervisor"])
def test_a_killed_supervisor_takes_every_server_along(home: Path, victim: str) -> None:
    control.up(home, BASE)
    state = state_of(home)
    members = processes(state)
    watchdog = psutil.Process(state.watchdog.pid)

    (watchdog if victim == "watchdog" else watchdog.children()[0]).kill()

    assert wait_until(lambda: still_running(members) == [])
    assert control.status(home).state == "stopped"
    assert control.up(home, BASE).is_healthy, "and the next one starts"


def test_a_server_that_dies_takes_the_stack_along_and_status_says_which(home: Path) -> None:
    found = control.up(home, BASE)
    members = processes(state_of(home))

    os.kill(found.servers[0][0].process.pid, signal.SIGKILL)

    assert wait_until(lambda: still_running(members) == [])
    assert "s3 was killed by signal 9; the other servers were stopped" in state_of(home).error


def test_a_failed_start_names_the_server_shows_the_end_of_its_log_and_stops_the_others(home: Path) -> None:
    with control.running(home, BASE):
        pass
    (home / "stack" / "postgres" / "PG_VERSION").write_text("9\n")

    with pytest.raises(StartFailedError) as failure:
        control.up(home, BASE)

    message = str(failure.value)
    assert message.startswith("postgres ended with exit code 1; the other servers were stopped. The end of ")
    assert "was initialized by PostgreSQL version 9" in message
    assert "Next: `headrace stack up" in message
    assert processes(state_of(home)) == []


def test_a_failed_start_is_a_message_and_an_exit_code_not_a_stack_trace(home: Path) -> None:
    (home / "stack" / "postgres").mkdir(parents=True)
    (home / "stack" / "postgres" / "PG_VERSION").write_text("9\n")
    command = [HEADRACE, "stack", "up", "--home", str(home), "--only", "postgres"]

    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 1
    assert "postgres ended with exit code" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_127_0_0_1_is_listened_on(home: Path) -> None:
    control.up(home, BASE)

    listening = [
        connection.laddr
        for member in processes(state_of(home))
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert {address.ip for address in listening} == {"127.0.0.1"}
    endpoints = {urlsplit(endpoint.address).port for endpoint in state_of(home).endpoints}
    assert {address.port for address in listening} == endpoints


def test_no_secret_stands_on_a_command_line_or_in_a_file_that_others_can_read(home: Path) -> None:
    with control.running(home, BASE) as env:
        lines = [" ".join(member.cmdline()) for member in processes(state_of(home))]
        secrets = json.loads((home / "stack" / "secrets.json").read_text()).values()
        holders = [
            path
            for path in (*home.glob("*"), *(home / "stack").glob("*"), *(home / "logs").glob("*"))
            if path.is_file() and any(secret in path.read_text() for secret in secrets)
        ]

    assert env["AWS_SECRET_ACCESS_KEY"] in secrets
    assert [line for line in lines if any(secret in line for secret in secrets)] == []
    assert {path.name for path in holders} == {"stack.env", "stack.json", "secrets.json"}
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}


def test_the_environment_is_read_by_the_settings_and_by_a_shell_alike(home: Path) -> None:
    with control.running(home, BASE) as env:
        settings = Settings(_env_file=home / "stack.env")
        shell = subprocess.run(
            ["sh", "-c", 'set -a; . "$1"; printf %s "$HEADRACE_DATABASE_URL"', "sh", home / "stack.env"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip

    assert settings.s3_endpoint == env["AWS_ENDPOINT_URL"]
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == env["HEADRACE_DATABASE_URL"] == shell.stdout


def test_where_the_kernel_does_not_help_a_server_is_watched_over_and_ends_with_its_parent() -> None:
    watcher = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from headrace.stack import launcher; import os; "
    watcher += "launcher.run_and_watch_parent(os.getppid(), 15, ['sleep', '600'])"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {watcher!r}]); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", parent]) as child:
        below = psutil.Process(child.pid)
        assert wait_until(lambda: [one.name() for one in below.children(recursive=True)].count("sleep") == 1)
        members = below.children(recursive=True)

        child.kill()

    assert wait_until(lambda: still_running(members) == [])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the watcher looks")
def test_a_server_that_finds_its_parent_gone_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, launcher.__file__, "1", "15", "-", "echo", "started"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (1, "")


# Local security


def test_only_the_owner_can_enter_the_home_also_one_that_an_earlier_version_created(tmp_path: Path) -> None:
    home = tmp_path / ".headrace" / "demo"
    home.mkdir(parents=True)
    for folder in (home, home.parent):
        folder.chmod(0o755)

    StackPaths(home).create()

    assert [folder.stat().st_mode & 0o777 for folder in (home, home.parent)] == [0o700, 0o700]
    assert tmp_path.stat().st_mode & 0o700 == 0o700, "the project itself is left alone"


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_postgresql_is_not_ready_while_it_refuses_everybody_because_it_is_starting_up() -> None:
    with create_postgresql_data() as (server, folder):
        (folder / "data/standby.signal").touch()  # without a primary, it starts up for ever
        command = [postgresql_program("postgres"), "-D", str(folder / "data"), "-h", HOST, "-p", str(server.port)]
        command += ["-k", "", "-c", "hot_standby=off"]
        log = folder / "log"
        with run_server(command, log, lambda: is_listening(server.port), account=POSTGRESQL_ACCOUNT):
            ready = asyncio.run(probes.speaks_postgres(server.port))

    assert not ready


def test_postgresql_runs_as_nobody_special_without_capabilities(home: Path) -> None:
    control.up(home, ["postgres"])
    (server,) = state_of(home).servers

    status = Path(f"/proc/{server.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert fields["Uid"].split()[0] != "0"


def test_sources_are_read_by_a_role_that_owns_its_database_and_reaches_nothing_else(home: Path) -> None:
    with control.running(home, ["postgres"]) as env:
        address = env["HEADRACE_DATABASE_URL"].replace("+psycopg", "")
        with psycopg.connect(address, autocommit=True) as source:
            role = source.execute(
                "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles"
                " WHERE rolname = current_user"
            ).fetchone()
            source.execute("CREATE TABLE orders (id int)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                source.execute("COPY orders FROM PROGRAM 'id'")
        for database in ("airflow", "feast", "postgres"):
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                psycopg.connect(address.rpartition("/")[0] + f"/{database}")
        registry = psycopg.connect(env["FEAST_REGISTRY_URL"].replace("+psycopg", ""))
        registry.execute("CREATE TABLE entities (id int)")
        registry.close()

    assert role == ("source", False, False, False, False)


def test_tables_that_an_earlier_version_created_as_the_superuser_become_the_roles_own(home: Path) -> None:
    with control.running(home, ["postgres"]) as env:
        superuser = env["HEADRACE_DATABASE_URL"].replace("+psycopg", "").rpartition("@")[2]
        password = load_config(StackPaths(home)).credentials.postgres
        with psycopg.connect(f"postgresql://headrace:{password}@{superuser}", autocommit=True) as connection:
            connection.execute("CREATE TYPE mood AS ENUM ('good')")
            connection.execute("CREATE TABLE orders (id serial PRIMARY KEY, mood mood)")
            connection.execute("CREATE VIEW last_order AS SELECT max(id) FROM orders")

    with (
        control.running(home, ["postgres"]) as env,
        psycopg.connect(env["HEADRACE_DATABASE_URL"].replace("+psycopg", "")) as source,
    ):
        source.execute("INSERT INTO orders (mood) VALUES ('good')")
        source.execute("ALTER TABLE orders ADD COLUMN price int")
        assert source.execute("SELECT * FROM last_order").fetchone() == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_programs_of_postgresql_below_a_closed_folder_are_copied_to_where_nobody_reaches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = tmp_path / "closed" / "pg" / "bin"
    folder.mkdir(parents=True)
    (folder / "postgres").write_text("a program")
    folder.parents[1].chmod(0o700)

    first, second = (postgres.reachable_bin(folder, "nobody") for _ in range(2))

    assert first == second != folder
    assert (first / "postgres").read_text() == "a program"
    assert first.parents[1].stat().st_mode & 0o777 == 0o755
    assert postgres.reachable_bin(folder, "-") == folder, "where the user stays, nothing is copied"
    os.chown(first.parents[1], 65534, -1)
    with pytest.raises(StackError, match="belongs to another user"):
        postgres.reachable_bin(folder, "nobody")


# State files that were cut, copied, or written at the same time


@pytest.mark.parametrize("content", [b"", b"[1]"])
def test_a_damaged_state_file_of_a_running_stack_is_named_and_down_stops_everything(home: Path, content: bytes) -> None:
    control.up(home, ["s3"])
    members = processes(state_of(home))
    (home / "stack.json").write_bytes(content)

    found = control.status(home)
    with pytest.raises(StackError, match=r"stack\.json is damaged[\s\S]*Next: `headrace stack down"):
        control.up(home, ["s3"])
    stopped = control.down(home)

    assert (found.state, found.is_healthy) == ("unreadable", False)
    assert stopped
    assert still_running(members) == []
    assert control.up(home, ["s3"]).is_healthy


def test_damaged_ports_are_chosen_again_and_damaged_credentials_are_named(home: Path) -> None:
    control.up(home, ["s3"])
    (home / "stack" / "ports.json").write_text("")
    assert not control.status(home).is_healthy, "nobody knows where to ask"
    control.down(home)

    assert control.up(home, ["s3"]).is_healthy
    control.down(home)

    (home / "stack" / "secrets.json").write_text("{")
    with pytest.raises(StackError, match=r"secrets\.json is damaged[\s\S]*Next: restore the file"):
        control.up(home, ["s3"])


def test_of_several_ups_at_once_each_ends_well(home: Path) -> None:
    command = [HEADRACE, "stack", "up", "--home", str(home), "--only", "s3", "--json"]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]

    printed = [child.communicate() for child in started]

    assert [child.returncode for child in started] == [0, 0, 0], printed
    assert len({json.dumps(json.loads(out)["servers"]) for out, _ in printed}) == 1


def test_the_copy_of_a_folder_whose_stack_runs_has_a_stack_of_its_own(home: Path, tmp_path: Path) -> None:
    first = control.up(home, ["s3"])
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)

    try:
        assert control.status(copy).state == "never started"
        assert control.down(copy) is False
        second = control.up(copy, ["s3"])

        assert control.status(home).is_healthy, "the first one runs on"
        assert second.record
        assert first.record
        assert second.record.endpoints[0].address != first.record.endpoints[0].address
    finally:
        control.down(copy)


def test_a_full_disk_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_: object) -> None:
        raise full

    monkeypatch.setattr(StackPaths, "create", refuse)
    with pytest.raises(StartFailedError, match=r"cannot write to .*No space left on device.*\nNext: make room"):
        control.up(home, ["s3"])


def test_a_server_that_fails_on_an_almost_full_disk_is_reported_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert low_disk_note(tmp_path) == ""

    monkeypatch.setattr("shutil.disk_usage", lambda _folder: shutil._ntuple_diskusage(1 << 40, 1 << 40, 5 << 20))  # noqa: SLF001  the type of what it returns

    assert "Only 5 MiB are free" in low_disk_note(tmp_path)
