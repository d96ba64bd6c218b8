"""What a page names exists: modules and their names, files, options, identifiers, new names of the upgrade page.

Modules are looked up in their source, so no page has to import Feast or Airflow here.
"""

import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from doc_pages import PAGES, code_blocks, code_spans, without_blocks
from workspaces import REPOSITORY

import headrace
from headrace.cli import app

UPGRADING = REPOSITORY / "docs/upgrading.md"
CHANGELOG = REPOSITORY / "CHANGELOG.md"
WALKS = (REPOSITORY / "docs/add-your-dataset.md", REPOSITORY / "docs/start-a-project.md")
"""Pages whose readers write the files that they name."""

CURRENT = [page for page in PAGES if page not in {UPGRADING, CHANGELOG}]
"""Pages that name nothing of earlier versions."""

FOLDERS = "headrace|pipelines|dags|feature_repo|infra|tests|docs|examples|benchmarks|requirements"
FILES = {"headrace.lock", "headrace.yaml"}


def by_name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def test_the_readme_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\((\S+?\.md)\)", (REPOSITORY / "README.md").read_text("utf-8")))

    assert {by_name(page) for page in PAGES} - linked == {"README.md"}


def test_the_readme_lists_the_extras_of_the_package() -> None:
    section = (REPOSITORY / "README.md").read_text("utf-8").partition("## Install it")[2].partition("\n## ")[0]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]

    assert {*re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)} == {*project["optional-dependencies"]}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_name_of_the_package_that_a_page_gives_is_defined(page: Path) -> None:
    named = {name for code in code_of(page) for name in re.findall(r"(?<![\w./-])headrace(?:\.[A-Za-z_]\w*)+", code)}
    imports = {
        f"{statement.module}.{alias.name}"
        for block in code_blocks(page.read_text("utf-8"), "python")
        for statement in ast.walk(ast.parse(block))
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("headrace")
        for alias in statement.names
    }

    assert sorted(name for name in (named | imports) - FILES if not is_defined(name)) == []


@pytest.mark.parametrize("page", [page for page in CURRENT if page not in WALKS], ids=by_name)
def test_every_file_that_a_page_names_in_backticks_is_there(page: Path) -> None:
    spans = set(re.findall(rf"`((?:{FOLDERS})/[\w/-]+(?:\.\w+)*/?)`", page.read_text("utf-8")))

    assert sorted(path for path in spans if not (REPOSITORY / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_heading_that_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)\s]+)", page.read_text("utf-8"))

    assert [anchor for file, anchor in links if anchor not in anchors(page.parent / file if file else page)] == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_make_target_that_a_page_names_is_there(page: Path) -> None:
    named = {name for code in code_of(page) for name in re.findall(r"^make ([a-z][a-z-]*)", code, re.MULTILINE)}
    targets = re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE)

    assert sorted(named - {*targets}) == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_option_of_a_command_on_a_page_is_one_of_that_command(page: Path) -> None:
    lines = [line for code in code_of(page) for line in code.replace("\\\n", " ").splitlines()]
    commands = [words(line) for line in lines if line.strip().startswith("headrace ")]

    assert [command for command in commands if not set(options_in(command)) <= options_of(command)] == []


@pytest.mark.parametrize("page", CURRENT, ids=by_name)
def test_every_identifier_that_a_page_names_occurs_in_the_code(page: Path) -> None:
    text = page.read_text("utf-8")
    spans = set(re.findall(r"`([A-Za-z]\w*)(?:\(\))?`", without_blocks(text)))
    identifiers = {span for span in spans if "_" in span or re.search("[a-z][A-Z]", span)}

    assert sorted(identifiers - words_of_the_code() - set(re.findall(r"\w+", "".join(code_blocks(text))))) == []


def test_every_new_name_of_the_upgrade_page_occurs_in_the_code() -> None:
    rows = [line for line in UPGRADING.read_text("utf-8").splitlines() if line.startswith("|")]
    new = [re.split(r"(?<!\\)\|", row)[-2] for row in rows]
    names = {
        name for cell in new for span in re.findall(r"`([^`]+)`", cell) for name in re.findall(r"[A-Za-z_]\w*", span)
    }

    assert len(names) > 300
    assert sorted(names - words_of_the_code()) == []


def anchors(page: Path) -> set[str]:
    """What a link can name on a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_of(page: Path) -> list[str]:
    text = page.read_text("utf-8")
    return [*code_blocks(text), *code_spans(text)]


def is_defined(dotted: str) -> bool:
    """Whether a dotted name is a module of the package, or a name at the top level of one."""
    parts = dotted.split(".")
    if len(parts) == 2 and parts[1] in headrace.__all__:
        return True
    for end in range(len(parts), 0, -1):
        path = REPOSITORY.joinpath(*parts[:end])
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if source.exists():
            return end == len(parts) or parts[end] in top_level_names(source)
    return False


@cache
def top_level_names(source: Path) -> frozenset[str]:
    bound = [node for node in ast.parse(source.read_text("utf-8")).body if not isinstance(node, ast.If)]
    names = {getattr(node, "name", "") for node in bound}
    targets = [target for node in bound if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in bound if isinstance(node, ast.AnnAssign)]
    names |= {alias.asname or alias.name for node in bound if isinstance(node, ast.ImportFrom) for alias in node.names}
    return frozenset({*names, *(target.id for target in targets if isinstance(target, ast.Name))})


def words(line: str) -> list[str]:
    """The words of a command line, up to its comment or the next command."""
    try:
        found = shlex.split(line, comments=True)
    except ValueError:  # a quote that ends on another line
        found = line.split()
    end = next((number for number, word in enumerate(found) if word in {"|", "&&", ";", "…"}), len(found))
    return [word.rstrip(";,") for word in found[:end]]


def options_in(command: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in command if re.match(r"--?[a-z]", word)]


def options_of(command: list[str]) -> set[str]:
    """The options of a command and of the groups above it."""
    group: Any = root_command()
    known = options(group)
    for word in command[1:]:
        inner = group.get_command(None, word) if hasattr(group, "get_command") else None
        if inner is not None:
            group = inner
            known |= options(group)
    return known | {"--help", "-h"}


@cache
def root_command() -> Any:  # noqa: ANN401  a type that Typer keeps to itself
    return typer.main.get_command(app)


def options(command: Any) -> set[str]:  # noqa: ANN401  a type that Typer keeps to itself
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@cache
def words_of_the_code() -> frozenset[str]:
    """Every word of the repository's code and configuration."""
    suffixes = (".py", ".yaml", ".yml", ".toml", ".sh", ".sbatch", ".tf", ".txt", ".tmpl", ".example", ".lock")
    folders = [REPOSITORY / name for name in FOLDERS.split("|") if name != "docs"]
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in suffixes]
    top = [file for file in REPOSITORY.iterdir() if file.suffix in suffixes or file.name == "Makefile"]
    return frozenset(word for file in (*files, *top) for word in re.findall(r"[A-Za-z_]\w*", file.read_text("utf-8")))
