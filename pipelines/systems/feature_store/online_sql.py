"""What the SQL online stores share: names, columns, and the fence that keeps stale publishers out."""

from collections.abc import Sequence

from pipelines.errors import HeadraceError
from pipelines.systems.feature_store.encoding import KEY, STAMP
from pipelines.systems.feature_store.errors import FeatureStoreError
from pipelines.systems.publications import OvertakenError

FENCE = "headrace_fence"
"""Table of the online store with the last generation that took the lead in it, a row a project."""

MAKE_FENCE = f"CREATE TABLE IF NOT EXISTS {FENCE} (project VARCHAR(255) PRIMARY KEY, generation BIGINT NOT NULL)"
RAISE_FENCE = (
    f"INSERT INTO {FENCE} (project, generation) VALUES ({{project}}, {{generation}}) ON CONFLICT (project) DO UPDATE"  # noqa: S608  our own names
    f" SET generation = excluded.generation WHERE {FENCE}.generation <= excluded.generation"
)
HOLD_FENCE = (
    f"UPDATE {FENCE} SET generation = {{generation}} WHERE project = {{project}} AND generation = {{generation}}"  # noqa: S608
)
"""Changes nothing, and keeps who comes later waiting until the transaction ends."""

ASK_FENCE = f"SELECT generation FROM {FENCE} WHERE project = {{project}}"  # noqa: S608  our own names


def quoted(name: str) -> str:
    """The name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def columns(features: Sequence[str]) -> str:
    """The columns of a view's table, as SQL lists them."""
    return ", ".join(map(quoted, (KEY, STAMP, *features)))


def literal(text: str) -> str:
    """The text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def filled(statement: str, project: str, generation: int = 0) -> str:
    """The statement about the fence of `project`."""
    return statement.format(project=literal(project), generation=int(generation))


def left_behind(project: str, generation: int, seen: int) -> HeadraceError:
    """The error of a publisher that does not find the store as it left it, but with the fence at `seen`."""
    if seen > generation:
        return OvertakenError(
            f"The online store of {project}: publisher {generation} was overtaken by publisher {seen}, and has written"
            " nothing since. What that one serves is untouched. Run `headrace publish` again if yours is to be served."
        )
    return FeatureStoreError(
        f"The online store of {project} lost what was written to it: it was started again, empty or as it was before."
        " No service was switched; what is served may be lost too. Run `headrace publish` again: it writes all that is"
        " missing."
    )
