"""The real commands, really killed: `kill -9` and SIGSTOP at seeded moments of a refresh and a release."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from raw import days
from workspaces import Workspace, git

pytestmark = pytest.mark.slow

COMMANDS = (["validate", "flights"], ["transform", "flights"], ["version", "flights"])
BEFORE_KILL_S = 4.0
"""A command here takes less than this when nothing else runs."""


def start(workspace: Workspace, command: list[str]) -> subprocess.Popen[bytes]:
    """The command, running."""
    program = [sys.executable, "-m", "pipelines", *command]
    environment = {**os.environ, "PYTHONPATH": str(workspace.root)}
    return subprocess.Popen(
        program, cwd=workspace.root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def finish(workspace: Workspace) -> dict[str, bytes]:
    """Run everything to its end; file → bytes of what readers see."""
    for command in COMMANDS:
        workspace.command("headrace", *command)
    files = [path for path in (workspace.root / "data").rglob("*") if path.is_file()]
    return {path.relative_to(workspace.root).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.faults), pytest.param(3, marks=pytest.mark.faults)]
)
def test_kill_9_at_random_moments_of_every_command_is_healed_by_running_them_again(
    workspace: Workspace, seed: int
) -> None:
    moments = random.Random(seed)  # noqa: S311  a moment, no secret
    calm = workspace.clone("calm")
    for place in (workspace, calm):
        place.raw.arrive(*days(1, 5))
    wanted = finish(calm)

    killed = 0
    for command in COMMANDS:
        for _ in range(2):
            process = start(workspace, command)
            time.sleep(moments.uniform(0.2, BEFORE_KILL_S))
            killed += process.poll() is None
            process.kill()
            process.wait()

    git(workspace.root, "pull", "--quiet", "--rebase", "--autostash", "origin", "main")
    assert finish(workspace) == wanted
    assert killed, "no command was alive when it was to die"


def test_a_paused_run_keeps_its_table_and_the_second_is_told_whose_it_is(workspace: Workspace) -> None:
    workspace.raw.arrive(*days(1, 31))
    first = start(workspace, ["validate", "flights", "--table", "flights"])
    lock = workspace.root / ".headrace/locks/validated.flights.flights.lock"
    while not lock.exists() or lock.read_text() != str(first.pid):
        assert first.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)

    said = workspace.command("headrace", "validate", "flights", "--table", "flights", fails=True)
    first.send_signal(signal.SIGCONT)

    assert f"process {first.pid}" in said
    assert first.wait() == 0
    assert "nothing to do, 31 carried over" in workspace.command(
        "headrace", "validate", "flights", "--table", "flights"
    )
