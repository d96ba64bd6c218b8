"""What the SQL online stores share: Feast keeps a row a value, we want a row a key."""

import polars as pl
import pyarrow as pa

from pipelines.systems.feature_store.encoding import KEY, STAMP
from pipelines.systems.feature_store.online import View
from pipelines.systems.publications import OvertakenError

FENCE = "headrace_fence"
"""Table of the online store with the last generation that has written to it, a row a project."""

MAKE_FENCE = f"CREATE TABLE IF NOT EXISTS {FENCE} (project VARCHAR(255) PRIMARY KEY, generation BIGINT NOT NULL)"
PASS_FENCE = (
    f"INSERT INTO {FENCE} (project, generation) VALUES ({{project}}, {{generation}}) ON CONFLICT (project) DO UPDATE"  # noqa: S608  our own names
    f" SET generation = excluded.generation WHERE {FENCE}.generation <= excluded.generation"
)
ASK_FENCE = f"SELECT generation FROM {FENCE} WHERE project = {{project}}"  # noqa: S608  our own names
SCHEMA = {"entity_key": pl.Binary, "feature_name": pl.String, "value": pl.Binary, "event_ts": pl.Int64}


def quoted(name: str) -> str:
    """The name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def filled(statement: str, project: str, generation: int = 0) -> str:
    """The statement about the fence of `project`."""
    return statement.format(project=literal(project), generation=int(generation))


def overtaken(project: str, generation: int, seen: int) -> OvertakenError:
    """The error of a publisher that has come too late."""
    return OvertakenError(
        f"The online store of {project}: publisher {generation} was overtaken by publisher {seen}, and has written"
        " nothing since. What that one serves is untouched. Run `headrace publish` again if yours is to be served."
    )


def wide(found: pl.DataFrame, view: View) -> pl.DataFrame:
    """A row a key from a row a value (`SCHEMA`); a stamp on which a key's values do not agree is null."""
    stamps = found.group_by("entity_key").agg(
        pl.when(pl.col("event_ts").min() == pl.col("event_ts").max()).then(pl.col("event_ts").max()).alias(STAMP)
    )
    features = found.pivot(on="feature_name", on_columns=list(view.features), index="entity_key", values="value")
    rows = features.join(stamps, on="entity_key").rename({"entity_key": KEY})
    return rows.select(KEY, STAMP, *view.features)


def cells(rows: pl.DataFrame, view: View) -> pl.DataFrame:
    """A row a value (`SCHEMA`) from a row a key, in order of keys, as that is quicker to insert."""
    found = rows.sort(KEY).unpivot(
        on=view.features, index=[KEY, STAMP], variable_name="feature_name", value_name="value"
    )
    return found.select(entity_key=KEY, feature_name="feature_name", value="value", event_ts=STAMP)


def arrow(found: pl.DataFrame, **types: pa.DataType) -> pa.Table:
    """The cells as PostgreSQL's driver takes them."""
    kinds = {"entity_key": pa.binary(), "feature_name": pa.string(), "value": pa.binary(), **types}
    schema = pa.schema([(name, kinds[name]) for name in found.columns])
    return found.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
