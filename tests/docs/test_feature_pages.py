"""What the pages on training data and on serving show is run as it stands, on a release of three days."""

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from doc_pages import code_blocks
from workspaces import REPOSITORY, Workspace

PAGES = {name: (REPOSITORY / "docs" / f"{name}.md").read_text("utf-8") for name in ("training-data", "serving")}
NOT_HERE = ("torch", "delay_cause:label", "feast -c")
"""Text of blocks that need what the tests do without: PyTorch, labels that people gave, a server that stays."""

READER = """
import json, sys
for page in json.load(sys.stdin):
    names = {}
    for block in page:
        exec(block, names)
"""
"""Runs the blocks of each page one after the other, with nothing but what the page itself defines."""


@pytest.fixture(scope="module")
def published(_released: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the release `flights/1` and `flights.parquet`, as the pages name them."""
    workspace = _released.copy(tmp_path_factory.mktemp("pages"))
    keys = ("carrier", "origin", "tailnum")
    time = pl.col("scheduled_at").alias("event_timestamp")
    rows = workspace.table_store.scan("validated/flights/flights").select(*keys, time).drop_nulls().head(200)
    rows.collect().write_parquet(workspace.root / "flights.parquet")
    (workspace.root / "feature_repo/saved").mkdir()
    return workspace


def runnable_blocks(page: str, language: str) -> list[str]:
    """The blocks of a page that can run here; every release is `flights/1`."""
    found = [block for block in code_blocks(PAGES[page], language) if not any(text in block for text in NOT_HERE)]
    return [re.sub(r"flights/\d+", "flights/1", block) for block in found]


@pytest.mark.slow_lane
def test_the_commands_and_the_code_run(published: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{published.root}/.headrace/registry.db")
    monkeypatch.setenv("FEAST_ONLINE_STORE_PATH", f"{published.root}/.headrace/online.db")
    shown = "".join(runnable_blocks("serving", "sh") + runnable_blocks("training-data", "sh"))
    commands = [line.split("#")[0].split() for line in shown.splitlines()]

    for command in commands:
        published.command(*command)
    code = [runnable_blocks(page, "python") for page in PAGES]
    done = subprocess.run(
        [sys.executable, "-c", READER],
        cwd=published.root,
        input=json.dumps(code),
        capture_output=True,
        text=True,
        check=False,
    )

    assert len(commands) > 5
    assert sum(map(len, code)) > 5
    assert done.returncode == 0, done.stderr
    rows = pl.read_parquet(published.root / "train.parquet")
    assert rows.height == 200
    assert Path(published.root / "train.lock.json").exists()
    assert Path(published.root / "feature_repo/saved/january.parquet").exists()
