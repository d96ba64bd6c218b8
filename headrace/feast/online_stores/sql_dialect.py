"""What the SQL online stores share: names, columns, and the fence that keeps stale publishers out."""

from collections.abc import Sequence

from headrace.feast.types import KEY, STAMP

OLD_COLUMNS = {KEY: "entity key", STAMP: "event time"}
"""Column → its name in tables that 0.1 wrote. They are read as they are, and the next publish renames the columns."""

FENCE = "headrace_fences"
"""Table of the online store with the last generation that took the lead in it, one row per dataset."""

MAKE_FENCE = f"CREATE TABLE IF NOT EXISTS {FENCE} (dataset VARCHAR(511) PRIMARY KEY, generation BIGINT NOT NULL)"
RAISE_FENCE = (
    f"INSERT INTO {FENCE} (dataset, generation) VALUES ({{dataset}}, {{generation}}) ON CONFLICT (dataset) DO UPDATE"  # noqa: S608  our own names
    f" SET generation = excluded.generation WHERE {FENCE}.generation <= excluded.generation"
)
HOLD_FENCE = (
    f"UPDATE {FENCE} SET generation = {{generation}} WHERE dataset = {{dataset}} AND generation = {{generation}}"  # noqa: S608
)
"""Changes nothing, and keeps who comes later waiting until the transaction ends."""

ASK_FENCE = f"SELECT generation FROM {FENCE} WHERE dataset = {{dataset}}"  # noqa: S608  our own names


def quoted(name: str) -> str:
    """The name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def columns(features: Sequence[str]) -> str:
    """The columns of a view's table, as SQL lists them."""
    return ", ".join(map(quoted, (KEY, STAMP, *features)))


def qualified(table: str, features: Sequence[str], *, is_old: bool = False) -> list[str]:
    """The same columns, each with the alias `table`: SQLite takes an unknown quoted name without one for a text."""
    own = OLD_COLUMNS.values() if is_old else OLD_COLUMNS
    return [f"{table}.{quoted(name)}" for name in (*own, *features)]


def rename_statements(table: str) -> list[str]:
    """What gives the columns of a table that 0.1 wrote their names of today; `table` is quoted already."""
    return [f"ALTER TABLE {table} RENAME COLUMN {quoted(old)} TO {quoted(new)}" for new, old in OLD_COLUMNS.items()]


def literal(text: str) -> str:
    """The text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def filled(statement: str, project: str, dataset: str, generation: int = 0) -> str:
    """The statement about the fence of a dataset of `project`."""
    return statement.format(dataset=literal(f"{project}/{dataset}"), generation=int(generation))
