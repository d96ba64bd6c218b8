"""The DAGs hold order, schedule and retries, and nothing else: a task is the command one would type.

They parse without any data library, and each explains itself to the person on call.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.project.loading import dataset_names

ROOT = Path(__file__).resolve().parents[3]
NETWORK = {"workspace", "ingest", "release", "publish", "send", "collect", "again", "collect_again"}
PARSE_CPU_S = 1.0
LABELS = ("flights_label_delay_cause", "digits_label_digit")

Facts = dict[str, Any]


@pytest.fixture(scope="session")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What Airflow's DAG processor finds in `dags/`."""
    airflow_home = tmp_path_factory.mktemp("airflow")
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "PYTHONPATH": str(ROOT),
    }
    script = [sys.executable, str(ROOT / "tests/support/dag_facts.py"), str(ROOT / "dags")]
    done = subprocess.run(script, env=environment, cwd=airflow_home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Facts = json.loads(done.stdout)
    return found


def tasks_of(facts: Facts) -> list[tuple[str, str, Facts]]:
    return [(name, task, found) for name, dag in facts["dags"].items() for task, found in dag["tasks"].items()]


def commands_of(facts: Facts) -> set[str]:
    return {task["command"] for _, _, task in tasks_of(facts) if task["kind"] == "Command"}


# The files


def test_every_dag_file_imports_without_an_error(facts: Facts) -> None:
    assert facts["errors"] == {}
    assert set(facts["dags"]) == {*(f"{name}_refresh" for name in dataset_names()), *LABELS, "flights_training"}


def test_no_dag_file_loads_a_data_library_nor_the_pipelines(facts: Facts) -> None:
    assert facts["loaded"] == []


def test_parsing_all_dag_files_costs_less_than_a_second_beyond_airflow(facts: Facts) -> None:
    assert facts["cpu_s"] < PARSE_CPU_S


def test_each_dag_says_what_it_does_who_answers_for_it_and_what_to_do_when_it_fails(facts: Facts) -> None:
    for name, dag in facts["dags"].items():
        assert dag["title"] not in ("", name)
        assert "when it fails" in dag["doc"]
        assert name.split("_")[0] in dag["tags"]
        assert {task["owner"] for task in dag["tasks"].values()} == set(dag["links"])
        assert all(task["title"] != task_id.rsplit(".")[-1] for task_id, task in dag["tasks"].items())


def test_the_runbook_of_a_dag_names_its_own_tasks_only(facts: Facts) -> None:
    for dag in facts["dags"].values():
        rows = re.findall(r"^\| ([a-z, ]+) \| (?!then)", dag["doc"], flags=re.MULTILINE)
        named = {name for row in rows for name in row.split(", ")}
        assert named
        assert named <= {task.rsplit(".")[-1] for task in dag["tasks"]}


# Order, schedule, retries


def test_the_refresh_goes_from_ingest_to_publish_in_one_line(facts: Facts) -> None:
    refresh = facts["dags"]["flights_refresh"]

    order = [task.rsplit(".")[-1] for task in refresh["order"]]

    assert order == ["workspace", "ingest", "validate", "transform", "release", "publish"]
    assert [len(task["after"]) for task in refresh["tasks"].values()].count(1) == len(order) - 1


def test_a_dataset_that_is_declared_has_a_refresh_with_a_command_for_each_verb_that_has_something_to_make(
    facts: Facts,
) -> None:
    order = [task.rsplit(".")[-1] for task in facts["dags"]["digits_refresh"]["order"]]

    assert order == ["workspace", "ingest", "validate", "release"]
    assert "| transform |" not in facts["dags"]["digits_refresh"]["doc"]


def test_answers_are_collected_after_the_wait_and_then_released(facts: Facts) -> None:
    orders = [[task.rsplit(".")[-1] for task in facts["dags"][name]["order"]] for name in LABELS]

    for order in orders:
        assert order[:4] == ["send", "wait", "workspace", "collect"]
        assert order[4:] == ["again", "wait_again", "collect_again", "measure", "accept", "decide", "release"]


def test_a_release_starts_the_training_and_the_training_makes_no_release_event(facts: Facts) -> None:
    makers = {name for name, _, task in tasks_of(facts) if "flights_release" in task["outlets"]}

    assert makers == {"flights_refresh", "flights_label_delay_cause"}
    assert facts["dags"]["flights_training"]["schedule"] == "AssetTriggeredTimetable"


def test_only_tasks_that_touch_a_network_are_tried_again(facts: Facts) -> None:
    tried_again = {task.rsplit(".")[-1] for _, task, found in tasks_of(facts) if found["retries"]}

    assert tried_again == NETWORK


def test_runs_of_a_dag_never_overlap_and_missed_ones_are_not_made_up_for(facts: Facts) -> None:
    assert {(dag["at_once"], dag["catchup"]) for dag in facts["dags"].values()} == {(1, False)}


def test_a_fresh_stack_starts_no_run_by_itself(facts: Facts) -> None:
    clocked = [dag for dag in facts["dags"].values() if dag["schedule"] == "CronTriggerTimetable"]

    assert len(clocked) == len(dataset_names()) + len(LABELS)
    assert {dag["start"] for dag in clocked} == {None}


# Commands


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


def test_the_training_stage_is_in_dvc_yaml(facts: Facts) -> None:
    stage = re.search(r"--single-item (\S+)", " ".join(commands_of(facts)))

    assert stage
    assert f"  {stage[1]}:\n" in (ROOT / "dvc.yaml").read_text()
