"""The wheel alone, in an empty environment: the page that starts a project, run as it stands, to a second clone.

Nothing of this repository is on the path. Packages have the versions of our lock.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import S3
from wheels import REPOSITORY, Environment, build_wheel, copy_working_tree, s3_variables

import headrace

pytestmark = pytest.mark.slow_lane

PAGE = REPOSITORY / "docs/start-a-project.md"


@dataclass(frozen=True)
class StartedProject:
    """A project that was made, run and released as the page says, and what each command printed."""

    environment: Environment
    root: Path
    printed: dict[str, str]

    def run(self, *command: str) -> str:
        return self.environment.run(self.root, *command)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    wheel = build_wheel(copy_working_tree(tmp_path_factory.mktemp("source")))
    return Environment.with_wheel(tmp_path_factory.mktemp("environment") / "venv", wheel, "airflow", "feast")


@pytest.fixture(scope="module")
def started(environment: Environment, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> StartedProject:
    """Every command of the page, in its order. `cd` changes the folder; the remotes are there from then on."""
    folder, bucket, printed = tmp_path_factory.mktemp("started"), s3.new_bucket().name, dict[str, str]()
    with (folder / "orders.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["order_id", "shop", "ordered_at", "amount"])
        rows.writerows(
            [number, f"shop {number % 3}", f"2026-01-{number % 28 + 1:02}T10:00:00Z", 5] for number in range(90)
        )
    environment.run(folder, "git", "init", "--quiet", "--bare", "--initial-branch", "main", "origin.git")
    root = folder
    for line in commands():
        if line.startswith("cd "):
            root /= line.removeprefix("cd ")
            environment = environment.with_variables(**s3_variables(s3, bucket, root))
            environment.run(root, "git", "remote", "add", "origin", str(folder / "origin.git"))
            continue
        printed[line] = environment.run(root, "sh", "-c", line)
    return StartedProject(environment, root, printed)


def commands() -> list[str]:
    """The lines of the page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines()]


def test_the_engine_is_the_wheel_and_knows_its_version(environment: Environment, tmp_path: Path) -> None:
    where = environment.run(tmp_path, "python", "-c", "import headrace, sys; print(headrace.__file__, *sys.path)")

    assert str(environment.root) in where.split()[0]
    assert str(REPOSITORY) not in where
    assert headrace.__version__ in environment.run(tmp_path, "headrace", "--version")


def test_every_command_of_the_page_does_what_the_page_says(started: StartedProject) -> None:
    printed = started.printed

    assert "shop: a project with one example dataset" in printed["headrace init shop"]
    assert "119 rows, 120 rows in, 1 rejected" in printed["headrace run bikes"]
    assert printed["headrace plan bikes"].count("up to date") == 2
    assert "What was assumed" in printed["headrace new orders --from ../orders.csv"]
    assert "90 rows in, 0 rejected" in printed["headrace run orders"]
    assert "bikes/1 released" in printed["headrace release bikes"]
    assert "orders/1 released" in printed["headrace release orders"]


def test_a_second_clone_pulls_the_tables_and_repro_finds_nothing_to_do(started: StartedProject, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    started.run("git", "clone", "--quiet", "../origin.git", str(clone))
    local = (started.root / ".dvc/config.local").read_text()
    (clone / ".dvc/config.local").write_text(local)

    started.environment.run(clone, "dvc", "pull", "--quiet")
    repro = started.environment.run(clone, "dvc", "repro")

    assert tables(clone) == tables(started.root)
    assert len(tables(clone)) > 15
    assert "up to date" in repro
    assert "Running stage" not in repro
    assert started.environment.run(clone, "git", "status", "--porcelain") == ""


def test_the_project_s_own_tests_pass(started: StartedProject) -> None:
    told = started.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider")

    assert re.search(r"\d+ passed", told)
    assert "skipped" not in told, "Airflow and Feast are installed"


def tables(root: Path) -> dict[str, bytes]:
    """Path → content of all tables."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted((root / "data").rglob("*"))
        if path.is_file() and path.suffix not in {".dvc", ".gitignore"}
    }
