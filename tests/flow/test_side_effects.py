"""Every side effect in the code is inside a failpoint, at which `make faults` crashes, or a comment says why not.

The source is searched, so that a new side effect without a failpoint fails here. In addition, every crash test records
the side effects of its runs (tests/support/side_effects.py).
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import headrace

PACKAGE = Path(headrace.__file__).parent

FILES = (
    "write_bytes write_text unlink rmtree rmdir copyfile copy2 copytree move touch symlink_to hardlink_to write_table"
    " write_parquet write_csv sink_parquet"
)
OBJECTS = (
    "put_object delete_object delete_objects upload_part upload_file upload_fileobj put put_async"
    " create_multipart_upload complete_multipart_upload abort_multipart_upload"
)
DATABASES = "executemany executescript adbc_ingest create_all drop_all eval"
PROGRAMS = "Popen check_call check_output"
CHANGES = frozenset(f"{FILES} {OBJECTS} {DATABASES} {PROGRAMS}".split())
"""Names of methods and functions that change something outside of this process."""

METHOD_CALLS = frozenset(
    ("bucket.write", "bucket.delete", "store.apply", "os.rename", "os.replace", "os.truncate", "os.remove")
)
"""The same, of names that mean something else elsewhere: the end of what they are called on, and the name."""

REASON = re.compile(r"#\s*no failpoint: (?P<reason>\S.*)")
"""Comment above a function, or below a module's docstring: why what it does outside of a failpoint needs none."""

OUTSIDE = ("airflow", "stack", "templates", "testing")
"""Folders that touch no table: they start programs, and write a new project."""


def test_every_change_to_the_world_stands_in_a_point_or_has_a_reason_why_not() -> None:
    unnumbered, unused = {}, []
    for path in module_paths():
        text = (PACKAGE / path).read_text()
        found, reasons = unguarded_changes(ast.parse(text)), explained_functions(text)
        for name, lines in found.items():
            if not {name, ""} & reasons.keys():
                unnumbered[f"{path} {name}"] = lines
        unused += [f"{path}:{line}" for name, line in reasons.items() if name not in found and (name or not found)]

    assert unnumbered == {}, "put each into `with failpoints.failpoint(...)`, or say above it: `# no failpoint: why`"
    assert unused == [], "a reason for what is not there any more"


def test_an_unnumbered_change_would_be_seen() -> None:
    lines = ("path.unlink()", "bucket.delete('x')", "with failpoints.failpoint('x'):", "    path.unlink()")
    code = "\n    ".join(("def lose(path, bucket):", *lines))

    assert unguarded_changes(ast.parse(code)) == {"lose": [2, 3]}


def module_paths() -> list[str]:
    """Every module that can touch a table, by its path in the package."""
    every = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "failpoints.py")
    return sorted(path.as_posix() for path in every if path.parts[0] not in OUTSIDE)


def explained_functions(text: str) -> dict[str, int]:
    """Function (empty for the module) → line of the comment that says why it needs no failpoint."""
    lines = {number for number, line in enumerate(text.splitlines(), start=1) if REASON.search(line)}
    found: dict[str, int] = {}
    for name, node in functions(ast.parse(text), ()):
        first = min((node.lineno, *(decorator.lineno for decorator in node.decorator_list)))
        if first - 1 in lines:
            found[name] = first - 1
    rest = lines - set(found.values())
    return found | ({"": min(rest)} if rest else {})


def functions(node: ast.AST, within: tuple[str, ...]) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function, by its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield ".".join((*within, child.name)), child
        scope = (*within, child.name) if isinstance(child, ast.FunctionDef | ast.ClassDef) else within
        yield from functions(child, scope)


def unguarded_changes(code: ast.AST) -> dict[str, list[int]]:
    """Function → lines outside of any failpoint on which it has a side effect."""
    found: dict[str, list[int]] = {}
    for name, node in unguarded_nodes(code, ()):
        if isinstance(node, ast.Call) and is_change(node):
            found.setdefault(name, []).append(node.lineno)
    return found


def unguarded_nodes(node: ast.AST, within: tuple[str, ...]) -> Iterator[tuple[str, ast.AST]]:
    """Every node outside of any failpoint, with the name of its function."""
    if isinstance(node, ast.Call) and is_point(node):
        return
    if isinstance(node, ast.With) and any(is_point(item.context_expr) for item in node.items):
        return
    here = (*within, node.name) if isinstance(node, ast.FunctionDef | ast.ClassDef) else within
    yield ".".join(within), node
    for child in ast.iter_child_nodes(node):
        yield from unguarded_nodes(child, here)


def is_point(node: ast.AST) -> bool:
    """Whether it is `failpoints.failpoint(...)`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.failpoint"


def is_change(call: ast.Call) -> bool:
    """Whether the call changes something outside of this process."""
    *of, name = ast.unparse(call.func).rsplit(".", 2)
    if name == "replace":  # of a path; that of a text takes two, and that of a dataclass is no method
        return bool(of) and len(call.args) == 1 and not call.keywords
    if name == "open":
        return any(isinstance(word, ast.Constant) and set(str(word.value)) & set("wax+") for word in call.args[:2])
    if name == "eval" and of[-1:] == ["list"]:  # of Polars, on the elements of a list
        return False
    return name in CHANGES or (bool(of) and (f"{of[-1]}.{name}" in METHOD_CALLS or name == "execute"))
