"""A step that a guard refuses asks a person in Airflow; accepted, it is run again, and otherwise the run fails."""

# ruff: noqa: PLC0415  Airflow is imported when its home is set, which is where it writes

import json
import subprocess
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from minimal_dataset import raw_days
from projects import Project

from headrace.storage import git

MODULE = '''"""Sales."""
from dataclasses import replace

from minimal_dataset import SALES

from headrace.dataset import Dataset, ObjectSource

LOCATION = ObjectSource("sales/", r"sales/(?P<partition>.+)\\.csv", ".csv", "file://FOLDER")
DATASET = Dataset(description="Sales.", owner="tests", sources=(replace(SALES, location=LOCATION),))
'''
DAYS = sorted(raw_days(*range(1, 31)))


class Source(Project):
    """A clone of a project with one source: a folder with thirty days."""

    @property
    def folder(self) -> Path:
        return self.root.parent / "source/sales"

    def begin(self) -> None:
        for folder in (self.folder, self.root / "pipelines/tiny"):
            folder.mkdir(parents=True)
        for day in DAYS:
            (self.folder / f"{day}.csv").write_text(f"at,shop,amount\n{day}T12:00:00Z,east,1\n")
        files = {
            "pipelines/tiny/__init__.py": MODULE.replace("FOLDER", str(self.folder.parent)),
            "pipelines/__init__.py": "",
            "dvc.yaml": "",
            ".gitignore": "data/\n.headrace/\n__pycache__/\n",
        }
        for name, text in files.items():
            (self.root / name).write_text(text)
        origin = str(self.root.parent / "origin.git")
        for command in (
            ("init", "--quiet", "--initial-branch", "main"),
            ("add", "."),
            ("commit", "--quiet", "--message", "Declare"),
            ("clone", "--quiet", "--bare", ".", origin),
            ("remote", "add", "origin", origin),
        ):
            subprocess.run(["git", "-C", self.root, *command], check=True)

    def lose(self, *days: str) -> None:
        for day in days:
            (self.folder / f"{day}.csv").unlink()


class Step:
    """The task of a refresh that ingests, in the run `r1`, as Airflow executes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.sdk.execution_time import task_runner

        from headrace.airflow.refresh import refresh_dag

        self.task: Any = refresh_dag("tiny", {"validate": ["sales"], "transform": [], "label": []}).get_task(
            "tables.ingest"
        )
        self.task.render_template_fields({"run_id": "r1", "params": {"full": False}})
        self.context: Any = {"outlet_events": {}, "task": self.task, "task_instance": SimpleNamespace(id=uuid.uuid4())}
        self.questions: list[Any] = []
        comms = SimpleNamespace(send=lambda *, msg: self.questions.append(msg))
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)

    def ask(self) -> Any:  # noqa: ANN401  Airflow's own
        """How the task waits after it was refused."""
        from airflow.sdk.exceptions import TaskAwaitingInput

        with pytest.raises(TaskAwaitingInput) as waits:
            self.task.execute(self.context)
        return waits.value

    def answer(self, waits: Any, event: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """The result of the task after an answer; what it kept meanwhile was JSON."""
        kept = json.loads(json.dumps(waits.kwargs))
        return self.task.resume_execution(waits.method_name, {**kept, "event": event}, self.context)


@pytest.fixture
def source(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Source:
    settings = {
        "AIRFLOW_HOME": str(tmp_path_factory.getbasetemp() / "airflow"),
        "HEADRACE_WORKSPACE": str(tmp_path / "clone"),
        "HEADRACE_PUSH_RUNS": "0",
        "HEADRACE_COMMIT": "local",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    made = Source(tmp_path / "clone")
    made.begin()
    made.headrace("ingest", "tiny", "--run", "r1")
    return made


@pytest.fixture
def step(source: Source, monkeypatch: pytest.MonkeyPatch) -> Step:  # noqa: ARG001  the workspace of its command
    return Step(monkeypatch)


def reply(*chosen: str, reason: str | None = "moved -- it's so") -> dict[str, Any]:
    """An answer, as Airflow gives it."""
    user = {"id": "7", "name": "Ann O'Neil"}
    return {"chosen_options": list(chosen), "params_input": {"reason": reason}, "responded_by_user": user}


def test_an_accepted_finding_is_recorded_in_the_run_and_the_step_is_run_again(source: Source, step: Step) -> None:
    step.task.execute(step.context)
    assert step.questions == [], "a step without findings asks nobody"
    source.lose(*DAYS[1:])

    waits = step.ask()
    done = step.answer(waits, reply("Accept"))

    (question,) = step.questions
    assert "29 of 30 partitions would vanish (2026-01-02, 2026-01-03, 2026-01-04, …)" in question.body
    assert "The table stays as it was." in question.body
    assert question.options == ["Accept", "Refuse"]
    assert question.defaults is None, "a day without an answer accepts nothing"
    assert list(question.params) == ["reason"]
    assert timedelta(minutes=15) <= waits.timeout <= timedelta(days=1)
    assert done["ingested"][0]["deleted"][:2] == DAYS[1:3]
    record = json.loads(git.git(source.root, "show", "refs/headrace/runs/tiny/r1/findings:findings.json"))
    (accepted,) = record["acceptances"]
    assert (accepted["by"], accepted["reason"]) == ("Ann O'Neil", "moved -- it's so")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (reply("Refuse"), r"Ann O'Neil refused the findings \(moved -- it's so\)\. .*29 of 30 .* headrace accept tiny"),
        (reply("Refuse", reason=None), r"Ann O'Neil refused the findings\. .*29 of 30 "),
        (
            {"error": "The timeout has passed.", "error_type": "timeout"},
            r"Nobody answered within a day, or before the next run.*29 of 30 ",
        ),
    ],
)
def test_refused_or_not_answered_the_run_fails_for_good_with_the_message(event: Any, message: str) -> None:  # noqa: ANN401
    from airflow.sdk.exceptions import AirflowFailException

    from headrace.airflow.findings_question import accept_command

    refused = {"dataset": "tiny", "findings": [], "message": "29 of 30 would vanish. Run headrace accept tiny …"}

    with pytest.raises(AirflowFailException, match=message):
        accept_command("headrace ingest tiny --json", refused, event)


@pytest.mark.parametrize(
    ("schedule", "asked_at", "ends"),
    [
        ("0 6 * * *", "2026-01-01T06:05", "2026-01-02T06:00"),
        ("0 6 * * *", "2026-01-01T05:00", "2026-01-01T06:00"),
        ("0 6 * * *", "2026-01-01T05:59", "2026-01-01T06:14"),
        ("0 * * * *", "2026-01-01T06:05", "2026-01-01T07:00"),
        ("* * * * *", "2026-01-01T06:05", "2026-01-01T06:20"),
        ("0 7 * * MON", "2026-01-01T06:05", "2026-01-02T06:05"),
        ("", "2026-01-01T06:05", "2026-01-02T06:05"),
    ],
)
def test_a_question_ends_when_the_next_run_is_due_or_after_a_day(schedule: str, asked_at: str, ends: str) -> None:
    from headrace.airflow.findings_question import response_timeout

    now = datetime.fromisoformat(asked_at).replace(tzinfo=UTC)

    assert now + response_timeout(schedule, now) == datetime.fromisoformat(ends).replace(tzinfo=UTC)


@pytest.mark.parametrize("reason", [None, "", "  "])
def test_who_accepts_without_a_reason_is_asked_again(reason: str | None) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from headrace.airflow.findings_question import accept_command

    with pytest.raises(AirflowException, match=r"without a reason\. Airflow asks again") as failed:
        accept_command("headrace ingest tiny", {"dataset": "tiny", "findings": []}, reply("Accept", reason=reason))

    assert not isinstance(failed.value, AirflowFailException)


def test_a_refusal_accepts_nothing_and_other_findings_than_those_accepted_are_asked_about_in_the_next_try(
    source: Source, step: Step
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    source.lose(*DAYS[5:])
    waits = step.ask()
    with pytest.raises(AirflowFailException, match="Ann O'Neil refused the findings"):
        step.answer(waits, reply("Refuse"))
    source.lose(*DAYS[1:5])

    with pytest.raises(AirflowException, match="Other findings than those accepted") as failed:
        step.answer(waits, reply("Accept"))
    step.ask()

    assert not isinstance(failed.value, AirflowFailException), "retried"
    assert "25 of 30" in step.questions[0].body
    assert "29 of 30" in step.questions[1].body


def test_what_is_accepted_at_a_publish_belongs_to_no_run() -> None:
    import shlex

    from headrace.airflow.findings_question import accept_command

    refused = {"dataset": "tiny", "findings": [{"id": "vanished:features/tiny/totals@0"}, {"id": "future:b@1"}]}

    typed = shlex.split(accept_command("headrace publish tiny --json", refused, reply("Accept", reason="--x")))
    in_run = accept_command("headrace release tiny --run 'manual 1' --json", refused, reply("Accept"))

    assert typed[:5] == ["headrace", "accept", "tiny", "vanished:features/tiny/totals@0", "future:b@1"]
    assert typed[5:] == ["--reason=--x", "--by=Ann O'Neil", "--json"]
    assert in_run.endswith("--run 'manual 1' --json")


def test_a_question_about_many_findings_names_the_first_ones_and_their_number() -> None:
    from headrace.airflow.findings_question import SHOWN, describe

    findings = [{"check": "future", "text": f"day {number}"} for number in range(SHOWN + 3)]

    text = describe({"dataset": "tiny", "findings": findings, "consequence": "Nothing was changed."})

    assert f"day {SHOWN - 1}\n- and 3 more, which `headrace status tiny` shows\n" in text
