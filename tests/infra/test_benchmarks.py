"""The harness of the benchmarks: what a figure contains, and what the page of results says of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import measure
import pytest
import results
from measure import Contender, Cost, Report, counted_servers, measure_call, median_cost, run_interleaved
from workspaces import REPOSITORY

SERVER = """
import sys, time
for _ in sys.stdin:
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    print(flush=True)
"""
PARENT = """
import os
child = os.fork()
if not child:
    sum(range(10**7))
    os._exit(0)
os.waitpid(child, 0)
print(flush=True)
input()
"""


def python(code: str) -> "subprocess.Popen[str]":
    """Code in a process with pipes."""
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def programs(log: Path, *names: str) -> list[Contender]:
    """Programs that append their name to a file."""
    return [Contender(name, ["sh", "-c", f"echo {name} >> {log}"]) for name in names]


def test_contenders_take_turns_in_alternating_order(tmp_path: Path) -> None:
    costs = run_interleaved(programs(tmp_path / "log", "a", "b"), 3)
    assert (tmp_path / "log").read_text().split() == ["a", "b", "b", "a", "a", "b"]
    assert {cost.runs for cost in costs.values()} == {3}


def test_a_figure_is_the_median_and_has_its_range() -> None:
    cost = median_cost([Cost(3, 1, 1, 1), Cost(1, 1, 1, 1), Cost(2, 1, 1, 5)])
    assert (cost.cpu_s, cost.server_s, cost.spread_s) == (2, 1, (2, 7))


def test_the_cpu_of_a_server_is_part_of_a_cost() -> None:
    with python(SERVER) as server:
        stdin, stdout = server.stdin, server.stdout
        assert stdin
        assert stdout

        def ask() -> None:
            stdin.write("\n")
            stdin.flush()
            stdout.readline()

        ask()
        with counted_servers([server.pid]):
            cost = measure_call(ask)
        ignored = measure_call(ask)
        stdin.close()
    assert cost.server_s == pytest.approx(0.1, abs=0.05)
    assert cost.total_s == cost.cpu_s + cost.server_s
    assert ignored.server_s == 0


def test_the_cpu_of_a_server_includes_children_that_ended() -> None:
    with python(PARENT) as server:
        assert server.stdout
        server.stdout.readline()
        used = measure.tree_cpu_s(server.pid)
        server.kill()
    assert used > 0.05  # a sum of ten million takes longer


def report_of(name: str, fill: Callable[[Report], None], capsys: pytest.CaptureFixture[str]) -> results.Json:
    """A report as a script prints it with `--json`."""
    report = Report(name, as_json=True)
    fill(report)
    report.end()
    printed: results.Json = json.loads(capsys.readouterr().out)
    return {**printed, "options": ["--repeats", "3"], "commit": "0123"}


def test_the_page_says_in_words_which_targets_are_met_and_what_was_not_checked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fill(report: Report) -> None:
        report.table("some work", {"ours": Cost(1, 2, 30, 0.5), "peer": Cost(3, 4, 50)}, "ours")
        report.target("ours / peer", 0.5, 0.6)
        report.target("ours / the best", 0.7, 0.6)
        report.figure("CPU of a row", 12.3, "µs")
        report.leave_out("a peer", "not installed")

    page = results.render({"cores": "2"}, {"ingest": report_of("ingest", fill, capsys)})
    assert "| ingest | some work: ours / peer | 0.5 | 0.6 | met |" in page
    assert "| ingest | some work: ours / the best | 0.7 | 0.6 | missed |" in page
    assert "2 ratios: 1 met, 1 missed." in page
    assert "| ours | 1.00 + 0.50 | 1.50 to 1.50 | 2.00 | 30 | 1.00 |" in page
    assert "| peer | 3.00 | 3.00 to 3.00 | 4.00 | 50 | 2.00 |" in page
    assert "| CPU of a row | 12.3 µs |" in page
    assert "- not checked here: a peer: not installed" in page
    assert "- not checked here: `publish.py`: not run since the code changed, or it failed" in page


def test_the_page_names_no_host_and_no_folder() -> None:
    import platform  # noqa: PLC0415

    text = " ".join(results.read_machine().values())
    assert platform.node() not in text
    assert str(REPOSITORY) not in text


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ("headrace/storage/files.py", False), ("requirements/dev.txt", False), ("benchmarks/measure.py", False),
        ("benchmarks/ingest.py", False), ("benchmarks/publish.py", True), ("benchmarks/results.py", True),
        ("docs/why.md", True), ("tests/conftest.py", True),
    ],
)  # fmt: skip
def test_a_report_is_used_until_what_it_measured_changes(
    changed: str, holds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "REPOSITORY", tmp_path)
    (tmp_path / changed).parent.mkdir(parents=True)
    (tmp_path / changed).touch()
    results.run_git("init", "--quiet")
    results.run_git("add", ".")
    results.run_git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "one")
    head = results.run_git("rev-parse", "--short=12", "HEAD")
    assert results.still_holds("ingest", head)
    (tmp_path / changed).write_text("other")
    assert results.still_holds("ingest", head) == holds
    assert not results.still_holds("ingest", f"{head} with changes")


SMALL_TRANSFORM = """
import os, transform
transform.DAYS = 2
transform.prepare("1 1")
os.rename("prepared", "run")
transform.run("run")
"""


@pytest.mark.slow
def test_what_transform_measures_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "benchmarks")))
    subprocess.run(
        [sys.executable, "-c", SMALL_TRANSFORM], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=True
    )
    assert len(list((tmp_path / "run/data/features/flights/carrier_delays").glob("*.parquet"))) == 2


def test_every_script_of_the_folder_is_run() -> None:
    scripts = {path.stem for path in (REPOSITORY / "benchmarks").glob("*.py") if "create_parser(" in path.read_text()}
    assert scripts - {"measure"} == set(results.SCRIPTS)


@pytest.mark.slow_lane
@pytest.mark.parametrize("name", results.SCRIPTS)
def test_every_script_has_the_common_options(name: str) -> None:
    command = [sys.executable, str(REPOSITORY / f"benchmarks/{name}.py"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(option in shown for option in ("--full", "--json", "--repeats"))
