"""The demo: real data, real servers, a real scheduler; a summary at its end, and nothing is left running."""

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from pathlib import Path

import polars as pl
import psutil
import psycopg
import pytest
from servers import HOST, S3, PostgreSQL, wait_until
from stack_processes import listening_addresses
from workspaces import git

from headrace.stack import control
from headrace.stack.paths import StackPaths
from headrace.stack.state import read_state
from headrace.validate.validate_partition import validate_frame
from infra.demo.airflow_client import AirflowClient
from infra.demo.data import FlightYear, csv_object, with_correction
from infra.demo.seed_sources import SourceSystems, flights_key
from infra.demo.simulated_annotators import ERROR_RATES, choose_answer, true_cause
from pipelines.flights.sources import flights

DAY = date(2013, 1, 9)


@pytest.fixture(scope="session")
def year() -> FlightYear:
    return FlightYear.installed()


# The data


@pytest.mark.slow
def test_a_day_is_the_same_bytes_every_time_with_the_text_of_the_original(year: FlightYear) -> None:
    content = csv_object(year.flights[DAY])

    lines = gzip.decompress(content).decode().splitlines()

    with zipfile.ZipFile(year.folder / "flights.csv.zip") as archive:
        columns, *rows = archive.read("flights.csv").decode().splitlines()
    assert content == csv_object(FlightYear(year.folder).flights[DAY])
    assert lines == [columns, *(row for row in rows if row.startswith("2013,1,9,"))]
    assert len(lines) == 1 + 902


@pytest.mark.slow
def test_a_correction_changes_five_flights_and_all_rows_still_keep_the_contract(
    year: FlightYear, tmp_path: Path
) -> None:
    before, after = year.flights[DAY], with_correction(year.flights[DAY])
    (tmp_path / "day.csv.gz").write_bytes(csv_object(after))

    result = validate_frame(flights.read(tmp_path / "day.csv.gz"), flights.SOURCE, DAY.isoformat())

    assert sum(old != new for old, new in zip(before.rows(), after.rows(), strict=True)) == 5
    assert result.rejected.height == 0


def test_the_weather_of_a_day_comes_with_the_day_and_was_written_down_an_hour_later(year: FlightYear) -> None:
    rows = year.weather_on([DAY])

    assert set(rows.select("month", "day").rows()) == {(1, 9)}
    assert set(rows["updated_at"] - rows["time_hour"]) == {timedelta(hours=1)}


def test_no_aircraft_is_in_the_register_before_it_was_built(year: FlightYear) -> None:
    built = pl.datetime(pl.col("year"), 1, 1, time_unit="us", time_zone="UTC")

    assert year.planes["tailnum"].n_unique() == year.planes.height == 3322
    assert year.planes.filter(pl.col("updated_at") < built).is_empty()
    entered = year.planes.filter(pl.col("year") == 2013)["updated_at"]
    assert (entered.len(), entered.min()) == (92, datetime(2013, 1, 18, tzinfo=UTC))
    assert set(year.planes.filter(pl.col("year").ne_missing(2013))["updated_at"]) == {datetime(2013, 1, 1, tzinfo=UTC)}


def test_days_arrive_once_and_can_be_corrected_and_taken_back(year: FlightYear, s3: S3, postgres: PostgreSQL) -> None:
    bucket = s3.new_bucket()
    database = postgres.new_database()
    sources = SourceSystems.connect(
        {
            "AWS_ENDPOINT_URL": s3.endpoint,
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "HEADRACE_BUCKET": bucket.name,
            "HEADRACE_DATABASE_URL": postgres.address(database),
        },
        year,
    )
    sources.create()

    counted = [sources.add_days([DAY, date(2013, 1, 10)]) for _ in range(2)]
    first = bucket.head(flights_key(DAY))
    sources.correct_day(DAY)
    sources.delete_day(date(2013, 1, 10))

    assert counted[0] == counted[1] == 902 + 932
    assert [found.key for found in bucket.list("flights/")] == [flights_key(DAY)]
    assert bucket.head(flights_key(DAY)) != first
    with psycopg.connect(sources.database) as connection:
        assert connection.execute("SELECT count(*) FROM planes").fetchone() == (3322,)
        assert connection.execute("SELECT count(DISTINCT day), count(*) FROM weather").fetchone() == (2, 144)


# The annotators


def test_the_right_answer_follows_from_what_the_record_says() -> None:
    calm = {"scheduled_at": "2013-01-03 19:59", "dep_delay_min": 90, "wind_speed_mph": 5.0}
    in_the_afternoon = {**calm, "scheduled_at": "2013-01-03 20:00"}

    assert true_cause({**calm, "wind_speed_mph": 20.0}) == true_cause({**calm, "visibility_miles": 2.9}) == "weather"
    assert true_cause(calm) == "carrier"
    assert true_cause(in_the_afternoon) == "late_aircraft"
    assert true_cause({**in_the_afternoon, "dep_delay_min": 150}) == "carrier"


def test_annotators_err_as_often_as_stated_and_each_by_itself() -> None:
    items, choices = [f"item-{number}" for number in range(20_000)], ["right", "a", "b", "c", "d"]
    answers = {name: [choose_answer(name, item, "right", choices) for item in items] for name in ERROR_RATES}

    wrong = {name: [answer not in {"right", None} for answer in given] for name, given in answers.items()}
    for name, rate in ERROR_RATES.items():
        given = sum(answer is not None for answer in answers[name])
        assert sum(wrong[name]) / given == pytest.approx(rate, rel=0.1)
    for one, other in combinations(ERROR_RATES, 2):
        both = [pair for pair in zip(answers[one], answers[other], strict=True) if not {"right", None} & {*pair}]
        assert len(both) / len(items) == pytest.approx(ERROR_RATES[one] * ERROR_RATES[other], rel=0.2)
        assert sum(first == second for first, second in both) / len(both) == pytest.approx(1 / 4, rel=0.2)


# The whole


@dataclass(frozen=True)
class FinishedDemo:
    """A demo that has run to its end."""

    repository: Path
    code: int
    output: str


@pytest.fixture(scope="module")
def finished(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedDemo]:
    with clone_working_tree(template, tmp_path_factory.mktemp("demo")) as repository, demo(repository) as process:
        output, _ = process.communicate()
        yield FinishedDemo(repository, process.returncode, output)


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Iterator[Path]:
    with clone_working_tree(template, tmp_path) as clone:
        yield clone


@contextmanager
def clone_working_tree(template: Path, folder: Path) -> Iterator[Path]:
    """The working tree in a clone, for a demo of its own."""
    git(folder, "clone", "--quiet", str(template), "repository")
    yield folder / "repository"
    control.down(folder / "repository" / ".headrace" / "demo")


def demo(repository: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(repository), "COLUMNS": "140"}
    command = [sys.executable, "-m", "infra.demo"]
    return subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.PIPE, text=True)


def left_running(repository: Path) -> list[str]:
    """Processes of the demo's stack that still run, and any whose arguments or working folder are in its clone."""
    state = read_state(StackPaths(repository / ".headrace" / "demo"))
    recorded = [state.watchdog, *(server.process for server in state.servers)] if state else []
    there = [
        " ".join(process.info["cmdline"] or [str(process)])
        for process in psutil.process_iter(["cmdline", "cwd"])
        if any(str(repository) in place for place in (*(process.info["cmdline"] or ()), process.info["cwd"] or ""))
    ]
    return [*there, *(str(process) for process in recorded if process.is_running())]


@pytest.mark.slow_lane
@pytest.mark.timeout(600)
def test_the_demo_carries_real_data_the_whole_way_and_ends_with_nothing_running(finished: FinishedDemo) -> None:
    assert finished.code == 0, finished.output
    assert left_running(finished.repository) == []
    assert "rejected airports: 1 of 1,458 by lon_suits_tz (faa EEN," in finished.output
    assert "flights_release: flights/1, flights/2, flights/3" in finished.output
    assert re.search(r"2\d labels, \d skipped, \d rejected", finished.output)
    for question in ("delay_cause", "digit"):
        found = re.search(rf"{question}: labels (\d+\.\d)% right against the hidden truth", finished.output)
        assert found
        assert float(found[1]) > 80
        assert re.search(
            rf"{question}: \d+ answers to (24|40) items, alpha 0\.\d\d; [1-9]\d* sent back", finished.output
        )
    gain = re.search(r"(\S+)% less log loss than predicting the base rate", finished.output)
    assert gain
    assert float(gain[1]) > 0


@pytest.mark.slow_lane
@pytest.mark.timeout(600)
def test_the_second_refresh_computes_only_what_a_new_a_corrected_and_a_deleted_day_concern(
    finished: FinishedDemo,
) -> None:
    found = re.finditer(r"^  (\w+ \w+) {2,}(\d.*)$", finished.output, flags=re.MULTILINE)
    rows = {row[1]: row[2].split() for row in found}

    # read or computed by the first refresh, by the second, reused, removed
    assert rows["raw flights"] == ["14", "2", "12", "1"]
    assert rows["raw planes"] == ["1", "0", "1", "0"]
    assert rows["validated weather"][:4] == ["15", "2", "14", "0"]
    assert rows["features carrier_delays"][:4] == ["14", "6", "8", "1"]
    assert rows["features origin_weather"][:4] == ["15", "2", "14", "0"]


@pytest.mark.slow_lane
@pytest.mark.timeout(600)
def test_the_demo_leaves_a_clone_with_every_release_whose_tables_dvc_pulls(finished: FinishedDemo) -> None:
    home = finished.repository / ".headrace" / "demo"
    workspace = home / "workspace"

    shown = {path.parents[1].name for path in workspace.glob("data/*/*/*/_manifest")}
    with control.running(home, ["s3", "postgres"], project=finished.repository) as env:
        status = run(workspace, env, "headrace", "status", "flights")
        run(workspace, env, "dvc", "pull")
        compared = run(workspace, env, "dvc", "status")

    assert shown == {"digits"}, "the runs of Airflow leave no tables in the clone"
    assert re.search(r"labels/flights/delay_cause: 1\d? partitions .* 2\d rows", status)
    assert "unreleased" not in status
    assert "up to date" in compared
    assert git(workspace, "status", "--porcelain") == ""
    assert len(git(workspace, "worktree", "list").splitlines()) == 1
    assert git(workspace, "ls-remote", "origin", "refs/headrace/runs*") == ""
    assert git(workspace, "tag", "--list", "flights/*").split() == ["flights/1", "flights/2", "flights/3"]
    assert 20 <= pl.read_parquet(workspace / "data/labels/flights/delay_cause/*.parquet").height <= 24
    assert git(workspace, "tag", "--list", "digits/*").split() == ["digits/1"]


@pytest.mark.slow_lane
@pytest.mark.timeout(600)
def test_after_airflow_a_fresh_clone_pulls_and_repro_does_no_work(finished: FinishedDemo, tmp_path: Path) -> None:
    home = finished.repository / ".headrace" / "demo"

    with control.running(home, ["s3"], project=finished.repository) as env:
        clone = clone_as_colleague(home, tmp_path)
        run(clone, env, "dvc", "pull")
        said = run(clone, env, "dvc", "repro")

    assert "Running stage" not in said
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.slow_lane
@pytest.mark.timeout(600)
def test_after_a_researchers_repro_and_push_airflow_does_no_work(finished: FinishedDemo, tmp_path: Path) -> None:
    home = finished.repository / ".headrace" / "demo"

    with control.running(home, project=finished.repository) as env:
        clone = clone_as_colleague(home, tmp_path)
        run(clone, env, "dvc", "pull")
        contract = clone / "pipelines/flights/sources/weather.py"
        contract.write_text(
            contract.read_text().replace("wind_speed = _measured(0, 200)", "wind_speed = _measured(0, 24)")
        )
        reran = run(clone, env, "dvc", "repro")
        run(clone, env, "dvc", "push")
        git(clone, "commit", "--quiet", "--all", "--message", "Less wind")
        git(clone, "push", "--quiet", "origin", "main")

        airflow = AirflowClient.connect(env, home / "logs" / "airflow")
        with airflow.client:
            airflow.wait_for_dags(["flights_refresh"])
            refresh = airflow.trigger("flights_refresh")
            airflow.follow(refresh, lambda _tasks: None)
            listening = listening_addresses(home)  # of every system, and after a task has run
            tasks = ("tables.validate", "tables.transform", "release.release")
            found = {task: airflow.task_result(refresh, task) for task in tasks}

    assert "Running stage 'flights-validate-weather'" in reran
    for task in ("tables.validate", "tables.transform"):
        assert [stage["table"] for stage in found[task]["stages"] if stage["computed"] or stage["removed"]] == []
    assert found["release.release"]["name"] == "flights/4"
    assert found["release.release"]["pushed"]["objects"] == 0, "the researcher's bytes were there already"
    assert set(listening) == {HOST}


def clone_as_colleague(home: Path, folder: Path) -> Path:
    """A fresh clone of the demo's origin, with the keys to its remote."""
    git(folder, "clone", "--quiet", str(home / "origin.git"), "colleague")
    shutil.copy(home / "workspace/.dvc/config.local", folder / "colleague/.dvc/config.local")
    return folder / "colleague"


def run(folder: Path, env: Mapping[str, str], program: str, *arguments: str) -> str:
    """What a program of this environment prints, run with the stack's storage, but on this machine's threads."""
    tools = Path(sys.executable).parent
    ours = {name: value for name, value in env.items() if name != "DASK_SCHEDULER_ADDRESS"}
    environment = {**os.environ, **ours, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = [str(tools / program), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow_lane
def test_an_interrupted_demo_leaves_nothing_running(repository: Path) -> None:
    with demo(repository) as process:
        for line in process.stdout or ():
            if "postgres" in line:
                assert wait_until(lambda: any("postgres" in each for each in left_running(repository)))
                process.send_signal(signal.SIGINT)
                break
        output, _ = process.communicate()

    assert process.returncode == 130
    assert "nothing is left running" in output
    assert left_running(repository) == []


@pytest.mark.slow_lane
def test_a_demo_whose_task_fails_says_which_shows_the_end_of_its_log_and_stops_everything(repository: Path) -> None:
    with (repository / "pipelines" / "flights" / "__init__.py").open("a") as code:
        code.write("import sys\nif 'ingest' in sys.argv:\n    raise RuntimeError('broken on purpose')\n")
    git(repository, "commit", "--quiet", "--all", "--message", "Break it")

    with demo(repository) as process:
        output, _ = process.communicate()

    assert process.returncode == 1
    assert "flights_refresh: the task tables.ingest (Ingest) failed" in output
    assert "RuntimeError: broken on purpose" in output
    assert "attempt=1.log" in output
    assert left_running(repository) == []


@pytest.mark.slow
def test_a_folder_that_is_no_stack_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    done = subprocess.run(
        [sys.executable, "-m", "infra.demo", "--home", str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "holds no stack, so it is not removed" in done.stdout
    assert (tmp_path / "thesis.txt").exists()
