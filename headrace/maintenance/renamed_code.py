"""Whether code differs from what computed a table in names of tables alone, so that what it computed stays valid.

A manifest has a hash of each source file. A file whose hash differs is compared with the text that had the recorded
hash, from the history of git, as syntax trees in which the new names are replaced by the old ones: in the name of a
declaration, in the table that an `Input` names, and in imports. Nothing else may differ, not even the name of a
variable: then the tables are computed again, as after any change of code.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.dataset import pointer_name
from headrace.engine.code_hash import hash_or_nothing
from headrace.engine.fingerprint import Fingerprint
from headrace.engine.stage import own_params
from headrace.project.input_check import FOREIGN_STATES
from headrace.storage import git
from headrace.storage.manifest import Manifest
from headrace.workspace import PACKAGE

DECLARATIONS = ("Source", "FeatureTable", "DerivedTable", "LabelingTask")
READERS = ("Input", "ItemFeatures")
"""Constructors whose first argument, `table`, is the table that is read."""

KEPT_TABLE = re.compile(rf"raw/(.+?)__({'|'.join(FOREIGN_STATES)})__(.+)")
"""Where a table of another dataset is kept: dataset, state and name."""

HISTORY = 50
"""Commits of a file that are searched for the text that computed a table."""


@dataclass(frozen=True)
class Renaming:
    """What was renamed.

    Attributes:
        old_dataset: The dataset before.
        new_dataset: The dataset now; the same if tables were renamed.
        tables: New table → old table, `<state>/<dataset>/<name>`.
    """

    old_dataset: str
    new_dataset: str
    tables: Mapping[str, str]

    @property
    def new_tables(self) -> dict[str, str]:
        """Old table → new table."""
        return {old: new for new, old in self.tables.items()}

    def old_name(self, name: str) -> str:
        """What a declaration of that name was called."""
        return {_own(new): _own(old) for new, old in self.tables.items()}.get(name, name)

    def old_input(self, table: str) -> str:
        """What a table that an `Input` names, without its dataset, was called."""
        names = {_relative(new): _relative(old) for new, old in self.tables.items()}
        kept_at = f"raw/{pointer_name(table)}"
        if ":" in table and kept_at in names:
            return KEPT_TABLE.sub(r"\1:\2/\3", names[kept_at])
        return names.get(table, table)

    def old_path(self, path: str) -> str:
        """Where a source file of the dataset was, if its name follows that of its table or its dataset."""
        parts = path.split("/")
        if len(parts) < 2 or parts[:2] != [PACKAGE, self.new_dataset]:  # noqa: PLR2004
            return path
        *folders, file = parts
        stem, dot, ending = file.partition(".")
        return "/".join((PACKAGE, self.old_dataset, *folders[2:], f"{self.old_name(stem)}{dot}{ending}"))


def _own(table: str) -> str:
    return table.rsplit("/", 1)[1]


def _relative(table: str) -> str:
    state, _, own = table.split("/")
    return f"{state}/{own}"


def find_difference(old: Manifest, new: Fingerprint, renaming: Renaming, root: Path, revisions: Iterable[str]) -> str:
    """What differs beyond names between what computed a table and what would compute it now; empty if nothing does.

    Args:
        old: The table as it was computed.
        new: The fingerprint of its stage now.
        renaming: What was renamed.
        root: The workspace.
        revisions: Commits that are searched first for the texts that computed it.
    """
    if old.result_version != new.result_version:
        return "another version of the engine"
    if own_params(old.params) != own_params(new.params):
        return "other values in params.yaml"
    if dict(old.libraries) != dict(new.libraries):
        return "other versions of libraries"
    paths = {path: path if path in old.code else renaming.old_path(path) for path in new.code}
    if sorted(paths.values()) != sorted(old.code):
        return f"other files: {', '.join(sorted({*paths.values()} ^ old.code.keys()))}"
    modules = {_module(path): _module(before) for path, before in paths.items() if path != before}
    search = list(revisions)
    for path, before in paths.items():
        if new.code[path] == old.code[before]:
            continue
        text = _text_with_hash(root, before, old.code[before], search) if path.endswith(".py") else None
        if text is None or not _is_same(text, (root / path).read_bytes(), renaming, modules):
            return f"changes of {path}"
    return ""


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _text_with_hash(root: Path, path: str, wanted: str, revisions: Iterable[str]) -> bytes | None:
    """The text of a file that has the hash; None if git has none."""
    return next(
        (text for text in _versions(root, path, revisions) if hash_or_nothing(text, Path(path)) == wanted), None
    )


def _versions(root: Path, path: str, revisions: Iterable[str]) -> Iterator[bytes]:
    yield from (text for revision in revisions if (text := git.show(root, revision, path)) is not None)
    commits = git.git(root, "log", f"--max-count={HISTORY}", "--format=%H", "--", path).split()
    for commit in commits:
        text = git.show(root, commit, path) or git.show(root, f"{commit}^", path)  # where it was deleted: before that
        if text is not None:
            yield text


def _is_same(old: bytes, new: bytes, renaming: Renaming, modules: Mapping[str, str]) -> bool:
    before, after = _Code().visit(ast.parse(old)), _OldNames(renaming, modules).visit(ast.parse(new))
    return ast.dump(before) == ast.dump(after)


class _Code(ast.NodeTransformer):
    """Leaves the code without its docstrings, which no fingerprint follows."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)


class _OldNames(_Code):
    """Also replaces the new names by the old ones."""

    def __init__(self, renaming: Renaming, modules: Mapping[str, str]) -> None:
        self.renaming, self.modules = renaming, modules

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if called in DECLARATIONS:
            for word in node.keywords:
                if word.arg == "name":
                    word.value = _replaced(word.value, self.renaming.old_name)
        if called in READERS:
            node.args = [_replaced(node.args[0], self.renaming.old_input), *node.args[1:]] if node.args else []
            for word in node.keywords:
                if word.arg == "table":
                    word.value = _replaced(word.value, self.renaming.old_input)
        return self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        node.module = self._old_module(node.module) if node.module else None
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            alias.name = self._old_module(alias.name)
        return node

    def _old_module(self, module: str) -> str:
        return self.modules.get(module, module)


def _replaced(value: ast.expr, rename: Callable[[str], str]) -> ast.expr:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return ast.copy_location(ast.Constant(rename(value.value), value.kind), value)
    return value
