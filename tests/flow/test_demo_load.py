"""`headrace demo load`: the demo's data in a stack that runs, for a person to look at."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

import headrace
from headrace.stack import control
from headrace.stack.paths import StackPaths
from headrace.stack.state import read_state
from infra.demo.seed_sources import stack_s3

pytestmark = [pytest.mark.server, pytest.mark.slow]

ENGINE = Path(headrace.__file__).parents[1]
HEADRACE = Path(sys.executable).with_name("headrace")


def demo_load(*options: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PYTHONPATH": str(ENGINE)}
    command = [str(HEADRACE), "demo", "load", *options]
    done = subprocess.run(command, cwd=ENGINE, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    control.down(tmp_path / "home")


@pytest.mark.slow_lane
def test_days_arrive_once_and_more_can_follow(home: Path) -> None:
    with control.running(home, ["s3", "postgres"], project=ENGINE) as env:
        first = demo_load("--days", "1", "--home", str(home))
        second: Any = json.loads(demo_load("--days", "2", "--home", str(home), "--json").stdout)
        bucket = stack_s3(env)
        flights = bucket.list_objects_v2(Bucket=env["HEADRACE_BUCKET"], Prefix="flights/")["Contents"]
        with psycopg.connect(env["HEADRACE_DATABASE_URL"].replace("+psycopg", "")) as source:
            weather = source.execute("SELECT count(*) FROM weather").fetchone()

    assert "flights of 2013-01-01 to 2013-01-01: 842" in first.stdout
    assert "Next: " in first.stdout
    assert [item["Key"] for item in flights] == ["flights/2013-01-01.csv.gz", "flights/2013-01-02.csv.gz"]
    assert second["objects"]["flights"] == {"new": 1, "replaced": 0, "unchanged": 1}
    assert second["objects"]["digits"] == {"new": 0, "replaced": 0, "unchanged": 60}
    assert second["rows"]["planes"] == {"new": 0, "unchanged": 3322}
    assert weather == (sum(second["rows"]["weather"].values()),)


def test_without_a_stack_or_with_impossible_days_it_says_what_to_do(home: Path) -> None:
    stopped = demo_load("--home", str(home), code=1)

    assert "never started, and not healthy: expected it to run" in stopped.stderr
    assert f"Next: `headrace stack up --home {home}`." in stopped.stderr
    for days in ("0", "366", "1e12"):
        assert "--days" in demo_load("--days", days, "--home", str(home), code=2).stderr


def test_a_project_without_demo_data_says_so(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "pipelines").mkdir(parents=True)
    for marker in ("dvc.yaml", "pipelines/__init__.py"):
        (project / marker).touch()

    with control.running(home, ["s3", "postgres"], project=project):
        assert "has no demo data: expected infra/demo/load.py" in demo_load("--home", str(home), code=1).stderr


def test_a_browser_sees_the_objects_with_the_user_and_password_that_up_prints(home: Path) -> None:
    with control.running(home, ["s3-browser"]):
        (home / "stack" / "s3" / "headrace" / "flights").mkdir()
        state = read_state(StackPaths(home))
        page = next(endpoint for endpoint in state.endpoints if endpoint.name == "S3 browser") if state else None
        assert page
        listing = httpx.get(f"{page.address}/headrace/", auth=(page.user, page.password))
        stranger = httpx.get(f"{page.address}/headrace/")

    assert listing.status_code == httpx.codes.OK
    assert "flights/" in listing.text
    assert stranger.status_code == httpx.codes.UNAUTHORIZED
