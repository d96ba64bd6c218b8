"""The command line: help that teaches and answers at once, errors as messages with an exit code, results as JSON.

No command loads a library that it does not need.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from raw_data import days
from workspaces import REPOSITORY, Workspace

import headrace
from headrace.cli import app
from headrace.engine.run import plan_stage
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.project.loading import dataset_names
from headrace.settings import Settings

COMMANDS = (
    "ingest",
    "validate",
    "transform",
    "label",
    "release",
    "publish",
    "retrieve",
    "run",
    "plan",
    "preview",
    "status",
    "lineage",
    "diff",
    "sql",
    "doctor",
    "gc",
    "check",
    "dvc-sync",
    "stack",
)
HEAVY = (
    "polars",
    "pandas",
    "pyarrow",
    "dask",
    "feast",
    "boto3",
    "dvc",
    "label_studio_sdk",
    "sqlalchemy",
    "dataframely",
)


def test_help_lists_every_command_in_the_order_data_flows() -> None:
    output = run(REPOSITORY, "--help").stdout

    places = [output.index(f"│ {command} ") for command in COMMANDS]
    assert places == sorted(places)
    assert "ingest → validate → transform → label → release → publish → retrieve" in " ".join(output.split())


def test_help_says_what_the_exit_codes_mean() -> None:
    said = " ".join(run(REPOSITORY, "--help").stdout.split())

    assert re.search(r"Exit codes: 0 success; 1 failure: .*; 2 wrong usage; 75 temporary failure", said)


def test_the_version_is_that_of_the_package() -> None:
    done = run(REPOSITORY, "--version")

    assert (done.returncode, done.stdout) == (0, f"headrace {headrace.__version__}\n")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = run(REPOSITORY, command, "--help")

    assert done.returncode == 0
    assert "Usage: headrace" in done.stdout


def leaves(command: Any, context: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401
    """Words that one types, and the command, for every command below a group."""
    if not hasattr(command, "list_commands"):
        yield path, command
        return
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), context, (*path, name))


MAIN: Any = typer.main.get_command(app)
LEAVES = dict(leaves(MAIN, MAIN.make_context("headrace", [], resilient_parsing=True)))


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_teaches_with_an_example_that_can_be_typed(path: tuple[str, ...]) -> None:
    command = LEAVES[path]
    example = re.match(r"Example: (?P<typed>headrace [^\n]+)", command.epilog or "")

    assert example
    words = shlex.split(example["typed"])[1:]
    assert tuple(words[: len(path)]) == path
    command.make_context(path[-1], words[len(path) :])


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_accepts_the_log_options_after_its_name(path: tuple[str, ...]) -> None:
    words = shlex.split(LEAVES[path].epilog.removeprefix("Example: headrace "))

    context = LEAVES[path].make_context(path[-1], ["-vv", "-q", "--log-format", "json", *words[len(path) :]])

    assert {name: context.params[name] for name in context.params if name.startswith("log_")} == {
        "log_verbose": 2,
        "log_quiet": 1,
        "log_form": "json",
    }


@pytest.mark.slow
def test_what_libraries_print_is_not_among_the_results_in_json() -> None:
    done = run(REPOSITORY, "plan", "flights", "--json")

    assert list(json.loads(done.stdout)) == ["sources", "stages", "recomputation"]


@pytest.mark.slow
def test_help_loads_no_data_library() -> None:
    script = f"""if True:
        import sys
        from headrace.cli import app
        app(["--help"], standalone_mode=False)
        print(sorted(set(sys.modules) & set({HEAVY!r})))
    """

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_declarations_are_loaded_without_pandas_pyarrow_hypothesis_or_dvc() -> None:
    script = """if True:
        import sys
        from headrace.project import graph
        from headrace.project.loading import dataset_names, load_dataset
        assert all(graph.dataset_stages(load_dataset(name)) for name in dataset_names())
        print(sorted(set(sys.modules) & {"pandas", "pyarrow", "hypothesis", "dvc", "feast", "dask"}))
    """

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_plan_and_a_release_load_no_library_that_they_do_not_use(released: Workspace) -> None:
    unused = {*HEAVY, "numpy", "PIL", "pipelines.digits"} - {"polars", "dataframely"}

    assert loaded(released, unused, "plan", "flights", "--offline") == set()
    assert loaded(released, unused, "release", "flights") == set()


def test_a_validation_of_small_days_does_not_start_dask(workspace: Workspace) -> None:
    workspace.raw.add_days(*days(1, 6))

    assert loaded(workspace, {"dask", "sqlalchemy", "boto3"}, "validate", "flights", "--table", "flights") == set()

    assert sorted(workspace.table_store.manifest("validated/flights/flights").md5s) == days(1, 6)


@pytest.mark.slow
def test_an_ingest_of_no_new_rows_loads_neither_retries_nor_arrow_s_functions() -> None:
    script = """if True:
        import sys
        from headrace.ingest import ingest
        from headrace.ingest import table_source
        from headrace.ingest.database import postgresql, read_transaction
        print(sorted(set(sys.modules) & {"stamina", "tenacity", "pyarrow.compute", "pandas"}))
    """

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def loaded(place: Workspace, watched: set[str], *arguments: str) -> set[str]:
    """The `watched` modules that a command in this workspace loads."""
    script = f"""if True:
        import sys
        from headrace.cli import app
        app({list(arguments)!r}, standalone_mode=False)
        print(*sorted(set(sys.modules) & {watched!r}), sep="\\n", file=sys.stderr)
    """
    environment = {**os.environ, "PYTHONPATH": str(place.root), "HEADRACE_WORKSPACE": str(place.root)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=place.root, env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


DATASET_MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for folder in (REPOSITORY / "pipelines").iterdir()
    for path in folder.glob("sources/[a-z]*.py")
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["headrace.validate.columns", *(f"pipelines.{name}" for name in dataset_names()), *DATASET_MODULES]
)
def test_a_module_of_a_dataset_imports_contracts_without_what_dataframely_brings_along(module: str) -> None:
    """Also a module that is imported by itself, before anything of Headrace."""
    unwanted = {"numpy", "pandas", "sqlalchemy", "pydantic", "pyarrow", "hypothesis"}
    script = f"import {module}, sys; print(sorted(set(sys.modules) & {unwanted!r}))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_what_is_left_out_while_dataframely_is_imported_is_there_for_everybody_later() -> None:
    script = """if True:
        from headrace.project.loading import load_dataset
        load_dataset("flights")
        import numpy, numpy.linalg, pandas, polars, pyarrow, pydantic, sqlalchemy
        import dataframely
        dataframely.random.Generator()  # the lazy NumPy
        assert numpy.linalg.norm([3, 4]) == 5, sqlalchemy.select(1)
        print(polars.DataFrame({"a": [1]}).to_numpy().sum(), polars.DataFrame({"a": [1]}).to_pandas()["a"].sum())
    """

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "1 1\n"


def test_a_known_error_is_a_message_on_stderr_with_exit_code_1_and_no_stack_trace() -> None:
    done = run(REPOSITORY, "plan", "nope")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: There is no dataset 'nope' in ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_debug_shows_the_stack_trace_before_the_message() -> None:
    done = run(REPOSITORY, "--debug", "plan", "nope")

    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: There is no dataset 'nope' in ")


def test_an_error_that_may_pass_ends_with_exit_code_75_and_one_that_may_not_with_1(workspace: Workspace) -> None:
    workspace.raw.add_days(*days(1, 1))

    with workspace.table_store.lock_table("validated/flights/flights"):
        locked = run(workspace.root, "validate", "flights", "--table", "flights")
    missing = run(workspace.root, "validate", "flights", "--table", "nope")
    misspelt = run(workspace.root, "validate", "flights", "--tabel", "flights")

    assert [locked.returncode, missing.returncode, misspelt.returncode] == [75, 1, 2]


def test_who_asks_for_json_gets_the_error_as_the_last_line_of_standard_error_in_json(workspace: Workspace) -> None:
    workspace.raw.add_days(*days(1, 1))

    with workspace.table_store.lock_table("validated/flights/flights"):
        locked = run(workspace.root, "validate", "flights", "--table", "flights", "--json")
    missing = run(workspace.root, "plan", "nope", "--log-format", "json")

    assert locked.stdout == missing.stdout == ""
    error = json.loads(locked.stderr.splitlines()[-1])["error"]
    assert error["message"].startswith("validated/flights/flights is being written by another run")
    del error["message"]
    assert error == {"type": "TableLockedError", "transient": True, "exit_code": 75}
    error = json.loads(missing.stderr.splitlines()[-1])["error"]
    assert (error["type"], error["transient"], error["exit_code"]) == ("DatasetError", False, 1)


@pytest.mark.slow
def test_an_unknown_table_is_an_error_with_the_known_ones() -> None:
    done = run(REPOSITORY, "validate", "flights", "--table", "nope")

    assert "there is no table 'nope'. Its tables: flights, airports, weather, planes." in done.stderr


def test_plan_run_and_status_agree_in_json(workspace: Workspace) -> None:
    workspace.raw.add_days(*days(1, 2))

    plan = as_json(workspace, "plan", "flights")
    validated = as_json(workspace, "validate", "flights")
    transformed = as_json(workspace, "transform", "flights", "--table", "carrier_delays")
    status = as_json(workspace, "status", "flights")

    planned = {stage["table"]: sorted(stage["stale"]) for stage in plan["stages"]}
    assert planned["validated/flights/flights"] == planned["features/flights/carrier_delays"] == days(1, 2)
    for stage in (*validated["stages"], *transformed["stages"]):
        assert sorted(stage["computed"]) == planned[stage["table"]]
    totals = validated["stages"][0]["totals"]
    assert totals["rows_in"] == totals["rows"] + totals["rejected"] == 842 + 943
    assert status["tables"]["validated/flights/flights"]["rows"] == totals["rows"]


def test_a_plan_names_partitions_that_were_computed_by_a_run_that_died_before_it_added_them(
    workspace: Workspace,
) -> None:
    workspace.raw.add_days(*days(1, 1))
    table_store, (stage, *_) = workspace.table_store, graph.dataset_stages(workspace.dataset)
    compute = Executor(Settings(workspace=workspace.root, threads=1))
    compute(
        plan_stage(stage, table_store),
        table_store,
        lambda _partition, entry: table_store.append_to_journal(stage.table, entry),
    )

    planned = as_json(workspace, "plan", "flights")["stages"][0]
    lines = run(workspace.root, "plan", "flights").stdout

    assert planned["table"] == stage.table
    assert (planned["stale"], planned["computed_before"], planned["unchanged"]) == ({}, days(1, 1), 0)
    assert f"computed before, to be added: {days(1, 1)[0]}" in lines


def test_the_declarations_of_the_current_workspace_are_what_runs(workspace: Workspace) -> None:
    workspace.edit("pipelines/flights/__init__.py", '"""The dataset', 'raise SystemExit("this clone")\n"""The dataset')

    done = run(workspace.root, "plan", "flights")

    assert "this clone" in done.stderr


def test_doctor_shows_what_is_wrong_and_how_to_fix_it(workspace: Workspace) -> None:
    good = run(workspace.root, "doctor")
    workspace.edit(".dvc/config", "    verify = true\n", "")
    workspace.edit("dvc.yaml", "stages:", "stages:\n  flights-validate-wether:\n    cmd: headrace validate flights")

    bad = run(workspace.root, "doctor")

    assert good.returncode == 0, good.stdout
    assert bad.returncode == 1
    assert "dvc remote modify storage verify true" in bad.stdout
    assert "headrace dvc-sync" in bad.stdout


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("headrace")
    return subprocess.run(
        [program, *arguments], cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False
    )


def as_json(workspace: Workspace, *arguments: str) -> Any:  # noqa: ANN401  whatever the command answers
    done = run(workspace.root, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    content: Any = json.loads(done.stdout)
    return content


@pytest.mark.parametrize("command", ["plan", "status", "run", "ingest"])
def test_a_folder_that_is_no_project_is_named_even_where_datasets_can_be_imported(tmp_path: Path, command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("HEADRACE_WORKSPACE", None)

    done = subprocess.run(
        [sys.executable, "-m", "headrace", command, "flights"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert f"There is no project here: expected dvc.yaml and pipelines/__init__.py in {tmp_path}" in done.stderr
