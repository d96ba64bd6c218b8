"""The public names of the package: those that two classes share, and the share of one word; `make test` prints it."""

import ast
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "headrace"


def public_names(*kinds: type[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]) -> list[tuple[str, str]]:
    """Module and name of every public class or function at the top of a module."""
    return [
        (path.relative_to(PACKAGE).as_posix(), node.name)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]


def is_one_word(name: str) -> bool:
    """Whether a name is a single word, as `Place` or `seen` is, and `PartitionEntry` or `read_csv` is not."""
    return "_" not in name and sum(letter.isupper() for letter in name) <= 1


def shared_class_names() -> dict[str, list[str]]:
    """Name → modules, of public classes whose name is not theirs alone."""
    modules: dict[str, list[str]] = defaultdict(list)
    for module, name in public_names(ast.ClassDef):
        modules[name].append(module)
    return {name: places for name, places in modules.items() if len(places) > 1}


def summary() -> str:
    """One line for people."""
    parts = []
    for kind, names in (
        ("classes", public_names(ast.ClassDef)),
        ("functions", public_names(ast.FunctionDef, ast.AsyncFunctionDef)),
    ):
        share = sum(is_one_word(name) for _, name in names) / len(names)
        parts.append(f"{share:.0%} of {len(names)} public {kind}")
    return f"names of one word: {', '.join(parts)}"


if __name__ == "__main__":
    sys.stdout.write(summary() + "\n")
