"""The documents are run: the walk-through's files and commands as they stand, and every link and path that is named."""

import ast
import builtins
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import PAGES, code_blocks, code_spans
from workspaces import REPOSITORY, Workspace, git

from headrace.storage.s3.bucket import Bucket

pytestmark = pytest.mark.slow

WALK = REPOSITORY / "docs/add-your-dataset.md"
ORDERS = "order_id,shop,ordered_at,amount\n1,east,{day}T09:00:00Z,10.10\n2,west,{day}T10:00:00Z,20.20\n"


@pytest.fixture
def walkthrough_clone(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A clone in which somebody did what the page says, with two days of orders in the bucket."""
    files = r"`(pipelines/\S+?\.py)`(?:(?!```).)*?```python\n(.*?)```"
    for path, code in re.findall(files, WALK.read_text("utf-8"), re.DOTALL):
        file = workspace.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(code)
    bucket = Bucket(
        workspace.bucket,
        endpoint=workspace.remote.endpoint,
        access_key=workspace.remote.access_key,
        secret_key=workspace.remote.secret_key,
    )
    for day in ("2026-01-01", "2026-01-02"):
        bucket.write(f"orders/{day}.csv", ORDERS.format(day=day).encode())
    for name, value in {
        "HEADRACE_BUCKET": workspace.bucket,
        "AWS_ENDPOINT_URL": workspace.remote.endpoint,
        "AWS_ACCESS_KEY_ID": workspace.remote.access_key,
        "AWS_SECRET_ACCESS_KEY": workspace.remote.secret_key,
        "FEAST_REGISTRY_URL": f"sqlite:///{workspace.root}/.headrace/registry.db",
        "FEAST_ONLINE_STORE_PATH": f"{workspace.root}/.headrace/online.db",
    }.items():
        monkeypatch.setenv(name, value)
    return workspace


@pytest.mark.slow
def test_the_walk_through_adds_a_dataset_that_is_ingested_released_and_published(walkthrough_clone: Workspace) -> None:
    block = re.search(r"```sh\n(headrace dvc-sync.*?)```", WALK.read_text(), re.DOTALL)
    assert block
    lines = (part for line in block[1].splitlines() for part in line.split("#")[0].split("&&"))
    said = {}
    for program, *words in map(str.split, lines):
        if program == "git":
            git(walkthrough_clone.root, *words)
        elif program == "headrace":
            said[" ".join(words)] = walkthrough_clone.command(program, *words)

    assert "features/sales/shop_turnover: 2 computed (2026-01-01, 2026-01-02)" in said["run sales"]
    assert "stale" not in said["plan sales"]
    assert "sales/1 released" in said["release sales"]
    assert "shop_turnover serves sales/1" in said["publish sales"]
    rows = walkthrough_clone.table_store.scan("features/sales/shop_turnover", ["2026-01-02"]).collect()
    assert rows.select("shop", "orders_7d", "turnover_7d_eur").rows() == [("east", 1, 10.1), ("west", 1, 20.2)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_headrace_command_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bheadrace ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", "\n".join(_code(page.read_text("utf-8")))))
    verbs = _commands()

    assert [verb for verb, _ in named if verb not in verbs] == []
    for verb in ("label", "stack"):
        below = _commands(verb)
        assert [word for first, word in named if first == verb and word and word not in below] == []


def _code(text: str) -> list[str]:
    return [*code_blocks(text, "(?:sh)?"), *code_spans(text)]


def _commands(*below: str) -> set[str]:
    program = Path(sys.executable).with_name("headrace")
    done = subprocess.run([program, *below, "--help"], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return set(re.findall(r"^│ ([a-z][a-z-]*) ", done.stdout, re.MULTILINE))


def defined_names(code: ast.Module) -> set[str]:
    found = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(code)
        for alias in getattr(node, "names", ())
        if isinstance(alias, ast.alias)
    }
    found |= {node.id for node in ast.walk(code) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    found |= {node.arg for node in ast.walk(code) if isinstance(node, ast.arg)}
    return found | {node.name for node in ast.walk(code) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_a_snippet_of_python_uses_only_names_that_its_page_has_defined_by_then(page: Path) -> None:
    known = set(dir(builtins))
    for block in code_blocks(page.read_text("utf-8"), "python"):
        code = ast.parse(block)
        known |= defined_names(code)
        used = {node.id for node in ast.walk(code) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert used <= known, block
