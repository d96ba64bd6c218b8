"""Figures of benchmarks stand in `benchmarks/RESULTS.md` alone; documentation cites it, and none contradicts it."""

import re
from pathlib import Path

import pytest
from doc_pages import PAGES, without_blocks
from workspaces import REPOSITORY

RESULTS = REPOSITORY / "benchmarks/RESULTS.md"
SCALE = REPOSITORY / "docs/scale.md"
CITING = [page for page in PAGES if page.name not in {"CHANGELOG.md", RESULTS.name}]
CITATION = re.compile(r'\[([^\]]*)\]\(\S*RESULTS\.md#(\w+) "([^"]+)"\)')
BARE = re.compile(
    r"(?:\d[\d.,]*|\b(?:two|three|four|five|eight|ten|many|several)) ?"
    r"(?:CPU s\b|CPU seconds|(?:µs|ms|s|seconds?) of CPU|"
    r"times (?:the (?:CPU|memory|time)|as (?:long|fast|much)|faster|slower))"
)
CODE = ("headrace", "pipelines", "dags", "feature_repo", "infra", "examples")
UNIT_BYTES = {"KB": 1e3, "MB": 1e6, "bytes": 1.0}


def rows(page: str) -> dict[str, str]:
    """Name → figure of every row of two cells."""
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE))


def number(text: str) -> float:
    """The number of a figure with its unit."""
    value, unit = re.fullmatch(r"([\d.,]+) ?(.*)", text).groups()  # type: ignore[union-attr]
    return float(value.replace(",", "")) * UNIT_BYTES.get(unit, 1.0)


@pytest.mark.parametrize("page", CITING, ids=lambda page: page.name)
def test_a_figure_in_a_sentence_is_a_reference_to_the_results(page: Path) -> None:
    text = CITATION.sub("", without_blocks(page.read_text()))
    derived = (
        text.partition("## What breaks first")[0] if page == SCALE else text
    )  # the rest is computed from its table
    assert BARE.findall(derived) == [], f"{page.name}: refer to benchmarks/RESULTS.md instead"


def test_no_comment_or_docstring_states_what_something_once_cost() -> None:
    modules = sorted(path for folder in CODE for path in (REPOSITORY / folder).rglob("*.py"))
    stated = {path.name: found for path in modules if (found := BARE.findall(path.read_text()))}
    assert stated == {}, "say what holds without the figure, or name the benchmark that has it"


@pytest.mark.parametrize("page", CITING, ids=lambda page: page.name)
def test_references_to_the_results_name_a_benchmark(page: Path) -> None:
    named = set(re.findall(r"RESULTS\.md#(\w+)", page.read_text()))
    assert named <= {path.stem for path in (REPOSITORY / "benchmarks").glob("*.py")}


@pytest.mark.parametrize(
    ("cited", "script", "row"),
    [
        pytest.param(*found, id=f"{page.stem}: {found[2]}")
        for page in CITING
        for found in CITATION.findall(page.read_text())
    ],
)
def test_a_cited_figure_is_within_a_factor_of_two_of_its_row(cited: str, script: str, row: str) -> None:
    results = RESULTS.read_text()
    if f"not checked here: `{script}.py`" in results:
        pytest.skip(f"{script}.py has not been measured: run `make bench`")
    assert 0.5 <= number(rows(results)[row]) / number(cited) <= 2
