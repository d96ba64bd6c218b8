"""The real commands, killed by `kill -9` or paused by SIGSTOP at seeded moments, alone or with their children."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import real_flights
from label_server import Annotator, LabelServer
from raw_data import days
from workspaces import Workspace

from headrace.ingest.ingest import ingest
from headrace.project.loading import load_dataset
from headrace.settings import Settings

pytestmark = pytest.mark.slow

DAYS = days(1, 4)
LABELING = load_dataset("flights").labels[0]
COMMANDS = {
    "ingest": (["ingest", "flights", "--table", "flights"], 0.5),
    "validate": (["validate", "flights"], 1.5),
    "transform": (["transform", "flights"], 1.5),
    "release": (["release", "flights"], 1.5),
    "publish": (["publish", "flights"], 3.0),
    "collect": (["label", "collect", "flights"], 1.5),
}
"""Command, and the seconds that it works for on an idle machine after it has taken its lock."""

DAILY = ("ingest", "validate", "transform", "release", "publish")


@dataclass(frozen=True)
class CommandRunner:
    """Runs commands in a workspace that ingests from a bucket and publishes to files."""

    workspace: Workspace
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the commands."""
        s3, root = self.workspace.remote, self.workspace.root
        return {
            "PYTHONPATH": str(root),
            "HEADRACE_BUCKET": self.bucket,
            "AWS_ENDPOINT_URL": s3.endpoint,
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "FEAST_REGISTRY_URL": f"sqlite:///{root}/.headrace/registry.db",
            "FEAST_ONLINE_STORE_PATH": f"{root}/.headrace/online.db",
        }

    def start(self, verb: str) -> "subprocess.Popen[bytes]":
        """Start the command in its own process group."""
        program = [sys.executable, "-m", "headrace", *COMMANDS[verb][0]]
        environment = {**os.environ, **self.environment}
        out = subprocess.DEVNULL
        return subprocess.Popen(
            program, cwd=self.workspace.root, env=environment, stdout=out, stderr=out, start_new_session=True
        )

    def wait_for_lock(self, process: "subprocess.Popen[bytes]") -> bool:
        """Wait until the process holds a lock; False if it ended before."""
        locks = self.workspace.root / ".headrace/locks"
        while process.poll() is None:
            if any(_read(lock) == str(process.pid) for lock in locks.glob("*.lock")):
                return True
            time.sleep(0.005)
        return False

    def run_commands(self, *verbs: str) -> dict[str, bytes]:
        """Run these commands; file → bytes that readers see, without labels."""
        for verb in verbs:
            self.workspace.command("headrace", *COMMANDS[verb][0])
        root = self.workspace.root
        paths = [path.relative_to(root) for path in (root / "data").glob("*/flights/*/**/*") if path.is_file()]
        return {path.as_posix(): (root / path).read_bytes() for path in paths if LABELING.name not in path.parts}


@pytest.fixture
def runner(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> CommandRunner:
    """Four days are in the bucket; weather and planes are ingested."""
    bucket = workspace.remote.new_bucket()
    for day in DAYS:
        bucket.write(f"flights/{day}.csv.gz", real_flights.flights_object(day))
    workspace.raw.add_days(*DAYS)
    made = CommandRunner(workspace, bucket.name)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def undisturbed_files(runner: CommandRunner) -> dict[str, bytes]:
    """File → bytes that readers see in another clone, in which nothing was killed."""
    other = runner.workspace.clone("undisturbed")
    other.raw.add_days(*DAYS)
    settings = Settings(workspace=other.root, bucket=runner.bucket, s3_endpoint=other.remote.endpoint)
    ingest(other.dataset, other.table_store, settings, sources=["flights"])
    other.refresh()
    return CommandRunner(other, runner.bucket).run_commands()


def kill_command(runner: CommandRunner, verb: str, random_source: random.Random) -> bool:
    """Kill the command at a random moment, alone or with its children; whether it was still running."""
    process = runner.start(verb)
    if runner.wait_for_lock(process):
        time.sleep(random_source.uniform(0, COMMANDS[verb][1]))
    alive = process.poll() is None
    if alive and random_source.random() < 1 / 2:
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    return alive


@pytest.mark.slow_lane
@pytest.mark.parametrize(
    ("seed", "times"), [(1, 1), *(pytest.param(seed, 3, marks=pytest.mark.faults) for seed in (2, 3))]
)
@pytest.mark.timeout(900)
def test_kill_9_at_random_moments_of_every_command_is_healed_by_running_them_again(
    runner: CommandRunner, seed: int, times: int
) -> None:
    random_source = random.Random(seed)  # noqa: S311  a moment, no secret
    expected = undisturbed_files(runner)

    killed = []
    for verb in DAILY:
        killed += [kill_command(runner, verb, random_source) for _ in range(times)]
        files = runner.run_commands(verb)

    assert any(killed), "no command was alive when it was to die"
    assert files == expected
    assert runner.workspace.table_store.manifest("features/flights/carrier_delays").rows
    text = runner.workspace.command("headrace", "publish", "flights", "--json")
    output = json.loads(text[text.index("{") :])
    assert (output["release"], output["switched"]) == ("flights/1", False)
    assert not any(view["mismatches"] for view in output["verifications"])


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_kill_9_while_labels_are_collected_collects_each_answer_once(
    runner: CommandRunner, label_studio: LabelServer, ann: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", label_studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.token)
    monkeypatch.setenv("HEADRACE_PSEUDONYM_KEY", "a long random text")
    runner.run_commands("ingest", "validate")
    runner.workspace.command("headrace", "label", "send", "flights")
    for task in _tasks(label_studio):
        _submit_answer(ann, task)
    random_source = random.Random(4)  # noqa: S311

    killed = [kill_command(runner, "collect", random_source) for _ in range(6)]
    runner.run_commands("collect")

    assert any(killed)
    assert "nothing new" in runner.workspace.command("headrace", *COMMANDS["collect"][0])
    events = runner.workspace.table_store.scan("annotations/flights/delay_cause").collect()
    assert events.height == events["annotation_id"].n_unique() == len(_tasks(label_studio))


@pytest.mark.parametrize(
    "verb",
    ["release", *(pytest.param(verb, marks=pytest.mark.faults) for verb in ("ingest", "transform", "publish"))],
)
def test_while_a_run_is_paused_a_second_one_is_told_whose_the_table_is_and_the_first_ends_well(
    runner: CommandRunner, verb: str
) -> None:
    runner.run_commands(*DAILY[: DAILY.index(verb)])
    first = runner.start(verb)
    assert runner.wait_for_lock(first)
    first.send_signal(signal.SIGSTOP)

    output = runner.workspace.command("headrace", *COMMANDS[verb][0], fails=True)
    first.send_signal(signal.SIGCONT)

    assert f"process {first.pid}" in output
    assert first.wait() == 0


def test_of_two_runs_that_start_at_once_one_makes_the_table_and_the_other_is_refused_or_finds_it_made(
    runner: CommandRunner,
) -> None:
    processes = [runner.start("validate") for _ in range(2)]
    exit_codes = [process.wait() for process in processes]

    assert 0 in exit_codes
    output = runner.workspace.command("headrace", *COMMANDS["validate"][0])
    assert output.count("nothing to do") == len(runner.workspace.dataset.sources)
    validated = runner.workspace.table_store.manifest("validated/flights/flights")
    assert (sorted(validated.partitions), validated.rows > 0) == (DAYS, True)


def _tasks(server: LabelServer) -> list[int]:
    found = server.http.get("/api/projects", params={"title": LABELING.title}).json()["results"]
    return [number for copies in server.tasks(int(found[0]["id"])).values() for number in copies]


def _submit_answer(person: Annotator, task: int) -> None:
    to_name = LABELING.config.partition(f'name="{LABELING.control}"')[2].partition('toName="')[2].partition('"')[0]
    value = {"from_name": LABELING.control, "to_name": to_name, "type": "choices"}
    body = {"result": [{**value, "value": {"choices": [LABELING.choices[0]]}}], "lead_time": 2.0}
    person.http.post(f"/api/tasks/{task}/annotations/", json=body).raise_for_status()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
