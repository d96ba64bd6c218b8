"""`--run` and `headrace runs`: the commands of a run are typed in any clone, and none of them touches the clone."""

import json
import sys

import pytest
from workspaces import Workspace, git

AIRFLOW_ID = "scheduled__2026-11-30T06:00:00+00:00"
KERNEL = "pipelines/flights/features/carrier_delays.py"
SHARE = 'share(f"late_{p}", f"departed_{p}")'


def test_a_run_is_typed_in_two_clones_whose_own_code_differs(released: Workspace) -> None:
    other, third = released.clone("other"), released.clone("third")
    released.edit(KERNEL, SHARE, f"(100 * {SHARE})")
    released.publish_code("Give percentages")
    other.edit(KERNEL, SHARE, f"(1000 * {SHARE})")

    started = json.loads(other.command("headrace", "-q", "runs", "start", "flights", "--run", AIRFLOW_ID, "--json"))
    validated = other.command("headrace", "validate", "flights", "--run", AIRFLOW_ID)
    early = other.command("headrace", "release", "flights", "--run", AIRFLOW_ID, fails=True)
    planned = other.command("headrace", "plan", "flights", "--run", started["run"])
    other.command("headrace", "transform", "flights", "--run", started["run"])
    (listed,) = json.loads(third.command("headrace", "-q", "runs", "list", "flights", "--json"))["runs"]
    made = json.loads(third.command("headrace", "-q", "release", "flights", "--run", AIRFLOW_ID, "--json"))

    assert "validated/flights/flights: nothing to do" in validated
    assert "`headrace plan flights` shows why" in early
    assert "features/flights/carrier_delays: 3 stale" in planned
    assert early.splitlines()[-1].endswith(f"type the command with `--run {started['run']}`.")
    assert listed["run"] == started["run"]
    assert listed["commit"] == git(released.root, "rev-parse", "HEAD")
    assert listed["tables"] == ["features/flights/carrier_delays"]
    assert listed["worktree"] is None
    assert made["name"] == "flights/2"
    assert list(made["changes"]) == ["features/flights/carrier_delays"]
    assert made["rows"]["features/flights/carrier_delays"] > 0
    assert "1000" in (other.root / KERNEL).read_text(), "the clone is as it was"
    assert git(other.root, "status", "--porcelain").split() == ["M", KERNEL]
    assert "no runs" in other.command("headrace", "runs", "list")


def test_a_run_may_be_named_by_the_environment_and_ended_without_a_release(
    released: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RUN", "My run")

    done = released.command("headrace", "validate", "flights")
    (listed,) = json.loads(released.command("headrace", "-q", "runs", "list", "--json"))["runs"]

    assert "nothing to do" in done
    assert listed["run"].startswith("my-run-")
    assert listed["tables"] == []
    assert listed["worktree"].endswith(f".headrace/runs/flights/{listed['run']}")
    assert "ended" in released.command("headrace", "runs", "end", "flights", "My run")
    again = released.command("headrace", "runs", "end", "flights", "My run", fails=True)
    assert "flights has no run My run. `headrace runs list flights`" in again
    assert not list((released.root / ".headrace/runs").glob("*/*"))


def test_a_command_that_computes_and_releases_stays_in_one_worktree_of_the_clone(released: Workspace) -> None:
    code = (
        "from headrace.cli.output import dataset_tables, run_task\n"
        "with dataset_tables('flights', 'r1') as (_, table_store):\n    first = table_store.root\n"
        "with run_task('flights', 'r1') as task:\n    print(task.refs.root, first, task.table_store.root)\n"
    )

    printed = released.command(sys.executable, "-c", code).splitlines()[-1]

    worktree = released.root / ".headrace/runs/flights/r1"
    assert printed == f"{released.root} {worktree} {worktree}"


def test_a_command_in_a_run_gives_its_result_and_ends_with_the_release(released: Workspace) -> None:
    script = 'import json; json.dump({"auc": 0.5}, open("m.json", "w"))'
    options = ("--run", AIRFLOW_ID, "--release", "--result", "m.json", "--json")

    printed = released.command(
        "headrace", "-qq", "runs", "exec", "flights", *options, "--", sys.executable, "-c", script
    )

    found, _ = json.JSONDecoder().raw_decode(printed[printed.index("{") :])
    assert found["result"] == {"auc": 0.5}
    assert found["release"]["name"] == "flights/1"
    assert "no runs" in released.command("headrace", "runs", "list")
    assert not (released.root / "m.json").exists()


def test_a_dataset_that_the_commit_does_not_have_leaves_no_run(released: Workspace) -> None:
    refused = released.command("headrace", "validate", "flihgts", "--run", "r1", fails=True)
    misnamed = released.command("headrace", "runs", "start", "Flights ", fails=True)

    assert "There is no dataset 'flihgts'" in refused
    assert "expected the name of a dataset" in misnamed
    assert released.command("headrace", "runs", "list").splitlines()[-1] == "no runs"
