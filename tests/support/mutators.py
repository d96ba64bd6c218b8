"""Small mistakes that can be made in a Python module, one at a time, with the place in its source.

What nothing depends on is left as it is: annotations, docstrings, texts of errors and logs, assertions, decorators.
"""

import ast
import hashlib
from dataclasses import dataclass
from functools import cached_property

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
OPPOSITES = {"min": "max", "any": "all", "head": "tail", "first": "last", "is_null": "is_not_null"}
OPPOSITES |= {value: key for key, value in OPPOSITES.items()}
ORDERLESS = ("col", "group_by", "max_horizontal", "min_horizontal")
"""Functions that mean the same whatever the order of their arguments."""

LOGS = ("log", "logging", "warnings", "logger")


@dataclass(frozen=True)
class Mutant:
    """A mistake in a module.

    Attributes:
        file: The module, below the root.
        function: The function that it is in, with its classes; empty outside of functions.
        kind: The kind of mistake.
        start: Where the replaced bytes begin.
        end: Where they end.
        replacement: What is there instead.
        source: The module.
    """

    file: str
    function: str
    kind: str
    start: int
    end: int
    replacement: bytes
    source: bytes

    def __str__(self) -> str:
        """One line for people."""
        before, after = (text.replace("\n", " ") for text in self.changed_lines)
        return f"{self.file}:{self.line} {self.kind}: `{before}` -> `{after}`"

    def apply(self, source: bytes) -> bytes:
        """The module with the mistake."""
        return source[: self.start] + self.replacement + source[self.end :]

    @cached_property
    def line(self) -> int:
        """The first line that is changed."""
        return self.source.count(b"\n", 0, self.start) + 1

    @property
    def lines(self) -> range:
        """All lines that are changed."""
        return range(self.line, self.source.count(b"\n", 0, self.end) + 2)

    @cached_property
    def changed_lines(self) -> tuple[str, str]:
        """The lines before and after, without their indentation."""
        first = self.source.rfind(b"\n", 0, self.start) + 1
        last = self.source.find(b"\n", self.end)
        before = self.source[first : last if last >= 0 else None]
        after = self.source[first : self.start] + self.replacement + self.source[self.end : last if last >= 0 else None]
        return before.decode().strip(), after.decode().strip()

    def rank(self, seed: int) -> str:
        """Its place in the order of a seed."""
        what = f"{seed} {self.file} {self.function} {self.kind} {self.changed_lines}"
        return hashlib.sha256(what.encode()).hexdigest()


def find_mutants(file: str, source: bytes) -> list[Mutant]:
    """All mutants of a module."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    finder = _Finder()
    finder.visit(ast.parse(source))
    mutants = []
    for function, kind, old, new in finder.found:
        start = starts[old.lineno - 1] + old.col_offset
        end = starts[(old.end_lineno or old.lineno) - 1] + (old.end_col_offset or 0)
        text = new if isinstance(new, str) else _in_place(old, new)
        mutants.append(Mutant(file, function, kind, start, end, text.encode(), source))
    return mutants


def _in_place(old: ast.expr | ast.stmt, new: ast.AST) -> str:
    """The source of the new node; in parentheses, as the old one may have been part of an expression."""
    text = ast.unparse(ast.fix_missing_locations(new))
    is_simple = isinstance(new, ast.Constant | ast.Name | ast.Call | ast.Attribute | ast.stmt)
    return text if is_simple or isinstance(old, ast.stmt) else f"({text})"


class _Finder(ast.NodeVisitor):
    """Collects function, kind, node, and what to put in its place."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, ast.expr | ast.stmt, ast.AST | str]] = []
        self.names: list[str] = []
        self.in_function = 0

    def add(self, kind: str, old: ast.expr | ast.stmt, new: ast.AST | str) -> None:
        self.found.append((".".join(self.names) if self.in_function else "", kind, old, new))

    # --- what is entered, and what is not ---

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.names.append(node.name)
        self.in_function += 1
        for default in (*node.args.defaults, *(each for each in node.args.kw_defaults if each)):
            self.visit(default)
        for statement in node.body:
            self.visit(statement)
        self.in_function -= 1
        self.names.pop()

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.names.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.names.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Type checkers and readers want it."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """A text."""

    def visit_Raise(self, node: ast.Raise) -> None:
        self.add("removed statement", node, "pass")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant) or _is_log(node.value):
            return
        if isinstance(node.value, ast.Call):
            self.add("removed statement", node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.add("removed statement", node, "pass")
        self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.add("removed statement", node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        self.add("removed statement", node, "pass")

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self.negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self.negate(condition)
        self.generic_visit(node)

    # --- mistakes ---

    def negate(self, test: ast.expr) -> None:
        if isinstance(test, ast.Name | ast.Call | ast.Attribute | ast.Subscript):
            self.add("negated condition", test, ast.UnaryOp(ast.Not(), test))

    def visit_Compare(self, node: ast.Compare) -> None:
        for place, operator in enumerate(node.ops):
            other = COMPARISONS[type(operator)]()
            ops = [*node.ops[:place], other, *node.ops[place + 1 :]]
            self.add("comparison", node, ast.Compare(node.left, ops, node.comparators))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self.add("boolean", node, ast.BoolOp(other, node.values))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        other = ARITHMETIC.get(type(node.op))
        if other and not any(_is_text(side) for side in (node.left, node.right)):
            self.add("arithmetic", node, ast.BinOp(node.left, other(), node.right))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.Invert | ast.USub):
            self.add("dropped not" if isinstance(node.op, ast.Not) else "dropped sign", node, node.operand)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add("constant", node, ast.Constant(not node.value))
        elif isinstance(node.value, int | float):
            self.add("constant", node, ast.Constant(node.value + 1))

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not isinstance(node.value, ast.Constant):
            self.add("changed return", node, "return None")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _name(node.func)
        if name == "cast" and isinstance(node.func, ast.Name):
            self.visit(node.args[1])
            return
        if len(node.args) > 1 and name != "isinstance" and not any(isinstance(each, ast.Starred) for each in node.args):
            first, second, *rest = node.args
            if ast.dump(first) != ast.dump(second) and _name(node.func) not in ORDERLESS:
                self.add("swapped arguments", node, ast.Call(node.func, [second, first, *rest], node.keywords))
        if name in OPPOSITES:
            other = OPPOSITES[name]
            function = (
                ast.Attribute(node.func.value, other) if isinstance(node.func, ast.Attribute) else ast.Name(other)
            )
            self.add("opposite", node, ast.Call(function, node.args, node.keywords))
        self.generic_visit(node)


def _name(function: ast.expr) -> str:
    """Last part of the name of a function; empty if it has none."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_log(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value
    return isinstance(owner, ast.Name) and owner.id in LOGS


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
