"""Label Studio's environment: installed by hash from the lock that ships with the engine, once, whatever interrupts it.

Real venv and pip, on a lock of one small package that offers the command `label-studio`.
"""

import re
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from headrace.stack.errors import StackError
from headrace.stack.label_studio_environment import (
    BUILD_TOOLS,
    LOCK,
    STAMP,
    InstallState,
    LabelStudioEnvironment,
)

PROGRAM = """
import os, pathlib
def main():
    data = pathlib.Path(os.environ["LABEL_STUDIO_BASE_DATA_DIR"])
    data.mkdir(parents=True)
    (data / "label_studio.sqlite3").write_text("{version}")
"""
INSTALL = """
import sys
from pathlib import Path
from headrace.stack.label_studio_environment import LabelStudioEnvironment
LabelStudioEnvironment(Path(sys.argv[1]), Path(sys.argv[2])).install(lambda step: print(step, flush=True))
"""


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip finds packages in."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def new_lock(wheels: Path, version: str) -> Path:
    """A lock of one package, whose wheel is in `wheels`."""
    info = f"label_studio-{version}.dist-info"
    wheel = wheels / f"label_studio-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("label_studio_server.py", PROGRAM.format(version=version))
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: label-studio\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nlabel-studio = label_studio_server:main\n")
        archive.writestr(f"{info}/RECORD", "")
    lock = wheels.parent / f"lock-{version}.txt"
    lock.write_text(f"label-studio=={version} \\\n    --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n")
    return lock


def database(environment: LabelStudioEnvironment) -> str:
    return (environment.template / "label_studio.sqlite3").read_text()


@pytest.mark.slow_lane
def test_of_two_that_install_at_once_one_installs_and_the_other_finds_it_done(wheels: Path, tmp_path: Path) -> None:
    environment = LabelStudioEnvironment(tmp_path / "environment", new_lock(wheels, "1.0"))
    steps: list[str] = []

    assert environment.check() is InstallState.MISSING
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: environment.install(steps.append), range(2)))

    assert sorted(done) == [False, True]
    assert environment.check() is InstallState.INSTALLED
    assert database(environment) == "1.0"
    assert len(steps) == 3
    assert "installing 1 packages" in steps[1]
    assert subprocess.check_output(["git", "-C", tmp_path, "init", "--quiet"]) == b""
    assert "environment" not in subprocess.check_output(["git", "-C", tmp_path, "status", "--porcelain"], text=True)


@pytest.mark.slow_lane
def test_another_lock_makes_it_outdated_and_the_next_installation_replaces_it(wheels: Path, tmp_path: Path) -> None:
    environment = LabelStudioEnvironment(tmp_path / "environment", new_lock(wheels, "1.1"))
    leftover = installed_from_another_lock(environment)

    assert environment.check() is InstallState.OUTDATED
    assert environment.install(lambda _: None)
    assert environment.check() is InstallState.INSTALLED
    assert database(environment) == "1.1"
    assert not leftover.exists()


def installed_from_another_lock(environment: LabelStudioEnvironment) -> Path:
    """Such an environment; one of its files."""
    environment.program.parent.mkdir(parents=True)
    environment.program.touch()
    (environment.folder / STAMP).write_text("the hash of another lock")
    leftover = environment.folder / "lib" / "leftover.py"
    leftover.parent.mkdir()
    leftover.touch()
    return leftover


@pytest.mark.slow_lane
def test_an_installation_that_was_killed_is_not_used_leaves_nothing_running_and_is_done_again(
    wheels: Path, tmp_path: Path
) -> None:
    environment = LabelStudioEnvironment(tmp_path / "environment", new_lock(wheels, "1.0"))
    installed_from_another_lock(environment)
    command: list[str | Path] = [sys.executable, "-c", INSTALL, environment.folder, environment.lock]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not (children := psutil.Process(process.pid).children(recursive=True)):
            time.sleep(0.01)
        process.kill()
    psutil.wait_procs(children, timeout=10)

    assert environment.check() is InstallState.MISSING
    assert not any(child.is_running() for child in children)
    assert environment.install(lambda _: None)
    assert database(environment) == "1.0"


@pytest.mark.slow_lane
def test_a_package_with_another_hash_is_refused_and_the_message_says_what_to_do(wheels: Path, tmp_path: Path) -> None:
    lock = new_lock(wheels, "1.0")
    lock.write_text(re.sub(r"sha256:\w{8}", "sha256:00000000", lock.read_text()))
    environment = LabelStudioEnvironment(tmp_path / "environment", lock)

    with pytest.raises(StackError, match="DO NOT MATCH THE HASHES") as error:
        environment.install(lambda _: None)

    assert environment.check() is InstallState.MISSING
    assert "`headrace stack install`" in str(error.value)
    assert "`headrace stack up --only s3,postgres,dask,airflow`" in str(error.value)


def test_an_environment_without_a_stamp_is_not_used_though_its_program_is_there(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "label-studio").touch()

    assert LabelStudioEnvironment(tmp_path).check() is InstallState.MISSING


def test_an_environment_of_headrace_0_1_is_used_and_counts_as_outdated(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for file in ("bin/label-studio", ".installed"):
        (tmp_path / file).touch()

    assert LabelStudioEnvironment(tmp_path).check() is InstallState.OUTDATED


def test_the_lock_that_ships_pins_every_package_by_hash_and_holds_the_tools_that_build() -> None:
    text = LOCK.read_text()
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]

    assert len(blocks) > 100
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert [tool.split("==")[0] for tool in BUILD_TOOLS.findall(text)] == ["setuptools", "wheel"]
