"""Static check of a project's code: what a stage could read without the fingerprint noticing.

A fingerprint follows `import` statements and declared data files. Modules that are imported by a computed name, and
files that code opens without declaring them, are what it cannot follow. Nothing is run, and no data is read.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from headrace.dataset import Dataset
from headrace.engine.code_hash import project_folder
from headrace.engine.fingerprint import stage_code
from headrace.project import graph
from headrace.project.findings import Finding
from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.json_reader import JsonDialect

DIALECTS: dict[str, type[CsvDialect | JsonDialect]] = {each.__name__: each for each in (CsvDialect, JsonDialect)}

DYNAMIC_IMPORTS = frozenset(
    ("__import__", "exec", "eval", "import_module", "importlib.import_module", "runpy.run_path", "runpy.run_module")
)
READERS = ("read_", "scan_")
"""Prefixes of the functions of Polars and pandas that open a file."""
FRAME_LIBRARIES = frozenset(("pl", "polars", "pd", "pandas", "pq", "pyarrow.parquet"))
OPENERS = frozenset(("open", "io.open", "gzip.open", "np.load", "numpy.load", "np.genfromtxt", "np.loadtxt"))
PATH_METHODS = frozenset(("open", "read_text", "read_bytes"))


def check_dataset(dataset: Dataset) -> list[Finding]:
    """Findings in the code of a dataset's stages, sorted by file and line."""
    stages = graph.dataset_stages(dataset)
    # Stages share most of their files: each is parsed once.
    files = {(project_folder(stage.modules), name, stage.files) for stage in stages for name in stage_code(stage).files}
    code = ((root, name, declared) for root, name, declared in files if name.endswith(".py"))
    found = {finding for file in code for finding in check_file(*file)}
    return sorted(replace(finding, dataset=dataset.name) for finding in found)


def check_file(root: Path, name: str, declared: tuple[str, ...]) -> Iterator[Finding]:
    """Findings in one source file, `name` relative to `root`; `declared` are the files that the declaration names."""
    tree = ast.parse((root / name).read_text("utf-8"))
    constants, imported = _constants(tree, root / name), _imported(tree)
    for call, parameters in _calls(tree, frozenset()):
        function = ast.unparse(call.func)
        if function in DYNAMIC_IMPORTS:
            yield Finding(
                name,
                call.lineno,
                f"`{function}` loads code that no fingerprint follows: tables stay as they are when it changes. Use an"
                " `import` statement.",
            )
        dialect = DIALECTS.get(function.rpartition(".")[2])
        if dialect and (fault := _dialect_fault(call, dialect)):
            yield Finding(name, call.lineno, fault)
        opened = _opened(call, function, imported)
        if opened is None or _is_given(opened, parameters):
            continue
        path = _path(opened, constants)
        if path is None:
            yield Finding(
                name,
                call.lineno,
                f"`{function}` opens a file whose name is known only at run time. Take the path as a parameter, or name"
                " the file by a constant and declare it: `files=(…)`.",
            )
        elif (shown := _relative(path, root)) not in declared:
            yield Finding(
                name,
                call.lineno,
                f"`{function}` opens {shown}, which no `files=(…)` declares: tables stay as they are when it changes."
                f" Declare files=({shown!r},).",
            )


def _dialect_fault(call: ast.Call, dialect: type[CsvDialect | JsonDialect]) -> str:
    """Why no file can be read by a dialect of constants; empty if some can, or if only a run knows its arguments."""
    try:
        arguments = [ast.literal_eval(argument) for argument in call.args]
        dialect(*arguments, **{word.arg or "": ast.literal_eval(word.value) for word in call.keywords})
    except (TypeError, ValueError) as error:
        return f"{error}. Correct it." if str(error).startswith(dialect.__name__) else ""
    return ""


def _calls(node: ast.AST, parameters: frozenset[str]) -> Iterator[tuple[ast.Call, frozenset[str]]]:
    """Every call, with the parameters of the functions around it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        parameters |= {argument.arg for argument in every}
    if isinstance(node, ast.Call):
        yield node, parameters
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, parameters)


def _opened(call: ast.Call, function: str, imported: frozenset[str]) -> ast.expr | None:
    """The expression that names the file which the call opens; None if it opens none."""
    library, _, method = function.rpartition(".")
    if function in OPENERS or (library in FRAME_LIBRARIES and method.startswith(READERS)):
        return call.args[0] if call.args else next((word.value for word in call.keywords), None)
    if not isinstance(call.func, ast.Attribute) or method not in PATH_METHODS:
        return None
    is_library = library.partition(".")[0] in imported  # `Image.open(buffer)`: what it opens may be no file
    return None if is_library else call.func.value


def _imported(tree: ast.Module) -> frozenset[str]:
    """Names that the module's import statements bind."""
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return frozenset(alias.asname or alias.name.partition(".")[0] for node in statements for alias in node.names)


def _is_given(node: ast.expr, parameters: frozenset[str]) -> bool:
    """Whether the path comes from a parameter: then the engine names the file, and its hash is an input."""
    return any(isinstance(part, ast.Name) and part.id in parameters for part in ast.walk(node))


def _constants(tree: ast.Module, file: Path) -> dict[str, Path]:
    """Names that the module binds to paths that are known without running it."""
    found = {"__file__": file}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            path = _path(statement.value, found)
            if path is not None:
                found[statement.targets[0].id] = path
    return found


def _path(node: ast.expr, constants: Mapping[str, Path]) -> Path | None:  # noqa: PLR0911  one per form
    """The value of an expression of constants, as a path."""
    match node:
        case ast.Constant(value=str(text)):
            return Path(text)
        case ast.Name(id=name):
            return constants.get(name)
        case ast.Call(args=[argument]) if ast.unparse(node.func) in {"Path", "pathlib.Path"}:
            return _path(argument, constants)
        case ast.Call(func=ast.Attribute(value=value, attr="resolve" | "absolute")):
            return _path(value, constants)
        case ast.Attribute(value=value, attr="parent"):
            folder = _path(value, constants)
            return folder.parent if folder else None
        case ast.Call(func=ast.Attribute(value=value, attr="with_name" | "joinpath" as method), args=[argument]):
            base, last = _path(value, constants), _path(argument, constants)
            joined = base.parent if base and method == "with_name" else base
            return joined / last if joined and last else None
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            base, last = _path(left, constants), _path(right, constants)
            return base / last if base and last else None
    return None


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
