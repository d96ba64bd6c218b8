"""The page about reliability: each fault stands there once, each test that it names is one, and its numbers add up."""

import ast
import re
from dataclasses import dataclass
from functools import cache

from workspaces import REPOSITORY

PAGE = REPOSITORY / "docs/reliability.md"
FAULTS = 140
LANES = ("faults", "slow_lane")
"""Markers of the tests that `make test` leaves out."""


@dataclass(frozen=True)
class Fault:
    """A row of the page."""

    number: int
    section: str
    cells: tuple[str, ...]

    @property
    def tests(self) -> list[tuple[str, str]]:
        """Test → lane, as the page says it."""
        return re.findall(r"`(tests/[^`]+::\w+)`(?: \(([a-z ]+)\))?", self.cells[-1])


@cache
def page() -> str:
    return PAGE.read_text("utf-8")


@cache
def faults() -> list[Fault]:
    sections = re.split(r"^## (.+)\n", page(), flags=re.MULTILINE)[1:]
    return [
        Fault(int(cells[0]), title, tuple(cells))
        for title, text in zip(sections[::2], sections[1::2], strict=True)
        for line in text.splitlines()
        if re.match(r"\| \d+ \|", line)
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    ]


def is_covered(fault: Fault) -> bool:
    return fault.section != "Not covered"


def test_each_fault_stands_on_the_page_once() -> None:
    assert sorted(fault.number for fault in faults()) == list(range(1, FAULTS + 1))
    assert all(len(fault.cells) == (4 if is_covered(fault) else 3) and all(fault.cells) for fault in faults())


def test_a_fault_that_counts_as_covered_names_a_test() -> None:
    assert [fault.number for fault in faults() if bool(fault.tests) != is_covered(fault)] == []
    assert [fault.number for fault in faults() if fault.cells[-1].count("::") != len(fault.tests)] == []


def test_the_numbers_add_up() -> None:
    covered = sum(map(is_covered, faults()))
    parts = re.findall(r"^\| \[(.+)\]\(#.+\) \| (\d+) \|$", page(), flags=re.MULTILINE)

    assert f"**{covered} of {FAULTS} are covered by a test**" in page()
    assert f"; {FAULTS - covered} [are not](#not-covered)" in page()
    assert f"| together | {covered} |" in page()
    assert {title: int(count) for title, count in parts} == {
        fault.section: sum(other.section == fault.section for other in faults())
        for fault in faults()
        if is_covered(fault)
    }


def test_every_test_that_the_page_names_is_collected_in_the_lane_that_it_says() -> None:
    said = {name: {lane.replace(" ", "_")} - {""} for fault in faults() for name, lane in fault.tests}

    assert {name: lanes(name) for name in said} == said


def lanes(test: str) -> set[str] | None:
    """The lanes of a test besides `make test`, by its marks and its module's; None if pytest has no such test."""
    path, name = test.split("::")
    if not re.fullmatch(r"tests/(\w+/)*test_\w+\.py", path) or not (REPOSITORY / path).exists():
        return None
    module = parse(path)
    named = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name]
    if len(named) != 1 or not name.startswith("test_"):
        return None
    assigned = [node for node in module.body if isinstance(node, ast.Assign)]
    everywhere = [node.value for node in assigned if ast.unparse(node.targets[0]) == "pytestmark"]
    # A mark within `parametrize` is of one set of parameters only.
    own = [one.func if isinstance(one, ast.Call) else one for one in named[0].decorator_list]
    marks = {node.attr for tree in (*everywhere, *own) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return marks & set(LANES)


@cache
def parse(path: str) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text("utf-8"))
