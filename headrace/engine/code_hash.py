"""Code fingerprints: the source files that a stage's functions are made of, found by following their imports.

Nobody lists them, so nobody can forget one. Followed are the project's own modules and every package that is not a
released distribution: installed editable, from a path or from a repository, or found on `PYTHONPATH`. A distribution
from an index counts by its version, the engine by its result versions (`result_versions.py`).

Comments, docstrings, blank lines and trailing white space do not count: two texts that differ in these alone have one
hash, in every supported version of Python.
"""

import ast
import hashlib
import re
import site
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import (  # type: ignore[attr-defined]
    Distribution,
    PackageNotFoundError,
    _top_level_declared,
    _top_level_inferred,
    distribution,
    distributions,
)
from importlib.util import decode_source, find_spec
from pathlib import Path

from headrace.project_modules import loaded_source

ENGINE = __name__.partition(".")[0]
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where a node of the syntax tree holds statements."""
PARSING = threading.Lock()
"""Threads that parse at the same time may get a SystemError about the recursion depth (seen with Python 3.11)."""
STRING_OR_COMMENT = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*"""|'{3}(?:[^'\\]|\\.|'(?!''))*'{3}'''
    r"""|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(?P<comment>\#[^\n]*)""",
    re.DOTALL,
)


@dataclass(frozen=True)
class SourceCode:
    """The code behind some modules.

    Attributes:
        files: File of the project, relative to its root → hash.
        packages: File of another package that no index released, relative to where Python finds it → hash.
        libraries: Released distribution that the code imports → version.
    """

    files: Mapping[str, str]
    packages: Mapping[str, str]
    libraries: Mapping[str, str]


def source_code(modules: Iterable[str], root: Path | None = None) -> SourceCode:
    """The code of `modules` and of all that they import: of a module that is loaded, what was compiled.

    Args:
        modules: Dotted names.
        root: The project; by default the folder from which Python imports the first of `modules`.
    """
    waiting = list(modules)
    root = root or project_folder(waiting)
    files: dict[str, str] = {}
    packages: dict[str, str] = {}
    libraries: dict[str, str] = {}
    done: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in done:
            continue
        done.add(module)
        top = _top(module)
        if top == ENGINE or top in sys.stdlib_module_names:
            continue
        in_project = _is_below(top, root)
        folder = root if in_project else import_folder(top)
        if folder is None:
            libraries |= _versions(top)
            continue
        path = _file(module, folder)
        if path is None:
            continue
        own = files if in_project else packages
        source = loaded_source(path)
        hashed, imported = read_code(path.read_bytes() if source is None else source, path.relative_to(folder))
        own[path.relative_to(folder).as_posix()] = hashed
        waiting += imported
    return SourceCode(dict(sorted(files.items())), dict(sorted(packages.items())), dict(sorted(libraries.items())))


def project_folder(modules: Iterable[str]) -> Path:
    """The folder from which Python imports the first of `modules` that is not a library's."""
    tops = (_top(name) for name in modules)
    folders = (import_folder(top) for top in tops if top != ENGINE)
    return next((folder for folder in folders if folder is not None), Path())


def current_hashes(name: str, root: Path) -> set[str]:
    """Hashes of a source file: as it lies there now, empty if it is gone, and of what was compiled if it is loaded.

    Args:
        name: A name of `SourceCode.files` or of `SourceCode.packages`.
        root: The project.
    """
    path = root / name
    if not path.is_file():
        path = (import_folder(_top(name.removesuffix(".py").replace("/", "."))) or root) / name
    lies_there = read_code(path.read_bytes(), Path(name))[0] if path.is_file() else ""
    loaded = loaded_source(path)
    return {lies_there} if loaded is None else {lies_there, read_code(loaded, Path(name))[0]}


def fingerprint(files: Mapping[str, str]) -> str:
    """One hash for all of `files`."""
    return hashlib.sha256("\n".join(f"{name} {files[name]}" for name in sorted(files)).encode()).hexdigest()[:32]


@cache  # a distribution's metadata are parsed as an email each time
def library_version(name: str) -> str:
    """Version of an installed distribution, as a cache key and a lock file hold it."""
    return distribution(name).version


# Where a module comes from


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_below(top: str, root: Path) -> bool:
    return (root / f"{top}.py").is_file() or ((root / top).is_dir() and _holds_code(root / top))


@lru_cache(maxsize=1024)
def _holds_code(folder: Path) -> bool:
    """A folder of data or of notes that shares a library's name is not a package."""
    return (folder / "__init__.py").is_file() or next(folder.glob("*.py"), None) is not None


@cache
def import_folder(top: str) -> Path | None:
    """Folder that holds the top-level module; None for a released distribution, and for what is not installed."""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):  # a parent that fails, or `__main__`, which has no specification
        return None
    if spec is None:
        return None
    found = next(iter(spec.submodule_search_locations or ()), None) or spec.origin
    if not found or found in {"built-in", "frozen"}:
        return None
    folder = Path(found).resolve().parent
    if not any(folder.is_relative_to(one) for one in _site_packages()):
        return folder
    return folder if any(_is_unreleased(one) for one in find_distributions(top)) else None


@cache
def _site_packages() -> tuple[Path, ...]:
    paths = {*site.getsitepackages(), site.getusersitepackages(), *map(sysconfig.get_path, ("purelib", "platlib"))}
    return tuple(Path(path).resolve() for path in paths)


def _is_unreleased(found: Distribution) -> bool:
    """Whether the distribution came from a path or a repository (PEP 610): its version says nothing of its code."""
    return found.read_text("direct_url.json") is not None


@cache
def find_distributions(top: str) -> tuple[Distribution, ...]:
    """The distributions that provide a top-level module: mostly the one of its name, which costs no search."""
    try:
        named = distribution(top)
        if _lists(named.read_text("RECORD") or "", f"{top}/", f"{top}.py,"):
            return (named,)
    except PackageNotFoundError:
        pass
    return tuple(map(distribution, sorted({one.name for one in distributions() if _provides(one, top)})))


def _provides(found: Distribution, top: str) -> bool:
    """Whether `importlib.metadata.packages_distributions` has the distribution under `top`.

    That function parses the metadata of everything that is installed, half a second for a few hundred distributions.
    """
    if declared := _top_level_declared(found):
        return top in declared
    record = found.read_text("RECORD")
    return (record is None or _lists(record, f"{top}/", f"{top}.")) and top in _top_level_inferred(found)


def _lists(record: str, *beginnings: str) -> bool:
    """Whether a list of a distribution's files has a line with one of the beginnings."""
    return any(record.startswith(beginning) or f"\n{beginning}" in record for beginning in beginnings)


@cache
def _versions(top: str) -> Mapping[str, str]:
    return {normalized(one.name): one.version for one in find_distributions(top)}


def normalized(name: str) -> str:
    """A distribution's name in its one normal form (PEP 503): no dots, which would cut a parameter's name in DVC."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _file(module: str, folder: Path) -> Path | None:
    """File of `module`; None where it names something inside a module, or a package without code of its own."""
    base = folder.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


# What a file imports, and what of it is code


def hash_or_nothing(source: bytes, path: Path) -> str:
    """Hash of what Python would run of a file; empty for what is no Python, with which nothing was ever computed."""
    try:
        return read_code(source, path)[0]
    except (SyntaxError, ValueError):
        return ""


@lru_cache(maxsize=1024)
def read_code(source: bytes, path: Path) -> tuple[str, tuple[str, ...]]:
    """Hash of what Python would run of a file, and the modules that it imports."""
    with PARSING:
        tree = ast.parse(source)
    return _hash(decode_source(source), tree), tuple(_imports(tree, path))


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
    package = path.parts[: len(path.parts) - node.level]
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
