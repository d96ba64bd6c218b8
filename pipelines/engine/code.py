"""Code fingerprints: the source files a function is made of, found by following its imports inside `pipelines/`.

Nobody lists them, so nobody can forget one. Comments, docstrings, blank lines and trailing white space do not count:
two texts that differ in these alone have one hash, in every supported version of Python.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

PACKAGE = "pipelines"
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where a node of the syntax tree holds statements."""
STRING_OR_COMMENT = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*"""|'{3}(?:[^'\\]|\\.|'(?!''))*'{3}'''
    r"""|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(?P<comment>\#[^\n]*)""",
    re.DOTALL,
)
RUNNING = Path(__file__).resolve().parents[2]
"""Where the code of this process came from."""


def closure(modules: Iterable[str], root: Path = RUNNING) -> dict[str, str]:
    """Source file (relative to `root`) → hash, for `modules` and all they import inside `pipelines/`, sorted.

    Args:
        modules: Dotted names below `pipelines`.
        root: The clone whose `pipelines/` is meant; by default what runs, wherever the data is.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        path = _file(waiting.pop(), root)
        if path is None or (name := path.relative_to(root).as_posix()) in found:
            continue
        found[name], imported = _read(path, path.stat().st_mtime_ns)
        waiting += imported
    return dict(sorted(found.items()))


def fingerprint(files: Mapping[str, str]) -> str:
    """One hash for all of `files`."""
    return hashlib.sha256("\n".join(f"{name} {files[name]}" for name in sorted(files)).encode()).hexdigest()[:32]


def code_hash(text: str) -> str:
    """Hash of what Python would run of `text`."""
    return _hash(text, ast.parse(text))


@lru_cache(maxsize=1024)
def _read(path: Path, _changed: int) -> tuple[str, tuple[str, ...]]:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    return _hash(text, tree), tuple(_imports(tree, path))


def _file(module: str, root: Path) -> Path | None:
    """File of `module`; None where it names something inside a module, or nothing of ours."""
    if module != PACKAGE and not module.startswith(PACKAGE + "."):
        return None
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imports(tree: ast.Module, path: Path) -> Iterator[str]:
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, path)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The node and every statement in it; expressions, which hold none, are left out."""
    yield node
    for block in BLOCKS:
        for inner in getattr(node, block, ()):
            yield from _statements(inner)


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    parts = path.parts
    package = parts[len(parts) - 1 - parts[::-1].index(PACKAGE) : len(parts) - node.level]
    return ".".join([*package, *((node.module or "").split(".") if node.module else [])])


def _hash(text: str, tree: ast.Module) -> str:
    lines = STRING_OR_COMMENT.sub(lambda found: "" if found["comment"] else found[0], text).splitlines()
    for first, last in _docstrings(tree):
        lines[first - 1 : last] = [""] * (last - first + 1)
    code = "\n".join(line.rstrip() for line in lines if line.strip())
    return hashlib.sha256(code.encode()).hexdigest()[:32]


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, int]]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in _statements(tree):
        body = node.body if isinstance(node, holders) else []
        # Beyond a class's first line, a bare string is an attribute's docstring.
        for statement in body if isinstance(node, ast.Module | ast.ClassDef) else body[:1]:
            if _is_text(statement):
                yield statement.lineno, statement.end_lineno or statement.lineno


def _is_text(statement: ast.stmt) -> bool:
    constant = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)
