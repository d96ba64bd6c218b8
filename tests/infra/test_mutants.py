"""`make mutants` finds what tests do not notice, says which tests do, and leaves the checkout as it was."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mutants
import mutators
import pytest

MODULE = '''"""Prices."""

LIMIT = 3


def total(prices: list[int], discount: int) -> int:
    """The sum."""
    return sum(prices) - discount


def is_large(prices: list[int]) -> bool:
    """Whether there are many."""
    return len(prices) > LIMIT


def unused(prices: list[int]) -> int:
    """Nobody asks for it."""
    return len(prices) + 1
'''
TESTS = '''"""What prices promise."""

from shop.prices import is_large, total


def test_the_total_is_less_the_discount():
    assert total([1, 2], 1) == 2


def test_many_prices_are_large():
    assert is_large([1] * 9)
    assert not is_large([1])


def test_that_fails_without_a_mutation():
    assert total([1], 0) == 2
'''
SETTINGS = """
[groups.shop]
modules = ["shop/*.py"]
tests = ["tests/test_prices.py"]

[[accepted]]
file = "shop/prices.py"
before = "return len(prices) + 1"
after = "return len(prices) + 2"
reason = "nobody asks for it"

[[accepted]]
file = "shop/prices.py"
before = "return a line of another day"
after = "return None"
reason = "it was removed"
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with one module and its tests."""
    root = tmp_path_factory.mktemp("checkout")
    files = {
        "shop/__init__.py": "",
        "shop/prices.py": MODULE,
        "tests/test_prices.py": TESTS,
        "tests/mutants.toml": SETTINGS,
        "pytest.ini": "[pytest]\nmarkers =\n  server: a\n  slow_lane: b\n  faults: c\n",
        ".gitignore": "__pycache__/\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    return root


@dataclass(frozen=True)
class Run:
    """What `mutants` did and printed."""

    status: int
    report: str
    printed: str
    complaints: str


@pytest.fixture(scope="module")
def everything(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All mutants of the module."""
    path = tmp_path_factory.mktemp("report") / "report.md"
    command = [sys.executable, mutants.__file__, "--root", str(shop), "--at", "shop/prices.py", "--jobs", "2"]
    command += ["--at-least", "0.99", "--report", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return Run(done.returncode, path.read_text() if path.exists() else "", done.stdout, done.stderr)


@pytest.mark.slow
def test_a_mistake_that_a_test_notices_is_killed_and_another_one_survives(everything: Run) -> None:
    outcomes = {line.split("`")[3]: line.split()[0] for line in everything.printed.splitlines() if "`" in line}

    assert outcomes["return (sum(prices) + discount)"] == "killed"
    assert outcomes["return (len(prices) >= LIMIT)"] == "survived"
    assert outcomes["LIMIT = 4"] == "survived"
    assert outcomes["return (len(prices) - 1)"] == "survived"
    assert outcomes["return len(prices) + 2"] == "accepted"


@pytest.mark.slow
def test_the_report_has_the_shares_and_each_survivor_with_place_diff_and_reason(everything: Run) -> None:
    head, survivors, accepted = everything.report.split("\n## ")

    assert "Target: 90% killed, missed." in head
    assert "- `tests/test_prices.py::test_that_fails_without_a_mutation`" in head
    assert "`shop/prices.py:13` in `is_large`: comparison; related tests: 1, all pass" in survivors
    assert "- return len(prices) > LIMIT\n+ return (len(prices) >= LIMIT)" in survivors
    assert "in `unused`: changed return; no related test runs this line" in survivors
    assert "Accepted: nobody asks for it" in accepted
    assert everything.status == 1, "fewer are killed than `--at-least` wants"


@pytest.mark.slow
def test_an_accepted_survivor_of_a_line_that_is_gone_is_named(everything: Run) -> None:
    assert everything.complaints == (
        "tests/mutants.toml: shop/prices.py has no line `return a line of another day` any more: remove it.\n"
    )


@pytest.mark.slow
def test_the_checkout_is_as_it_was(shop: Path, everything: Run) -> None:
    assert everything.report
    assert (shop / "shop/prices.py").read_text() == MODULE
    files = {path.relative_to(shop).as_posix() for path in shop.rglob("*") if ".git/" not in path.as_posix()}
    assert not {name for name in files if "cache" in name or "coverage" in name}


def test_a_sample_has_its_number_depends_on_the_seed_alone_and_takes_a_line_once() -> None:
    found = mutators.find_mutants("prices.py", MODULE.encode())
    moved = mutators.find_mutants("prices.py", f"\n\n{MODULE}".encode())

    first, again, other = (mutants.sample(found, 3, seed) for seed in (1, 1, 2))

    assert len(first) == 3
    assert first == again != other
    assert [str(each).partition(" ")[2] for each in mutants.sample(moved, 3, 1)] == [
        str(each).partition(" ")[2] for each in first
    ]
    assert len({each.line for each in mutants.sample(found, 100, 1)}) == len({each.line for each in found})


@pytest.mark.parametrize(
    ("line", "mistakes"),
    [
        ("return a == b", {"return None", "return (a != b)"}),
        ("return a and not b", {"return None", "return (a or not b)", "return a and b"}),
        ("return True", {"return False"}),
        ("call(a, b)", {"pass", "call(b, a)"}),
        ("x = min(a)", {"x = max(a)"}),
        ("x = a + 'text'", set()),
        ("x = -a * 2", {"x = a * 2", "x = (-a // 2)", "x = -a * 3"}),
        ("x = [y for y in a if y]", {"x = [y for y in a if (not y)]"}),
        ("x += 1", {"pass", "x += 2"}),
        ("raise ValueError(1 + 1)", {"pass"}),
        ("x: int | None = f(1)", {"x: int | None = f(2)"}),
        ("log.info(1)", set()),
        ("assert a == b", set()),
        ("call(a, a)", {"pass"}),
        ("'a text'", set()),
        ("x = f'{a + b}'", set()),
    ],
)
def test_these_are_the_mistakes(line: str, mistakes: set[str]) -> None:
    source = f"def f(a, b):\n    {line}\n"

    found = mutators.find_mutants("m.py", source.encode())

    assert {each.changed_lines[1] for each in found} == mistakes
    for each in found:
        compile(each.apply(source.encode()), "m.py", "exec")
        assert (each.function, each.line) == ("f", 2)


def test_a_place_behind_letters_of_several_bytes_is_found() -> None:
    [mutant] = mutators.find_mutants("m.py", 'x = "größer ∞", a == b\n'.encode())

    assert mutant.changed_lines == ('x = "größer ∞", a == b', 'x = "größer ∞", (a != b)')


def test_every_module_and_every_test_that_the_settings_name_is_there() -> None:
    root = Path(mutants.__file__).parents[2]
    groups, accepted = mutants.read_settings(root)

    for group in groups:
        assert all(list(root.glob(pattern)) for pattern in group.modules), group.name
        assert all((root / name.partition("::")[0]).exists() for name in group.tests), group.name
    assert mutants.stale(root, accepted) == []
    assert all(each.reason for each in accepted)


def test_the_help_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mutants.main(["--help"])

    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--number", "--seed", "--groups", "--at", "--report", "--at-least"))
    with pytest.raises(SystemExit, match=r"No group nothing in tests/mutants\.toml: engine, validate"):
        mutants.main(["--groups", "nothing"])
