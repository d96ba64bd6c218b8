"""Workspaces for the tests: a clone of the working tree, with an origin and a DVC remote; a pytest plug-in."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from projects import Project
from raw_data import RawPartitions, days
from servers import S3

from headrace.dataset import Dataset
from headrace.engine.run import StageResult, run_stage
from headrace.project import dvc_stages, graph
from headrace.project.executors import Executor
from headrace.project.loading import load_dataset
from headrace.release.release import create_release
from headrace.settings import Settings
from headrace.storage.files import load_yaml
from headrace.storage.table_store import TableStore
from headrace.workspace import MARKERS

REPOSITORY = Path(__file__).resolve().parents[2]
DAYS = days(1, 3)


def mark_as_project(root: Path) -> None:
    """Add the empty files that make a folder a project."""
    for marker in MARKERS:
        (root / marker).parent.mkdir(parents=True, exist_ok=True)
        (root / marker).touch()


@dataclass(frozen=True)
class Workspace:
    """A git clone in which stages run, with its data."""

    root: Path
    remote: S3
    bucket: str

    @property
    def table_store(self) -> TableStore:
        """The workspace's tables, opened again on each access."""
        return TableStore.at(self.root)

    @property
    def dataset(self) -> Dataset:
        """The worked example."""
        return load_dataset("flights")

    @property
    def raw(self) -> RawPartitions:
        """Writes raw data."""
        return RawPartitions(self.table_store)

    def refresh(self) -> dict[str, StageResult]:
        """Run every stage; table → what was done."""
        execute = Executor(Settings(workspace=self.root))
        return {
            stage.table: run_stage(stage, self.table_store, execute) for stage in graph.dataset_stages(self.dataset)
        }

    def clone(self, name: str) -> "Workspace":
        """A fresh clone of the origin, with no data and no cache."""
        root = self.root.with_name(name)
        git(self.root.parent, "clone", "--quiet", git(self.root, "remote", "get-url", "origin"), str(root))
        other = Workspace(root, self.remote, self.bucket)
        other.configure()
        return other

    def copy(self, folder: Path) -> "Workspace":
        """Copy the workspace, its origin and its bucket, which is a folder of the S3 server."""
        shutil.copytree(self.root.parent, folder, dirs_exist_ok=True)
        other = Workspace(folder / self.root.name, self.remote, self.remote.new_bucket().name)
        git(other.root, "remote", "set-url", "origin", str(folder / "origin.git"))
        other.configure()
        shutil.copytree(self.remote.folder / self.bucket, other.remote.folder / other.bucket, dirs_exist_ok=True)
        return other

    def configure(self) -> None:
        """Write the address of the DVC remote to the clone's local configuration."""
        write_dvc_config(self.root, self.remote, self.bucket)

    def dvc(self, *arguments: str, fails: bool = False) -> str:
        """What `dvc` prints; it must succeed, or fail where that is expected."""
        return self.command("dvc", *arguments, fails=fails)

    def command(self, *command: str, fails: bool = False) -> str:
        """What a program of this environment prints, run in the workspace."""
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        return Project(self.root).run(*command, fails=fails, settings=environment)

    def stages(self) -> list[str]:
        """Names in `dvc.yaml` of the stages that compute tables."""
        stages = load_yaml(self.root / "dvc.yaml")["stages"]
        return [name for name, entry in stages.items() if dvc_stages.is_generated(entry)]

    def stale_stages(self) -> dict[str, object]:
        """What `dvc status` finds changed in tables: stage or pointer → how."""
        found: dict[str, object] = json.loads(self.dvc("status", "--json").splitlines()[-1])
        return {name: how for name, how in found.items() if name != "flights-train"}

    def publish_code(self, subject: str) -> None:
        """Commit what changed, and push it to main."""
        git(self.root, "commit", "--quiet", "--all", "--message", subject)
        git(self.root, "push", "--quiet", "origin", "HEAD:main")

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file of the clone."""
        file = self.root / path
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), "utf-8")


def copy_working_tree(folder: Path) -> Path:
    """Copy the files of the working tree that git keeps or would keep."""
    listed = git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree, as it is now, as the first commit of a repository."""
    root = copy_working_tree(tmp_path_factory.mktemp("template") / "repository")
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "The working tree")
    git(root, "gc", "--quiet")  # one file in place of a thousand in each clone and copy
    return root


@pytest.fixture(scope="session")
def _built(template: Path, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = new_workspace(tmp_path_factory.mktemp("built"), template, s3)
    made.raw.add_days(*DAYS)
    made.refresh()
    return made


@pytest.fixture(scope="session")
def _released(_built: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = _built.copy(tmp_path_factory.mktemp("released"))
    create_release(made.dataset, made.table_store)
    return made


@pytest.fixture
def built(_built: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with every table of three days, nothing released."""
    return _built.copy(tmp_path)


@pytest.fixture
def released(_released: Workspace, tmp_path: Path) -> Workspace:
    """The same, released as `flights/1`."""
    return _released.copy(tmp_path)


@pytest.fixture
def workspace(template: Path, tmp_path: Path, s3: S3) -> Workspace:
    """A clone with an origin and a DVC remote, and no data."""
    return new_workspace(tmp_path, template, s3)


def new_workspace(folder: Path, template: Path, s3: S3) -> Workspace:
    """Create a clone with an origin and a DVC remote in a folder."""
    origin, root = folder / "origin.git", folder / "workspace"
    git(folder, "clone", "--quiet", "--bare", str(template), str(origin))
    git(folder, "clone", "--quiet", str(origin), str(root))
    made = Workspace(root, s3, s3.new_bucket().name)
    made.configure()
    return made


def write_dvc_config(project: Path, s3: S3, bucket: str) -> None:
    """Write the address of a DVC remote in the test's S3 server to the project's local configuration."""
    url, endpoint = f"url = s3://{bucket}/dvc", f"endpointurl = {s3.endpoint}"
    keys = f"access_key_id = {s3.access_key}\nsecret_access_key = {s3.secret_key}"
    (project / ".dvc/config.local").write_text(f"['remote \"storage\"']\n{url}\n{endpoint}\n{keys}\n")


def git(folder: Path, *arguments: str) -> str:
    """Run git; its output."""
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
