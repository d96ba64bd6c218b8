"""The DAGs hold order, schedule and retries, and nothing else: a task is the command one would type.

They hold for any datasets that a project declares, parse without any data library, and each documents itself for the
person on call.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.project.loading import dataset_names, load_dataset

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = {"HeadraceOperator"}
REFRESHES = {f"{name}_refresh" for name in dataset_names()}
LABELS = {f"{name}_label_{labeling.name}" for name in dataset_names() for labeling in load_dataset(name).labels}

Facts = dict[str, Any]


@pytest.fixture(scope="session")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What Airflow's DAG processor finds in `dags/`."""
    return dag_facts(ROOT, tmp_path_factory.mktemp("airflow"))


def dag_facts(project: Path, airflow_home: Path) -> Facts:
    """What Airflow's DAG processor finds in the `dags/` of a project."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",  # an import error is logged on standard output, too
        "PYTHONPATH": str(ROOT),
    }
    script = [sys.executable, str(ROOT / "tests/support/dag_facts.py"), str(project / "dags")]
    done = subprocess.run(script, env=environment, cwd=airflow_home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Facts = json.loads(done.stdout)
    return found


def tasks_of(facts: Facts) -> list[tuple[str, str, Facts]]:
    return [(name, task, found) for name, dag in facts["dags"].items() for task, found in dag["tasks"].items()]


def commands_of(facts: Facts) -> set[str]:
    return {task["command"] for _, _, task in tasks_of(facts) if task["kind"] in COMMANDS}


def order_of(dag: Facts) -> list[str]:
    """Names of its tasks in the order they run, without their groups."""
    return [task.rsplit(".")[-1] for task in dag["order"]]


# The files


@pytest.mark.slow
def test_every_dag_file_imports_without_an_error(facts: Facts) -> None:
    assert facts["errors"] == {}


def test_every_dataset_and_every_labeling_task_has_a_dag_and_no_other_has(facts: Facts) -> None:
    by_file: dict[str, set[str]] = {}
    for name, dag in facts["dags"].items():
        by_file.setdefault(dag["file"], set()).add(name)

    assert by_file["refresh.py"] == REFRESHES
    assert by_file.get("labels.py", set()) == LABELS


def test_no_dag_file_loads_a_data_library_nor_the_pipelines(facts: Facts) -> None:
    assert facts["loaded"] == []


def test_parsing_all_dag_files_costs_less_than_importing_airflow(facts: Facts) -> None:
    assert facts["parse_cpu_s"] < facts["import_cpu_s"]


def test_each_dag_says_what_it_does_who_answers_for_it_and_what_to_do_when_it_fails(facts: Facts) -> None:
    for name, dag in facts["dags"].items():
        assert dag["title"] not in ("", name)
        assert "when it fails" in dag["doc"]
        assert "type the command in *Rendered Templates*" in dag["doc"].replace("\n", " ")
        assert set(dag["tags"]) & set(dataset_names())
        assert {task["owner"] for task in dag["tasks"].values()} == set(dag["links"])
        assert all(task["title"] != task_id.rsplit(".")[-1] for task_id, task in dag["tasks"].items())


def test_the_runbook_of_a_dag_has_a_row_for_each_of_its_tasks_and_no_other(facts: Facts) -> None:
    for name, dag in facts["dags"].items():
        rows = re.findall(r"^\| ([a-z_, ]+) \| (?!then)", dag["doc"], flags=re.MULTILINE)

        assert {task for row in rows for task in row.split(", ")} == set(order_of(dag)), name


# Order, schedule, retries


@pytest.mark.parametrize("name", dataset_names())
def test_a_refresh_runs_each_command_that_has_something_to_compute_one_after_the_other(facts: Facts, name: str) -> None:
    declared = load_dataset(name)
    refresh = facts["dags"][f"{name}_refresh"]

    computed = [*(["validate"] if declared.sources else []), *(["transform"] if declared.features else [])]
    served = ["publish"] if declared.features else []
    assert order_of(refresh) == ["start_run", "ingest", *computed, "release", *served]
    assert [len(task["after"]) for task in refresh["tasks"].values()].count(1) == len(refresh["order"]) - 1
    assert refresh["tasks"]["release.release"]["outlets"] == [f"{name}_release"]


@pytest.mark.parametrize("name", sorted(LABELS))
def test_answers_are_collected_after_the_wait_and_then_released(facts: Facts, name: str) -> None:
    order = order_of(facts["dags"][name])

    assert order[:5] == ["start_run", "send", "wait", "update_run", "collect"]
    assert order[5:9] == ["request_more", "wait_again", "update_run", "collect_again"]
    assert order[9:] == ["measure", "accept", "update_run", "collect", "decide", "release"]


def test_a_release_starts_the_training_and_the_training_makes_no_release_event(facts: Facts) -> None:
    makers = {name for name, _, task in tasks_of(facts) if any(out.endswith("_release") for out in task["outlets"])}
    trainings = [dag for name, dag in facts["dags"].items() if name not in REFRESHES | LABELS]

    assert makers == REFRESHES | LABELS
    assert {dag["schedule"] for dag in trainings} <= {"AssetTriggeredTimetable"}


def test_every_task_is_retried_after_waits_that_grow_up_to_a_limit(facts: Facts) -> None:
    for name, task, found in tasks_of(facts):
        assert found["retries"] >= 5, (name, task)
        assert found["retry_backoff"] > 1
        assert 0 < found["retry_delay_s"] < found["max_retry_delay_s"] <= 3600


def test_runs_of_a_dag_never_overlap_and_missed_ones_are_not_made_up_for(facts: Facts) -> None:
    assert {(dag["at_once"], dag["catchup"]) for dag in facts["dags"].values()} == {(1, False)}
    assert {found["at_once"] for _, _, found in tasks_of(facts)} == {1}, "holds in a backfill, too"


def test_a_backfill_is_refused_since_one_run_takes_everything_and_its_runs_would_overlap(facts: Facts) -> None:
    kinds = {kind for dag in facts["dags"].values() for kind in dag["run_types"]}

    assert all({"scheduled", "manual", "asset_triggered"} <= set(dag["run_types"]) for dag in facts["dags"].values())
    assert "backfill" not in kinds


def test_a_fresh_stack_starts_no_run_by_itself(facts: Facts) -> None:
    clocked = {name: dag for name, dag in facts["dags"].items() if dag["schedule"] == "CronTriggerTimetable"}

    assert set(clocked) == REFRESHES | LABELS
    assert {dag["start"] for dag in clocked.values()} == {None}


# Commands


@pytest.mark.slow
def test_every_command_is_one_that_can_be_typed(facts: Facts) -> None:
    for command in commands_of(facts):
        words = command.split("{{")[0].split()
        if words[0] != "headrace":
            continue
        verb = [word for word in words[1:] if not word.startswith("--") and word not in dataset_names()]
        asked = subprocess.run(
            [sys.executable, "-m", "headrace", *verb, "--help"],
            cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        assert asked.returncode == 0, f"{command}: {asked.stderr}"
        assert all(option in asked.stdout for option in re.findall(r"--[a-z-]+", command)), command


def test_every_command_that_writes_tables_works_in_the_run_of_its_dag_run(facts: Facts) -> None:
    outside = {command for command in commands_of(facts) if "--run {{ run_id }}" not in command}

    assert {" ".join(command.split()[:2]) for command in outside} == {"headrace publish"}


def test_a_command_that_works_in_the_workspace_has_it_follow_its_origin_first_in_the_same_task(facts: Facts) -> None:
    for name, task, found in tasks_of(facts):
        expected = "git pull --ff-only --tags" if found["command"].startswith("headrace publish") else ""
        assert found["before"] == expected, (name, task)


def test_every_stage_that_a_dag_trains_with_is_in_dvc_yaml(facts: Facts) -> None:
    stages = re.findall(r"--single-item (\S+)", " ".join(commands_of(facts)))

    assert all(f"  {stage}:\n" in (ROOT / "dvc.yaml").read_text() for stage in stages)


# Datasets that cannot run

DECLARATION = "from headrace.dataset import Dataset\n\nDATASET = Dataset()\n"
TABLES = """tables:
  good:
    validate: [orders]
  torn:
    validate: [orders]
  deleted:
    validate: [orders]
"""
FOLDERS = {
    "good": DECLARATION,
    "torn": "from headrace.dataset import (\n",
    "fresh": DECLARATION,
    "empty": '"""Nothing declared."""\n',
    "Bad-Name": DECLARATION,
    "_shared": "",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What Airflow finds in a project in which only one dataset can run."""
    project = tmp_path_factory.mktemp("project")
    (project / "dvc.yaml").write_text("stages: {}\n")
    (project / "headrace.lock").write_text(TABLES)
    for name, text in FOLDERS.items():
        folder = project / "pipelines" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(text)
    (project / "dags").mkdir()
    for name in ("refresh.py", "labels.py"):
        (project / "dags" / name).write_text((ROOT / "dags" / name).read_text())
    return dag_facts(project, tmp_path_factory.mktemp("airflow"))


@pytest.mark.slow
def test_a_dataset_that_cannot_run_is_a_dag_that_says_why_and_the_others_are_as_ever(broken: Facts) -> None:
    dags = broken["dags"]

    assert broken["errors"] == {}
    assert set(dags) == {f"{name}_refresh" for name in ("good", "torn", "fresh", "empty", "Bad-Name", "deleted")}
    assert {name for name, dag in dags.items() if "broken" not in dag["tags"]} == {"good_refresh"}
    assert order_of(dags["good_refresh"]) == ["start_run", "ingest", "validate", "release"]


@pytest.mark.parametrize(
    ("name", "message", "command"),
    [
        ("torn", "pipelines/torn/__init__.py:1: SyntaxError", "headrace plan torn"),
        ("empty", "pipelines/empty/__init__.py: expected `DATASET = Dataset(...)`", "headrace plan empty"),
        ("Bad-Name", "pipelines/Bad-Name: expected a folder name of lower-case letters", "headrace plan Bad-Name"),
        (
            "fresh",
            "headrace.lock has no table of the dataset fresh. Run `headrace dvc-sync`",
            "headrace dvc-sync --check",
        ),
        ("deleted", "there is no folder pipelines/deleted. Run `headrace dvc-sync`", "headrace dvc-sync --check"),
    ],
)
def test_its_documentation_begins_with_what_to_do_and_its_first_command_fails_with_it(
    broken: Facts, name: str, message: str, command: str
) -> None:
    dag = broken["dags"][f"{name}_refresh"]

    assert dag["doc"].startswith("**This dataset cannot run.** ")
    assert message in dag["doc"].splitlines()[0]
    assert order_of(dag)[0] == "declaration"
    assert dag["tasks"]["declaration"]["command"] == command
    assert dag["tasks"]["declaration"]["before"] == "git pull --ff-only --tags", "a fix that was pushed is found"


@pytest.mark.slow
def test_a_dvc_yaml_that_cannot_be_read_is_named_with_what_restores_it(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "refresh.py").write_text((ROOT / "dags" / "refresh.py").read_text())
    (tmp_path / "dvc.yaml").write_text("<<<<<<< HEAD\nstages:\n=======\n")
    (tmp_path / "home").mkdir()

    errors = dag_facts(tmp_path, tmp_path / "home")["errors"]

    assert [Path(file).name for file in errors] == ["refresh.py"]
    assert "dvc.yaml cannot be read: expected a mapping with `stages`" in next(iter(errors.values()))
