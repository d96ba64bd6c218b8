"""The engine as a team installs it: a wheel in a separate environment, without this repository on the path."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from servers import S3

REPOSITORY = Path(__file__).resolve().parents[2]
LOCK = REPOSITORY / "requirements/dev.txt"


def copy_working_tree(folder: Path) -> Path:
    """A copy of the files of the working tree that git keeps or would keep."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    return folder


def export_revision(name: str, folder: Path) -> Path:
    """A copy of the files of a git revision."""
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", name], cwd=REPOSITORY, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
    return folder


def build_wheel(source: Path, version: str | None = None) -> Path:
    """The wheel of a source tree, under another version if one is given."""
    if version:
        module = source / "headrace/__init__.py"
        module.write_text(re.sub(r'__version__ = "[^"]+"', f'__version__ = "{version}"', module.read_text()))
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(source / "dist")]
    subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    return next((source / "dist").glob("*.whl"))


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a home folder of its own.

    Attributes:
        root: The environment.
        variables: What its commands see of the outside, beside the PATH.
    """

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def with_wheel(cls, root: Path, wheel: Path, *extras: str) -> "Environment":
        """An empty environment in which the wheel is installed, with the versions of our lock."""
        made = cls(root)
        run_uv("venv", "--quiet", "--python", sys.executable, str(root))
        made.install(f"{wheel}[{','.join(extras)}]" if extras else str(wheel), "pytest")
        return made

    def install(self, *requirements: str) -> None:
        """Install packages by name, with the versions of our lock."""
        run_uv(
            "pip",
            "install",
            "--quiet",
            "--python",
            str(self.root / "bin/python"),
            "--constraint",
            str(LOCK),
            *requirements,
        )

    def with_variables(self, **variables: str) -> "Environment":
        """The same environment, whose commands see these variables too."""
        return Environment(self.root, {**self.variables, **variables})

    def run(self, folder: Path, *command: str, fails: bool = False) -> str:
        """What a program of the environment prints, run in `folder`; git and other tools come from the machine."""
        machine = os.pathsep.join(("/usr/local/bin", "/usr/bin", "/bin", *os.environ["PATH"].split(os.pathsep)[-1:]))
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        done = subprocess.run(
            command,
            cwd=folder,
            env={
                "PATH": f"{self.root}/bin{os.pathsep}{machine}",
                "HOME": str(home),
                "DVC_NO_ANALYTICS": "1",
                "GIT_AUTHOR_NAME": "Test",
                "GIT_AUTHOR_EMAIL": "test@localhost",
                "GIT_COMMITTER_NAME": "Test",
                "GIT_COMMITTER_EMAIL": "test@localhost",
                **self.variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def s3_variables(s3: S3, bucket: str, project: Path) -> dict[str, str]:
    """What a project needs to reach the test's S3 server; the DVC remote is written to the project."""
    keys = f"access_key_id = {s3.access_key}\nsecret_access_key = {s3.secret_key}"
    (project / ".dvc/config.local").write_text(
        f"['remote \"storage\"']\nurl = s3://{bucket}/dvc\nendpointurl = {s3.endpoint}\n{keys}\n"
    )
    return {
        "HEADRACE_BUCKET": bucket,
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def run_uv(*arguments: str) -> None:
    """Run uv on its cache, which `make install` filled, else on pip's index."""
    program = Path(sys.prefix) / ".uv/bin/uv"
    command = [str(program) if program.exists() else "uv", *arguments]
    cached = subprocess.run([*command, "--offline"], capture_output=True, text=True, check=False)
    if cached.returncode == 0:
        return
    index = (
        os.environ.get("PIP_INDEX_URL")
        or subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    )
    environment = {**os.environ, **({"UV_DEFAULT_INDEX": index} if index else {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{cached.stderr}\n{done.stderr}"
