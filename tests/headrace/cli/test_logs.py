"""The log: lines on standard error in the form and at the level that were asked for; results stay alone on stdout.

Only the command line sets up logging. The library logs to loggers named after its modules.
"""

import ast
import json
import logging
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_data import days
from servers import free_port
from workspaces import REPOSITORY, Workspace

from headrace.cli import logs, output

PLAIN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (?P<level>[A-Z]+) (?P<logger>headrace\.[\w.]+): (?P<message>.+)")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LIBRARY = [
    path
    for path in sorted((REPOSITORY / "headrace").rglob("*.py"))
    if path.relative_to(REPOSITORY / "headrace").parts[0] not in {"cli", "stack"}
]


@pytest.fixture
def validated(workspace: Workspace) -> Workspace:
    """A workspace with one day to validate."""
    workspace.raw.add_days(*days(1, 1))
    return workspace


def headrace(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("headrace")
    env = {**os.environ, **environment}
    return subprocess.run([program, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)


# Level and form


@pytest.mark.parametrize("arguments", [("-v", "validate", "flights"), ("validate", "flights", "-v")])
def test_verbose_says_what_is_decided_wherever_it_is_typed(validated: Workspace, arguments: tuple[str, ...]) -> None:
    done = headrace(validated.root, *arguments, "--table", "flights", "--json")

    (plan, reason) = (PLAIN.fullmatch(line) for line in done.stderr.splitlines())
    assert plan
    assert plan["level"], plan["logger"] == ("DEBUG", "headrace.engine.run")
    assert plan["message"] == "validated/flights/flights: 1 partitions to compute, 0 unchanged, 0 removed"
    assert reason
    assert json.loads(done.stdout)["stages"][0]["computed"]


def test_a_short_command_logs_nothing_unless_asked(validated: Workspace) -> None:
    assert headrace(validated.root, "validate", "flights", "--table", "flights").stderr == ""


def test_the_environment_and_the_file_of_the_workspace_choose_level_and_form(validated: Workspace) -> None:
    arguments = ("validate", "flights", "--table", "flights")
    (validated.root / ".env").write_text("HEADRACE_LOG_LEVEL=debug\nHEADRACE_LOG_FORMAT=json\n")

    from_file = headrace(validated.root, *arguments)
    quieter = headrace(validated.root, *arguments, "-q")
    from_environment = headrace(validated.root, *arguments, HEADRACE_LOG_FORMAT="text")

    assert {json.loads(line)["level"] for line in from_file.stderr.splitlines()} == {"DEBUG"}
    assert quieter.stderr == ""
    assert all(PLAIN.fullmatch(line) for line in from_environment.stderr.splitlines())


@pytest.mark.parametrize(("name", "value"), [("HEADRACE_LOG_LEVEL", "LOUD"), ("HEADRACE_LOG_FORMAT", "xml")])
def test_a_choice_that_is_not_offered_is_an_error_that_names_those_that_are(name: str, value: str) -> None:
    done = headrace(REPOSITORY, "plan", "flights", **{name: value})

    assert done.returncode == 1
    assert re.match(rf"error: {name}: expected one of .+, found {value}\.", done.stderr)


def test_retries_are_lines_of_the_log_in_the_form_that_was_chosen(workspace: Workspace) -> None:
    keys = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }

    arguments = ["ingest", "flights", "--table", "flights", "--log-format", "json"]
    program = Path(sys.executable).with_name("headrace")
    with subprocess.Popen(
        [program, *arguments], cwd=workspace.root, env={**os.environ, **keys}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        record = json.loads(process.stderr.readline())
        process.terminate()  # it would ask again for half a minute

    assert (record["logger"], record["level"]) == ("headrace.storage.retries", "WARNING")
    assert record["message"].startswith("the object storage is unavailable (UnreachedError): attempt 2 in ")
    assert time.strptime(record["time"][:19], "%Y-%m-%dT%H:%M:%S")


def test_a_record_with_a_stack_trace_is_one_line_of_json() -> None:
    try:
        int("why")
    except ValueError:
        record = logging.LogRecord("headrace.x", logging.ERROR, "", 1, "it failed: %s", ("here",), sys.exc_info())

    line = logs.JsonFormatter().format(record)

    entry = json.loads(line)
    assert "\n" not in line
    assert (entry["message"], entry["level"]) == ("it failed: here", "ERROR")
    assert entry["exception"].endswith("ValueError: invalid literal for int() with base 10: 'why'")


# Progress


def test_progress_that_takes_long_is_a_line_every_interval_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(output, "PROGRESS_INTERVAL_S", 0.05)
    caplog.set_level("INFO", logger="headrace.cli.output")

    with output.progress() as show:
        show("validated/flights/flights", 3, 9)
        while len(caplog.messages) < 2:  # a partition that takes long
            time.sleep(0.01)
        show("validated/flights/flights", 9, 9)

    assert all(
        re.fullmatch(r"validated/flights/flights: 3 of 9 partitions after \d+ s", line) for line in caplog.messages
    )


@pytest.mark.parametrize(
    ("arguments", "bars"), [(("-v",), True), (("-v", "--log-format", "json"), False), (("-q",), False)]
)
def test_a_terminal_shows_bars_and_colours_unless_the_log_is_json_or_quiet(
    validated: Workspace, arguments: tuple[str, ...], bars: bool
) -> None:
    said = on_a_terminal(validated.root, "validate", "flights", "--table", "flights", *arguments)

    assert ("━" in said) == bars
    assert ("\x1b[" in said) == bars
    assert ("1 partitions to compute" in ANSI.sub("", said)) == ("-v" in arguments)


def on_a_terminal(folder: Path, *arguments: str) -> str:
    """What a person sees on standard error."""
    ours, theirs = pty.openpty()
    program = str(Path(sys.executable).with_name("headrace"))
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "150"}
    process = subprocess.Popen([program, *arguments], cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = b"".join(chunks(ours))
    assert process.wait() == 0
    return said.decode()


def chunks(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # Linux: the other side is closed
            chunk = b""
        if not chunk:
            os.close(terminal)
            return
        yield chunk


# The library


def test_the_library_sets_up_no_logging_and_prints_nothing() -> None:
    set_up = {"basicConfig", "dictConfig", "fileConfig", "addHandler", "print", "set_on_retry_hooks"}
    found = []
    for path in LIBRARY:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names) if any(name.name.partition(".")[0] == "rich" for name in names):
                    found.append(f"{path}:{node.lineno} imports Rich")
                case ast.ImportFrom(module=str(module)) if module.partition(".")[0] == "rich":
                    found.append(f"{path}:{node.lineno} imports Rich")
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in set_up:
                    found.append(f"{path}:{node.lineno} calls {name}")

    assert found == []


def test_every_logger_is_named_after_its_module() -> None:
    calls = [
        (path, ast.unparse(node))
        for path in LIBRARY
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger"
    ]

    assert calls
    assert {call for _, call in calls} == {"logging.getLogger(__name__)"}


def test_importing_the_library_leaves_the_loggers_as_they_were() -> None:
    script = """if True:
        import logging
        import headrace.project.executors, headrace.storage.retries, headrace.release.release, headrace.ingest.ingest
        ours = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "headrace"]
        print([name for name in ours if logging.getLogger(name).handlers], logging.root.handlers)
    """

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "[] []\n"
