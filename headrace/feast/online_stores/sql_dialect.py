"""What the SQL online stores share: names, columns, and the fence that keeps stale publishers out."""

from collections.abc import Sequence

from headrace.feast.encoding import KEY, STAMP

FENCE = "headrace_fences"
"""Table of the online store with the last generation that took the lead in it, a row a dataset."""

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


def literal(text: str) -> str:
    """The text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def filled(statement: str, project: str, dataset: str, generation: int = 0) -> str:
    """The statement about the fence of a dataset of `project`."""
    return statement.format(dataset=literal(f"{project}/{dataset}"), generation=int(generation))
