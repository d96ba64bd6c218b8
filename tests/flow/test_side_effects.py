"""Every side effect in the code stands in a numbered point, where `make faults` lets it die, or has a reason why not.

Found in the source, so that one that is new and has no point fails here, whichever system it changes. What a run does
is listened to besides, in every rehearsal (tests/support/side_effects.py).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import headrace

HOUSE = Path(headrace.__file__).parent

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

OF = frozenset(("bucket.write", "bucket.delete", "store.apply", "os.rename", "os.replace", "os.truncate", "os.remove"))
"""The same, of names that mean something else elsewhere: the end of what they are called on, and the name."""

READS = "asks: what it makes is a temporary table of its own connection"
ASKED = "does what it is asked to, and whoever asks stands in a point"
IN_TRANSACTION = "nobody sees it before the transaction ends, and that is a point"
NOBODY_READS = "a temporary of the cache, which nobody reads before the point that renames it"
REASONS = {
    "care/leftovers.py _guarded": "the kernel holds the lock; the file is empty",
    "care/repair.py _adopt": NOBODY_READS,
    "care/repair.py _from_workspace": NOBODY_READS,
    "care/repair.py _move": NOBODY_READS,
    "engine/lake.py Lake.lease": "the kernel holds the lock; the file only tells people whose it is",
    "engine/parquet.py _write_groups": ASKED,
    "engine/parquet.py content": "bytes in memory",
    "engine/parquet.py write": ASKED,
    "engine/parquet.py write_all": ASKED,
    "systems/dvc/cache.py Cache._temporary": NOBODY_READS,
    "systems/dvc/cache.py Cache.add_bytes": NOBODY_READS,
    "systems/dvc/cache.py _copy": ASKED,
    "systems/feature_store/online_postgresql.py": IN_TRANSACTION,
    "systems/feature_store/online_redis.py": "a script, which Redis runs whole; whoever asks stands in a point",
    "systems/feature_store/online_sqlite.py": IN_TRANSACTION,
    "systems/feature_store/tables.py tables_of": "a registry in memory",
    "systems/feature_store/verified.py Verified.keep": "a memory: who lacks a line, or has it torn, hashes the file",
    "systems/git.py _leave_lock": "what a killed git does, in a rehearsal only",
    "systems/s3/bucket.py Bucket.download": NOBODY_READS,
    "systems/s3/bucket.py Bucket.write": ASKED,
    "systems/publications.py Publications._generation": "locks a row, and changes nothing in it",
    "systems/publications.py Publications._make": READS,
    "systems/publications.py Publications.note": "in the transaction of the switch, which is a point",
    "systems/publications.py Publications.online": READS,
    "systems/s3/transfer.py Transfer._put": ASKED,
    "systems/database/sqlite.py SQLite._run": "a source, and the statements are SELECTs",
}
"""Module, and function where it is only one → why what it does outside of a point needs none."""


def test_every_change_to_the_world_stands_in_a_point_or_has_a_reason_why_not() -> None:
    found = {
        f"{path} {name}": lines
        for path in sources()
        for name, lines in changes(ast.parse((HOUSE / path).read_text())).items()
    }

    unnumbered = {place: lines for place, lines in found.items() if not {place, place.split(" ")[0]} & REASONS.keys()}
    assert unnumbered == {}, "put each into `with failpoints.failpoint(...)`, or say in REASONS why it needs none"
    there = {*found, *(place.split(" ")[0] for place in found)}
    assert there >= REASONS.keys(), "a reason for what is not there any more"


def test_an_unnumbered_change_would_be_seen() -> None:
    lines = ("path.unlink()", "bucket.delete('x')", "with failpoints.failpoint('x'):", "    path.unlink()")
    code = "\n    ".join(("def lose(path, bucket):", *lines))

    assert changes(ast.parse(code)) == {"lose": [2, 3]}


def sources() -> list[str]:
    """Every module, by its path in the package."""
    return sorted(path.relative_to(HOUSE).as_posix() for path in HOUSE.rglob("*.py") if path.name != "faults.py")


def changes(code: ast.AST) -> dict[str, list[int]]:
    """Function → lines outside of any point on which it changes the world."""
    found: dict[str, list[int]] = {}
    for name, node in unguarded(code, ()):
        if isinstance(node, ast.Call) and is_change(node):
            found.setdefault(name, []).append(node.lineno)
    return found


def unguarded(node: ast.AST, within: tuple[str, ...]) -> Iterator[tuple[str, ast.AST]]:
    """Every node that stands in no point, with the name of its function."""
    if isinstance(node, ast.Call) and is_point(node):
        return
    if isinstance(node, ast.With) and any(is_point(item.context_expr) for item in node.items):
        return
    here = (*within, node.name) if isinstance(node, ast.FunctionDef | ast.ClassDef) else within
    yield ".".join(within), node
    for child in ast.iter_child_nodes(node):
        yield from unguarded(child, here)


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
    return name in CHANGES or (bool(of) and (f"{of[-1]}.{name}" in OF or name == "execute"))
