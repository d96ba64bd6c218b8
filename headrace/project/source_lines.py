"""File and line of what a declaration says: the keyword of a constructor's call, and what is inside of it.

A declaration knows where its constructor was called. The text of that file says the rest; it is parsed only where there
is something to report.
"""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path


def line_of(file: str, line: int, path: Sequence[str]) -> int:
    """The line of an argument.

    Args:
        file: The file of the constructor's call.
        line: Its line.
        path: Keyword of the constructor, then keywords, keys or items inside of its value: `("inputs", "sales")`.
            Where the text does not show one, the line of what is around it counts.
    """
    found = line
    for node in _parts(file, line, path):
        found = getattr(node, "lineno", found)
    return found


def written_call(file: str, line: int, path: Sequence[str]) -> ast.Call | None:
    """The call that an argument is written as, itself or by the name of a constant; None if its text is something else.

    The arguments are those of `line_of`.
    """
    parts = list(_parts(file, line, path))
    module = _parse(file)
    if module is None or len(parts) < len(path):
        return None
    value = _value(parts[-1], module)
    return value if isinstance(value, ast.Call) else None


def _parts(file: str, line: int, path: Sequence[str]) -> Iterator[ast.AST]:
    """What the text has at each name of a path, as far as it shows them."""
    module = _parse(file)
    if module is None:
        return
    calls = (node for node in ast.walk(module) if isinstance(node, ast.Call) and node.lineno == line)
    # The outermost call that begins there and has the keyword: `Source(location=ObjectSource(` may be one line.
    node: ast.AST | None = next(
        (call for call in calls if not path or any(word.arg == path[0] for word in call.keywords)), None
    )
    for name in path:
        node = _part(node, name, module)
        if node is None:
            return
        yield node


def class_line(file: str, name: str, attribute: str = "") -> int:
    """The line of a class, or of an attribute or method in its body."""
    module = _parse(file)
    classes = (node for node in ast.walk(module) if isinstance(node, ast.ClassDef)) if module else ()
    found = next((node for node in classes if node.name == name), None)
    if found is None:
        return 0
    named = (node for node in found.body if attribute and attribute in _names(node))
    return next((node.lineno for node in named), found.lineno)


@cache
def _parse(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _part(node: ast.AST | None, name: str, module: ast.Module) -> ast.expr | ast.keyword | None:
    """What `node` holds under `name`: a keyword of a call, a key of a dictionary, an item of a sequence."""
    match _value(node, module):
        case ast.Call(keywords=words):
            return next((word for word in words if word.arg == name), None)
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return next((value for key, value in pairs if isinstance(key, ast.Constant) and key.value == name), None)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return next((item for item in items if isinstance(item, ast.Constant) and item.value == name), None)
    return None


def _value(node: ast.AST | None, module: ast.Module) -> ast.AST | None:
    """The expression that a keyword or a name of the module stands for."""
    if isinstance(node, ast.keyword):
        node = node.value
    if not isinstance(node, ast.Name):
        return node
    assignments = (it for it in module.body if isinstance(it, ast.Assign | ast.AnnAssign) and node.id in _names(it))
    return next((assignment.value for assignment in assignments), None)


def _names(node: ast.stmt) -> set[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}
