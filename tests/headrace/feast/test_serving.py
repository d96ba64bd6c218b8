"""`feast serve` serves what was published, as it is: plain HTTP, the release's values, and a switch is followed."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import feature_workspace
import httpx
import psutil
import pytest
from feature_workspace import AIRCRAFT, AIRCRAFT_ROWS, publish_release, write_all_tables, write_table
from servers import HOST, free_port, is_listening, run_server

from headrace.storage.table_store import TableStore

FEAST = Path(sys.executable).with_name("feast")
ENOUGH = 1_200
"""More requests than the 1,000 after which a worker is replaced unless told otherwise."""


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    table_store = feature_workspace.create_workspace(tmp_path / "workspace")
    write_all_tables(table_store)
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS)
    publish_release(table_store)
    return table_store


@pytest.fixture
def ask(table_store: TableStore, tmp_path: Path) -> Iterator[Callable[[str], float | None]]:
    """Asks the server for the delay of an aircraft."""
    port = free_port()
    command = [str(FEAST), "-c", str(table_store.root / "feature_repo"), "serve", "-p", str(port), "--no-access-log"]
    command += ["--max-requests", "0", "--registry_ttl_sec", "1"]
    environment = {
        "FEAST_REGISTRY_URL": f"sqlite:///{table_store.root}/feast/registry.db",
        "FEAST_ONLINE_STORE_PATH": f"{table_store.root}/feast/online.db",
        "PYTHONOPTIMIZE": "1",
        "FEAST_USAGE": "False",
        "PYTHONPATH": os.pathsep.join((str(feature_workspace.REPO), os.environ.get("PYTHONPATH", ""))),
    }
    with (
        run_server(command, tmp_path / "log", lambda: is_listening(port), environment=environment),
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=30) as client,
    ):

        def delay(tailnum: str) -> float | None:
            keys = {"tailnum": [tailnum], "origin": ["EWR"], "carrier_id": [1]}
            body = {"feature_service": "little_service", "entities": keys, "full_feature_names": True}
            answer = client.post("/get-online-features", json=body).raise_for_status().json()
            place = answer["metadata"]["feature_names"].index("aircraft_history__delay_min")
            value: float | None = answer["results"][place]["values"][0]
            return value

        yield delay
    feature_workspace.close_all()


def processes() -> set[int]:
    """The processes of the server, each worker among them."""
    return {found.pid for found in psutil.Process().children(recursive=True)}


@pytest.mark.slow
def test_feast_serve_answers_with_the_release_follows_the_switch_and_replaces_no_worker(
    table_store: TableStore, ask: Callable[[str], float | None]
) -> None:
    assert (ask("N2"), ask("N3"), ask("nobody")) == (-4.0, 3.0, None)

    before = processes()
    assert len(before) > 1
    for _ in range(ENOUGH):
        assert ask("N2") == -4.0
    assert processes() == before, "replacing a worker stalls the requests to it"
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}])
    publish_release(table_store)

    until = time.monotonic() + 20
    while (ask("N2"), ask("N3")) != (10.0, None):
        assert time.monotonic() < until, "the server did not follow the switch"
        time.sleep(0.2)
