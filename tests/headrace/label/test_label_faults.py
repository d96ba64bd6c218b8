"""The labeling loop under kills, lost connections and timeouts: every task exists once, and no answer is lost.

Everything runs against a real Label Studio. `make faults` runs the large ones.
"""

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from label_campaign import DAYS, Campaign
from label_server import Annotator, LabelServer
from servers import run_server
from workspaces import REPOSITORY

from headrace.errors import HeadraceError
from headrace.label import tasks as sample_tasks
from headrace.label.connection import ensure_project
from headrace.label.label_studio.client import LabelStudioClient, open_label_studio
from headrace.label.label_studio.errors import LabelStudioError
from headrace.label.label_studio.import_tasks import TaskImporter
from headrace.stack import control
from headrace.stack.config import load_config
from headrace.stack.paths import StackPaths
from headrace.stack.servers.label_studio import label_studio_system
from headrace.stack.state import read_state

pytestmark = pytest.mark.slow

SEND = """
import sys
from pathlib import Path
from label_campaign import Campaign
from label_server import LabelServer
url, token, root, title, tasks = sys.argv[1:]
Campaign(LabelServer(url, token), Path(root), title).send(sample=int(tasks))
"""


def start_sending(campaign: Campaign, tasks: int) -> subprocess.Popen[bytes]:
    """A process of its own that sends."""
    server = campaign.server
    where = (server.url, server.token, str(campaign.table_store.root), campaign.labeling.title, str(tasks))
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}"}
    return subprocess.Popen([sys.executable, "-c", SEND, *where], env=environment)


@pytest.mark.timeout(1200)  # each of the eleven senders imports the SDK
@pytest.mark.parametrize("tasks", [1500, pytest.param(10_000, marks=pytest.mark.faults)])
def test_a_sender_killed_again_and_again_leaves_every_task_exactly_once(campaign: Campaign, tasks: int) -> None:
    moments = random.Random(tasks)  # noqa: S311  a moment, no secret
    campaign.write_rides({"2013-01-01": tasks})
    killed = 0

    for _ in range(tasks // 1000 + 1):
        process, before = start_sending(campaign, tasks), count_tasks(campaign)
        while process.poll() is None and count_tasks(campaign) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        killed += process.poll() is None
        process.kill()
        process.wait()
    sent = campaign.send(sample=tasks)

    assert killed
    assert sent.existing + sent.sent == len(campaign.server.tasks(campaign.project)) == tasks
    assert campaign.server.count(campaign.project) == tasks


def test_what_the_server_stored_after_the_client_timed_out_is_not_sent_again(campaign: Campaign) -> None:
    campaign.write_rides({"2013-01-01": 600})
    rows = sample_tasks.draw_sample(campaign.dataset, campaign.labeling, campaign.table_store, {"sample": 600})
    tasks = sample_tasks.task_data(campaign.dataset, campaign.labeling, rows)
    url, token = campaign.server.url, campaign.server.token
    with open_label_studio(url, token) as patient:
        project = ensure_project(patient, campaign.labeling, collected=0)
    with (
        open_label_studio(url, token, timeout_s=0.03, retry_timeout_s=1) as hasty,
        pytest.raises(LabelStudioError, match="does not answer"),
    ):
        TaskImporter(hasty).import_tasks(project, tasks)

    campaign.send(sample=600)

    assert len(campaign.tasks()) == campaign.server.count(campaign.project) == 600


def test_two_senders_on_two_machines_leave_one_task_per_row(campaign: Campaign, tmp_path: Path) -> None:
    other = Campaign(campaign.server, tmp_path / "another machine", campaign.labeling.title)
    for place in (campaign, other):
        place.write_rides({"2013-01-01": 500})
    campaign.send(sample=1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda place: place.send(sample=500), (campaign, other)))
    campaign.send(sample=500)

    assert len(campaign.tasks()) == campaign.server.count(campaign.project) == 500


@pytest.mark.faults
def test_a_server_killed_in_mid_import_and_started_again_holds_every_task_exactly_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    try:
        with run_label_studio(home) as server:
            campaign = Campaign(server, tmp_path / "workspace", "Killed in mid-import")
            campaign.write_rides({"2013-01-01": 5000})
            failed: list[HeadraceError] = []
            sender = threading.Thread(target=send_and_catch, args=(campaign, failed))
            sender.start()
            while count_tasks(campaign) < 1000:
                time.sleep(0.05)
            kill_server(home)
            sender.join()
        control.down(home)
        with run_label_studio(home) as server:
            campaign.server, campaign.settings = server, server.settings()
            before = count_tasks(campaign)
            sent = campaign.send(sample=5000)

            assert failed
            assert 0 < before < 5000
            assert (sent.existing, sent.sent) == (before, 5000 - before)
            assert len(campaign.tasks()) == server.count(campaign.project) == 5000
    finally:
        control.down(home)


@contextmanager
def run_label_studio(home: Path) -> Iterator[LabelServer]:
    """A Label Studio that stays when the block ends."""
    control.up(home, only=("label-studio",))
    env = control.read_env(StackPaths(home))
    with closing(LabelServer(env["LABEL_STUDIO_URL"], env["LABEL_STUDIO_API_KEY"])) as server:
        yield server


def send_and_catch(campaign: Campaign, failed: list[HeadraceError]) -> None:
    """Send; an error is kept."""
    try:
        campaign.send(sample=5000)
    except HeadraceError as error:
        failed.append(error)


def count_tasks(campaign: Campaign) -> int:
    """Tasks of the project so far."""
    found = campaign.server.http.get("/api/projects", params={"title": campaign.labeling.title}).json()["results"]
    return int(found[0]["task_number"]) if found else 0


def kill_server(home: Path) -> None:
    """Kill all its processes at once, without a chance to clean up: a machine that is out of memory does the same."""
    state = read_state(StackPaths(home))
    assert state
    [server] = state.servers
    process = psutil.Process(server.process.pid)
    for one in (*process.children(recursive=True), process):
        one.send_signal(signal.SIGKILL)


# Tokens


def test_a_revoked_token_stops_with_what_to_do_and_a_new_one_continues(campaign: Campaign) -> None:
    person = campaign.server.person("max").http
    token = person.post("/api/token/", json={}).raise_for_status().json()["token"]
    campaign.send(campaign.server.settings(LABEL_STUDIO_API_KEY=token), sample=2)

    person.post("/api/token/blacklist/", json={"refresh": token}).raise_for_status()
    with pytest.raises(LabelStudioError, match=r"rejects the token in LABEL_STUDIO_API_KEY .*set it"):
        campaign.send(campaign.server.settings(LABEL_STUDIO_API_KEY=token))
    sent = campaign.send()

    assert (sent.existing, sent.sent) == (2, 4)


def test_an_access_token_that_the_server_rejects_is_renewed_whatever_the_local_clock_says(campaign: Campaign) -> None:
    person = campaign.server.person("rob").http
    token = person.post("/api/token/", json={}).raise_for_status().json()["token"]
    with open_label_studio(campaign.server.url, token) as client:
        project = ensure_project(client, campaign.labeling, collected=0)
        invalidate_access_token(client)
        sent = TaskImporter(client).import_tasks(project, {"ride-0": {"text": "late", "sample_id": "ride-0"}})

    assert (sent.imported, list(campaign.tasks())) == (1, ["ride-0"])


def invalidate_access_token(client: LabelStudioClient) -> None:
    """Give the SDK an access token that it takes for valid and the server does not: five minutes are long to wait."""
    tokens = client.sdk._client_wrapper._tokens_client  # noqa: SLF001
    header, claims, _ = str(tokens.api_key).split(".")
    tokens._access_token = f"{header}.{claims}.{'x' * 43}"  # noqa: SLF001


# Webhooks


@pytest.fixture
def server_that_calls_this_machine(tmp_path: Path) -> Iterator[LabelServer]:
    """A server without protection of internal addresses: the stack's calls no webhook on this machine."""
    home = tmp_path / "home"
    with control.running(home, only=("label-studio",)) as env:
        pass  # it has made its tables and its account
    (started,) = label_studio_system(load_config(StackPaths(home))).servers
    unprotected = {**started.env, "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false", "PYTHONPATH": ""}
    server = LabelServer(env["LABEL_STUDIO_URL"], env["LABEL_STUDIO_API_KEY"])

    def is_healthy() -> bool:
        with suppress(httpx.TransportError):
            return server.http.get("/health").is_success
        return False

    command, log = list(started.command), home / "unprotected.log"
    with (
        closing(server),
        run_server(command, log, is_healthy, environment=unprotected, start_timeout_s=started.start_timeout_s),
    ):
        yield server


@pytest.mark.slow_lane
def test_answers_whose_webhooks_were_cut_off_after_a_second_or_met_nobody_are_all_collected_exactly_once(
    server_that_calls_this_machine: LabelServer, tmp_path: Path
) -> None:
    campaign = Campaign(server_that_calls_this_machine, tmp_path / "workspace", "Webhooks")
    campaign.write_rides(DAYS)
    ann, bob = (campaign.server.person(name) for name in ("ann", "bob"))
    campaign.send()
    tasks = campaign.tasks()
    with slow_receiver(answers_after_s=1.5) as (url, received):
        hook = {"url": url, "project": campaign.project, "send_for_all_actions": True, "send_payload": True}
        campaign.server.http.post("/api/webhooks/", json=hook).raise_for_status()
        given = ann.submit(tasks["ride-0"], "weather")
        bob.submit(tasks["ride-1"], "carrier")
    calls = list(received)
    ann.edit(given, "security")
    bob.submit(tasks["ride-2"], "carrier")

    collected, again = campaign.collect(), campaign.collect()

    assert calls == ["cut off", "cut off"] == received
    assert (collected.events, again.events) == ({"created": 3}, {})
    assert campaign.labels() == {"ride-0": "security", "ride-1": "carrier", "ride-2": "carrier"}


@contextmanager
def slow_receiver(answers_after_s: float) -> Iterator[tuple[str, list[str]]]:
    """Address of a webhook receiver that takes its time, and what became of each call."""
    received: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            gone, *_ = select.select([self.connection], [], [], answers_after_s)
            received.append("cut off" if gone and not self.connection.recv(1) else "answered")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.daemon_threads = False  # so that the end of the block waits for calls that are under way
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hint", received
        finally:
            server.shutdown()


# Who is left to annotate


def test_a_task_that_nobody_is_left_to_annotate_is_finished_although_more_answers_are_wanted(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    campaign.labeling = campaign.with_declaration(annotators_per_item=2)
    campaign.send(sample=2)
    first, second = campaign.tasks().values()
    campaign.server.person("leaves")
    accounts = {person["email"]: person["id"] for person in campaign.server.http.get("/api/users").json()}
    left = accounts.pop("leaves@example.com")
    ann.submit(first, "weather")
    bob.submit(second, "weather")
    ann.submit(second, "carrier")

    for email in accounts.keys() - {"admin@localhost", "ann@example.com", "Deleted"}:
        skip = {"result": [], "was_cancelled": True, "completed_by": accounts[email]}
        campaign.server.http.post(f"/api/tasks/{first}/annotations/", json=skip).raise_for_status()
    before = campaign.progress()
    campaign.server.http.delete(f"/api/organizations/1/memberships/{left}/").raise_for_status()

    assert before == (1, 2)
    assert campaign.progress() == (2, 2)
