"""`headrace init`: a project that runs at once, is there completely or not at all, and refuses what it cannot make."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from projects import Project
from workspaces import REPOSITORY

import headrace
from headrace.templates import create_project as module
from headrace.templates.create_project import ProjectError, create_project, project_files

TOP_LEVEL = {
    ".dvc", ".dvcignore", ".env.example", ".git", ".github", ".gitignore", "Makefile", "README.md", "dags", "dvc.yaml",
    "feature_repo", "headrace.lock", "infra", "params.yaml", "pipelines", "pyproject.toml", "tests",
}  # fmt: skip
COPIES = (".env.example", ".dvc/.gitignore", "dags/labels.py", "dags/refresh.py", "feature_repo/definitions.py")
"""Files that this repository has too, as every project has them."""


def test_a_new_project_has_the_layout_of_every_project_in_one_commit(project: Project) -> None:
    assert {path.name for path in project.root.iterdir()} == TOP_LEVEL
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "log", "--format=%s") == f"Start shop with Headrace {headrace.__version__}"
    assert git(project, "rev-parse", "--abbrev-ref", "HEAD") == "main"


@pytest.mark.slow
def test_the_example_runs_without_a_server_and_the_second_time_does_nothing(project: Project) -> None:
    first, second = project.headrace("run", "bikes"), project.headrace("run", "bikes")

    assert "validated/bikes/rentals: 5 computed" in first
    assert "119 rows, 120 rows in, 1 rejected" in first
    assert "features/bikes/station_demand: 5 computed" in first
    assert "read 0" in second
    assert second.count("nothing to do") == 2
    assert git(project, "status", "--porcelain") == "", "git ignores the tables"


@pytest.mark.slow
def test_a_changed_file_of_the_example_makes_its_day_and_those_that_look_back_on_it_anew(project: Project) -> None:
    project.headrace("run", "bikes")
    day = project.root / "pipelines/bikes/sample/rentals/2026-01-04.csv"
    day.write_text(day.read_text().replace(",museum,", ",harbour,", 1))

    output = project.headrace("run", "bikes")

    assert "1 changed" in output
    assert "validated/bikes/rentals: 1 computed (2026-01-04)" in output
    assert "features/bikes/station_demand: 2 computed (2026-01-04, 2026-01-05)" in output


@pytest.mark.slow
def test_lineage_of_the_example_leads_to_its_files(project: Project) -> None:
    project.headrace("run", "bikes")

    output = project.headrace("lineage", "bikes", "--table", "raw/rentals", "--partition", "2026-01-04")

    assert "file:pipelines/bikes/sample/rentals/2026-01-04.csv" in output


def test_its_code_is_clean_and_formatted_by_its_own_settings(project: Project) -> None:
    project.run("ruff", "check", "--no-cache")
    project.run("ruff", "format", "--check", "--no-cache")


@pytest.mark.slow
def test_its_own_tests_pass(project: Project) -> None:
    """All but those that import Airflow and Feast, which the slow lane runs from the wheel."""
    output = project.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not dag and not feast")

    assert re.search(r"\d+ passed", output)


def test_it_pins_the_engine_that_made_it(project: Project) -> None:
    declared = tomllib.loads((project.root / "pyproject.toml").read_text())["project"]

    assert declared["name"] == "shop"
    assert declared["dependencies"] == [f"headrace[all]=={headrace.__version__}"]


def test_its_dvc_remote_is_a_prefix_of_its_own_in_the_bucket_of_the_stack(project: Project) -> None:
    ours, theirs = (config.read_text() for config in (REPOSITORY / ".dvc/config", project.root / ".dvc/config"))

    assert theirs == ours.replace("s3://headrace/dvc", "s3://headrace/shop/dvc")


@pytest.mark.parametrize("path", COPIES)
def test_files_that_every_project_has_are_those_of_this_repository(project: Project, path: str) -> None:
    """After a change of one, copy it to `headrace/templates/project/`."""
    assert (project.root / path).read_text() == (REPOSITORY / path).read_text()


def test_its_feature_store_differs_in_its_name_alone(project: Project) -> None:
    ours, theirs = ((root / "feature_repo/feature_store.yaml").read_text() for root in (REPOSITORY, project.root))

    assert theirs == ours.replace("project: headrace\n", "project: shop\n")


def test_its_files_for_compose_and_helm_change_what_the_engine_s_have(project: Project) -> None:
    compose, values = (
        (yaml.safe_load((REPOSITORY / ours).read_text()), yaml.safe_load((project.root / theirs).read_text()))
        for ours, theirs in (
            ("infra/compose.yaml", "infra/compose.override.yaml"),
            ("infra/helm/airflow-values.yaml", "infra/airflow-values.yaml"),
        )
    )

    assert unknown(compose[1]["services"], compose[0]["services"]) == []
    mounted = [volume.rsplit(":", 2)[-2:] for volume in compose[1]["services"]["workspace"]["volumes"]]
    assert mounted == [["/repository", "ro"]]
    assert unknown(values[1], values[0]) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Shop", "`headrace init shop`?"),
        ("2shop", "`headrace init shop`?"),
        ("my shop", "`headrace init my-shop`?"),
        ("../shop", "`headrace init shop`?"),
        ("", "Next: `headrace init NAME`."),
        ("-", "Next: `headrace init NAME`."),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_one_that_can(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(ProjectError, match=re.escape(hint)):
        create_project(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/notes").write_text("mine")

    with pytest.raises(ProjectError, match="exists and is not an empty folder"):
        create_project("shop", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["shop", "notes"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()

    assert (create_project("shop", tmp_path) / "pipelines/bikes").is_dir()


def test_a_project_is_not_made_in_another_one_nor_in_a_git_repository(project: Project, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "repository")], check=True)

    with pytest.raises(ProjectError, match=r"is in the project .*headrace new NAME --from SAMPLE"):
        create_project("other", project.root / "pipelines")
    with pytest.raises(ProjectError, match="is in the git repository"):
        create_project("other", tmp_path / "repository")


@pytest.mark.slow
def test_what_an_interrupted_run_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_project: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_sync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            create_project("shop", tmp_path)
    assert list(tmp_path.iterdir()) == []

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    killed, running = (tmp_path / f".shop.{process}.new" for process in (dead.pid, os.getppid()))
    for left in (killed, running):
        left.mkdir()
    create_project("shop", tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([running.name, "shop"])


def test_no_placeholder_is_left_in_any_file() -> None:
    assert [path for path, text in project_files("my-shop").items() if "@@" in text] == []


@pytest.mark.slow
def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("headrace")
    done = subprocess.run([program, "init", "shop"], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert [line.split("#")[0].strip() for line in done.stdout.splitlines()[1:]] == [
        "cd shop",
        "headrace run bikes",
        "headrace new NAME --from SAMPLE",
    ]


def unknown(found: object, known: object) -> list[object]:
    """Keys of nested mappings that the other does not have."""
    if not (isinstance(found, dict) and isinstance(known, dict)):
        return []
    return [key for key in found if key not in known] + [
        name for key in found.keys() & known.keys() for name in unknown(found[key], known[key])
    ]


def git(project: Project, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=project.root, capture_output=True, text=True, check=True
    ).stdout.strip()
