"""What DAGs are made of: a command runs in the workspace as if typed, and the wait for people holds no worker."""

# ruff: noqa: PLC0415  Airflow is imported when its home is set, which is where it writes

import asyncio
import fcntl
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest

import headrace

ROOT = Path(__file__).resolve().parents[3]
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture(autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Airflow can be imported here; the folder is the workspace."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path_factory.getbasetemp() / "airflow"))
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "token")
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    monkeypatch.syspath_prepend(str(ROOT))
    return tmp_path


# Commands


def test_what_a_command_prints_as_json_is_its_result_and_goes_with_the_events() -> None:
    from headrace.airflow.assets import release_asset
    from headrace.airflow.headrace_operator import HeadraceOperator

    script = """import json; print(json.dumps({"name": "flights/3", "days": list(range(99))}))"""
    asset = release_asset("flights")
    task = HeadraceOperator(task_id="t", command=f"{sys.executable} -c '{script}' --json", outlets=[asset])
    events = {asset: Event()}

    found = task.execute(context(events))

    assert found["name"] == "flights/3"
    assert found["days"][-1] == "… 69 more"
    assert events[asset].extra == found


def test_the_log_has_the_lines_for_people_and_not_the_json_of_the_result(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from headrace.airflow.headrace_operator import HeadraceOperator

    for name in ("pipelines/__init__.py", "dvc.yaml"):
        (workspace / name).parent.mkdir(exist_ok=True)
        (workspace / name).touch()

    found = HeadraceOperator(task_id="t", command="headrace check --json").execute(context({}))

    logged = capsys.readouterr().out
    assert found["findings"] == []
    assert "0 datasets checked, nothing found" in logged, "what a terminal would show"
    assert "findings" not in logged


def test_a_workspace_follows_its_origin_in_the_task_that_uses_it(workspace: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from headrace.airflow.headrace_operator import HeadraceOperator

    task = HeadraceOperator(task_id="t", command="touch used --json", sync_workspace=True)

    with pytest.raises(AirflowFailException) as failed:  # the folder is no clone
        task.execute(context())

    assert "`git pull --ff-only --tags` ended with exit code 128" in str(failed.value)
    assert f"cd {workspace} && git pull --ff-only --tags && touch used --json" in str(failed.value)
    assert not (workspace / "used").exists()


def test_a_command_runs_in_the_workspace_and_sees_nothing_of_airflows_own(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.airflow.headrace_operator import HeadraceOperator

    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    names = '[name for name in os.environ if name.startswith(("AIRFLOW", "AWS_ENDPOINT"))]'
    script = f'import json, os; print(json.dumps([os.getcwd(), os.environ["HEADRACE_WORKSPACE"], {names}]))'

    seen = HeadraceOperator(task_id="t", command=f"{sys.executable} -c '{script}' --json").execute(context())

    assert seen == [str(workspace), str(workspace), ["AWS_ENDPOINT_URL"]]


def test_headrace_is_found_as_one_types_it_whatever_the_path_of_the_worker_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.airflow.headrace_operator import HeadraceOperator

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    log = log_records(HeadraceOperator(task_id="t", command="headrace --version"))

    assert ("INFO", f"headrace {headrace.__version__}") in log


def test_a_command_that_fails_says_where_its_message_is_and_how_to_run_it_by_hand(workspace: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from headrace.airflow.headrace_operator import HeadraceOperator

    script = f"{sys.executable} -c 'exit(3)'"

    with pytest.raises(AirflowFailException) as failed:
        HeadraceOperator(task_id="t", command=script).execute(context())

    assert "ended with exit code 3" in str(failed.value)
    assert f"cd {workspace} && {script}" in str(failed.value)


@pytest.mark.parametrize(
    ("script", "retried"),
    [
        ("exit(75)", True),
        ("exit(1)", False),
        ("exit(2)", False),
        ("import os; os.kill(os.getpid(), 9)", True),
        ("import os; os.kill(os.getpid(), 15)", True),
        ('import sys; sys.exit("busy")', True),
        ("raise ValueError(1)", False),
    ],
)
def test_a_task_is_retried_where_its_command_may_succeed_later_and_fails_at_once_elsewhere(
    script: str, retried: bool
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from headrace.airflow.headrace_operator import HeadraceOperator

    task = HeadraceOperator(
        task_id="t", command=f"{sys.executable} -c '{script}'", is_transient_output=lambda text: text == "busy"
    )

    with pytest.raises(AirflowException) as failed:
        task.execute(context())

    assert isinstance(failed.value, AirflowFailException) != retried


def test_a_command_that_outlives_its_time_limit_is_stopped_and_not_tried_again(workspace: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException
    from airflow.sdk.execution_time.timeout import timeout

    from headrace.airflow.headrace_operator import HeadraceOperator

    lock = "import fcntl, time; lock = open('lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX); time.sleep(99)"
    task = HeadraceOperator(
        task_id="t", command=shlex.join([sys.executable, "-c", lock]), execution_timeout=timedelta(seconds=2)
    )

    with pytest.raises(AirflowFailException, match=r"did not end within 0:00:02"), timeout(2):  # type: ignore[no-untyped-call]
        task.execute(context())

    assert is_released(workspace / "lock")


def test_the_first_task_of_a_local_stack_says_which_commit_the_run_works_on_and_what_is_not_in_it(
    tmp_path: Path,
) -> None:
    from headrace.airflow.start_run import describe_served
    from headrace.workspace import SERVED_REF

    def git(folder: Path, *arguments: str) -> None:
        author = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        subprocess.run(["git", "-C", folder, *author, *arguments], check=True, capture_output=True)

    def lines() -> list[tuple[int, str]]:
        return list(describe_served(project, tmp_path / "workspace", timeout_s=0))

    project = tmp_path / "project"
    for folder in ("project", "workspace"):
        git(tmp_path, "init", "--quiet", folder)
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(tmp_path / "workspace", "remote", "add", "origin", str(tmp_path / "origin.git"))
    git(project, "commit", "--quiet", "--allow-empty", "--message", "Add weather")

    before = lines()
    git(project, "push", "--quiet", str(tmp_path / "origin.git"), f"HEAD:{SERVED_REF}")
    (project / "kernel.py").write_text("edited")
    after = lines()

    assert [level for level, _ in before] == [logging.WARNING]
    assert "works on an earlier commit than the last one of" in before[0][1]
    assert after[0][0] == logging.INFO
    assert after[0][1].endswith('"Add weather".')
    assert after[1][1].startswith("Uncommitted changes are not in the run: kernel.py. Commit them")
    assert next(describe_served(tmp_path / "gone", tmp_path))[1].endswith("the last commit that was served.")


def test_levels_and_messages_of_the_log_reach_the_log_of_the_task() -> None:
    from headrace.airflow.headrace_operator import HeadraceOperator

    script = (
        "from headrace.cli.logs import set_up_logging; import logging, sys; set_up_logging();"
        " logging.getLogger('headrace.x').warning('%s is slow', 'disk'); print('plain', file=sys.stderr)"
    )

    log = log_records(HeadraceOperator(task_id="t", command=shlex.join([sys.executable, "-c", script])))

    assert log[-2:] == [("WARNING", "disk is slow"), ("INFO", "plain")]


def test_a_killed_task_leaves_no_process_of_its_command_behind(workspace: Path) -> None:
    from airflow.sdk.exceptions import AirflowException

    from headrace.airflow.headrace_operator import HeadraceOperator

    (workspace / "child.py").write_text(
        "import fcntl, time\nlock = open('lock', 'w')\nfcntl.flock(lock, fcntl.LOCK_EX)\n"
        "open('begun', 'w')\ntime.sleep(99)\n"
    )
    (workspace / "parent.py").write_text(
        "import subprocess, sys; subprocess.run([sys.executable, 'child.py'], check=False)"
    )
    task = HeadraceOperator(task_id="t", command=f"{sys.executable} parent.py")

    def kill_when_begun() -> None:
        while not (workspace / "begun").exists():
            time.sleep(0.01)
        task.on_kill()

    threading.Thread(target=kill_when_begun).start()
    with pytest.raises(AirflowException, match="was killed by SIGTERM"):
        task.execute(context())

    assert is_released(workspace / "lock")


# The wait for people


def test_the_wait_ends_when_enough_is_answered() -> None:
    with label_studio(answered=[0, 1, 3], tasks=4) as server:
        event = trigger_event(f"{server}/projects/7", share=0.75)

    assert event == {"answered": 3, "tasks": 4, "ended_by": "answers"}


def test_the_wait_ends_only_after_the_scheduler_has_noted_that_it_began() -> None:
    from headrace.airflow.label_studio_sensor import SETTLED_S

    began = time.monotonic()
    with label_studio(answered=[4], tasks=4) as server:
        trigger_event(f"{server}/projects/7", share=1, settled_s=1)

    assert time.monotonic() - began >= 1
    assert SETTLED_S >= 10


def test_a_server_that_is_away_for_a_while_is_asked_again() -> None:
    with label_studio(answered=[-503, -502, 4], tasks=4) as server:
        event = trigger_event(f"{server}/projects/7", share=1)

    assert event["answered"] == 4


def test_the_wait_ends_at_its_deadline_with_what_is_there() -> None:
    with label_studio(answered=[1], tasks=4) as server:
        event = trigger_event(f"{server}/projects/7", share=1, hours=0.0)

    assert event == {"answered": 1, "tasks": 4, "ended_by": "deadline"}


def test_a_server_that_never_answers_fails_the_wait_at_its_deadline() -> None:
    with label_studio(answered=[-503], tasks=4) as server:
        event = trigger_event(f"{server}/projects/7", share=1, hours=0.0)

    assert list(event) == ["error"]
    assert re.search(r"does not answer \(HTTP 503\).*clear this task to wait again", event["error"])


def test_a_wait_goes_on_where_the_server_moved_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with label_studio(answered=[1], tasks=4) as first, label_studio(answered=[4], tasks=4) as second:
        monkeypatch.setenv("LABEL_STUDIO_URL", first)
        moves = threading.Timer(0.3, lambda: os.environ.update(LABEL_STUDIO_URL=second))
        moves.start()
        event = trigger_event("/projects/7", share=1)
        moves.join()

    assert event == {"answered": 4, "tasks": 4, "ended_by": "answers"}


def test_a_wait_that_a_version_before_began_uses_its_address_where_the_environment_names_none() -> None:
    with label_studio(answered=[4], tasks=4) as server:
        assert trigger_event(f"{server}/projects/7", share=1)["answered"] == 4

    assert "LABEL_STUDIO_URL is not set" in trigger_event("/projects/7", share=1)["error"]


def test_a_wait_whose_server_was_away_at_the_deadline_fails_unless_it_was_for_a_short_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgiven, failed = (wait_for_a_server_that_goes_away(monkeypatch, minutes) for minutes in (10, 0))

    assert forgiven == {"answered": 1, "tasks": 4, "ended_by": "deadline"}
    assert re.search(r"does not answer \(HTTP 503\).*LABEL_STUDIO_URL", failed["error"])


def wait_for_a_server_that_goes_away(monkeypatch: pytest.MonkeyPatch, forgiven_min: int) -> dict[str, Any]:
    """The event of a wait of two seconds whose server answers only once."""
    from headrace.airflow import label_studio_sensor

    monkeypatch.setattr(label_studio_sensor, "UNREACHED", timedelta(minutes=forgiven_min))
    with label_studio(answered=[1, -503], tasks=4) as server:
        return trigger_event(f"{server}/projects/7", share=1, hours=1 / 3600)


def test_a_refused_token_fails_the_wait_at_once_with_what_to_check() -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from headrace.airflow.label_studio_sensor import LabelStudioSensor

    with label_studio(answered=[-401], tasks=4) as server:
        event = trigger_event(f"{server}/projects/7", share=1)
        wait = LabelStudioSensor(task_id="wait", project_url="", share="1", hours="1", poll_interval_s="1")
        with pytest.raises(AirflowFailException, match=r"HTTP 401.*LABEL_STUDIO_API_KEY"):
            wait.resume(context(), event)


def test_the_wait_is_handed_to_the_triggerer_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import TaskDeferred

    from headrace.airflow.label_studio_sensor import LabelStudioSensor, LabelStudioTrigger

    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a-secret-token")
    wait = LabelStudioSensor(
        task_id="wait", project_url="http://x/projects/7", share="1.0", hours="48", poll_interval_s="60"
    )

    with pytest.raises(TaskDeferred) as handed:
        wait.execute(context())

    path, stored = handed.value.trigger.serialize()
    assert path == "headrace.airflow.label_studio_sensor.LabelStudioTrigger"
    assert LabelStudioTrigger(**stored).serialize() == (path, stored)
    assert "a-secret-token" not in json.dumps(stored)
    assert "http://x" not in json.dumps(stored), "the server may move"
    assert datetime.fromisoformat(stored["until"]) > datetime.now(UTC) + timedelta(hours=47)


# The decision of a person


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, ["accept", "nobody", ""]),
        ({"chosen_options": ["Accept"], "params_input": {}, "responded_by_user": None}, ["accept", "nobody", ""]),
        (
            {
                "chosen_options": ["Reject"],
                "params_input": {"reason": "it's wrong; --all"},
                "responded_by_user": {"id": "7", "name": "Grace Hopper"},
            },
            ["reject", "Grace Hopper", "it's wrong; --all"],
        ),
    ],
)
def test_a_decision_made_in_airflow_is_recorded_by_the_command_that_one_would_type(
    answer: dict[str, Any] | None, words: list[str]
) -> None:
    from headrace.airflow.labels import label_dag

    dag: Any = label_dag("flights", "delay_cause")
    found = {"release.accept": answer, "release.measure": {"before": "2013-01-09T12:00:00+00:00"}}
    task = dag.get_task("release.decide")
    context = {"ti": FakeTaskInstance(found), "run_id": "scheduled__2026-11-30T07:00:00+00:00"}
    task.render_template_fields(context, dag.get_template_env())

    command = shlex.split(task.command)

    word, by, reason = words
    asked = ["label", word, "flights", "--table", "delay_cause", "--before", "2013-01-09T12:00:00+00:00"]
    run = ["--run", "scheduled__2026-11-30T07:00:00+00:00"]
    assert command == ["headrace", *asked, "--by", by, "--reason", reason, *run, "--json"]
    helped = subprocess.run([sys.executable, "-m", *command, "--help"], cwd=ROOT, capture_output=True, check=False)
    assert helped.returncode == 0, helped.stderr


class FakeTaskInstance:
    """What earlier tasks found."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.found = found

    def xcom_pull(self, task_ids: str) -> Any:  # noqa: ANN401  any JSON
        """As Airflow gives it."""
        return self.found[task_ids]


def log_records(task: Any) -> list[tuple[str, str]]:  # noqa: ANN401  an operator
    """Level and message of what the task logs."""
    log: list[tuple[str, str]] = []
    logger, handler = logging.getLogger("tests.task"), logging.Handler()
    logger.setLevel("INFO")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(task), "log", property(lambda _: logger))
        patch.setattr(logger, "handlers", [handler])
        patch.setattr(handler, "emit", lambda record: log.append((record.levelname, record.getMessage())))
        task.execute(context())
    return log


def is_released(lock: Path) -> bool:
    """Whether the process that held the lock has ended, or does so soon."""
    until = time.monotonic() + 10
    with lock.open() as file:
        while time.monotonic() < until:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.01)
            else:
                return True
    return False


class Event:
    """What a task says about an asset."""

    extra: Mapping[str, Any]


def context(events: Mapping[Any, Event] | None = None) -> Any:  # noqa: ANN401  Airflow's own
    return {"outlet_events": events or {}}


def trigger_event(project: str, *, share: float, hours: float = 1, settled_s: float = 0) -> dict[str, Any]:
    """The one event of a trigger, which comes no sooner than `settled_s`."""
    from headrace.airflow import label_studio_sensor
    from headrace.airflow.label_studio_sensor import LabelStudioTrigger

    until = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()

    async def first() -> dict[str, Any]:
        events = [event async for event in LabelStudioTrigger(project, share, 0.01, until).run()]
        assert len(events) == 1
        content: dict[str, Any] = events[0].payload
        return content

    with patch.object(label_studio_sensor, "SETTLED_S", settled_s):
        return asyncio.run(asyncio.wait_for(first(), 20))


@contextmanager
def label_studio(answered: list[int], tasks: int) -> Iterator[str]:
    """Counts tasks as Label Studio does; each look sees the next number, a negative one is an HTTP status."""
    looks = list(answered)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            assert self.headers["Authorization"] == "Token token"
            assert self.path == "/api/users/" or query["ids" if "/api/projects" in self.path else "project"] == ["7"]
            number = (looks.pop(0) if len(looks) > 1 else looks[0]) if "ids" in query else 0
            counted = {"task_number": tasks, "finished_task_number": number}
            self.send_response(200 if number >= 0 else -number)
            self.end_headers()
            accounts = [{"email": "admin@localhost"}, {"email": "ann@example.com"}]
            listed = {"tasks": [], "total": 0, "results": [counted]}
            self.wfile.write(json.dumps(accounts if self.path == "/api/users/" else listed).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# When


@pytest.mark.parametrize("minutes", [1, 60, 600])
def test_a_new_airflow_waits_for_the_next_time_however_short_ago_the_last_one_was(
    minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable
    from airflow.timetables import trigger
    from airflow.timetables.base import TimeRestriction

    from headrace.airflow.labels import WEEKLY
    from headrace.airflow.refresh import DAILY

    monday = datetime(2026, 11, 30, tzinfo=UTC)
    for timetable, hour, days in ((DAILY, 6, 1), (WEEKLY, 7, 7)):
        last = monday + timedelta(hours=hour)
        monkeypatch.setattr(trigger, "utcnow", lambda now=last + timedelta(minutes=minutes): now)
        restriction = TimeRestriction(earliest=None, latest=None, catchup=False)
        scheduled = decode_timetable(encode_timetable(timetable))

        first = scheduled.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)

        assert first
        assert first.run_after == last + timedelta(days=days)


def test_the_refresh_runs_when_yesterday_is_over_in_new_york_winter_and_summer() -> None:
    from headrace.airflow.refresh import DAILY

    assert (DAILY.expression, str(DAILY.timezone)) == ("0 6 * * *", "UTC")
    for month in (1, 7):
        started = datetime(2013, month, 10, 6, tzinfo=UTC).astimezone(NEW_YORK)
        assert started.day == 10
        assert started.hour <= 2
