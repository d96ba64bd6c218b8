"""Names of runs are parts of refs and folders; two ids never become one."""

import subprocess
from string import printable

import pytest

from headrace.runs.names import RUN_NAME, new_run_name, run_name

AIRFLOW_IDS = (
    "scheduled__2026-11-30T06:00:00+00:00",
    "scheduled__2026-11-30T06:00:00.000000+00:00",
    "manual__2026-11-30T06:00:00+00:00_xYz",
    "asset_triggered__2026-11-30T06:00:00+00:00",
    "a run of my own / with ünïcode.lock",
    "..",
    "@{1}",
    "new",
    "",
    "x" * 250,
)


@pytest.mark.parametrize("text", AIRFLOW_IDS)
def test_any_text_becomes_a_part_of_a_ref_and_its_name_stays_the_same_from_then_on(text: str) -> None:
    name = run_name(text)

    assert RUN_NAME.fullmatch(name)
    assert run_name(name) == name
    subprocess.run(["git", "check-ref-format", f"refs/headrace/runs/flights/{name}/start"], check=True)


def test_texts_that_differ_get_names_that_differ() -> None:
    texts = {*AIRFLOW_IDS, *printable, *(f"a{letter}b" for letter in printable), "x" * 251, "A-B", "a-b", "a_b"}

    assert len({run_name(text) for text in texts}) == len(texts)


def test_the_name_of_a_run_of_airflow_can_be_read() -> None:
    name = run_name("scheduled__2026-11-30T06:00:00+00:00")

    assert name.startswith("scheduled__2026-11-30t06-00-00-00-00-")
    assert len({new_run_name() for _ in range(100)}) == 100
