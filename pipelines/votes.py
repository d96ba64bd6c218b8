"""annotations → labels: per item the majority of people's newest answers, known from its newest answer on.

A pure function of the annotations' history. A skip is never an answer; an answer that the question does not offer, and
every answer of an item without a majority, is set aside with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

ANSWER, SKIPPED, DELETED, SUPERSEDED, REJECTED = "accepted", "skipped", "deleted", "superseded", "rejected"
"""What becomes of an annotation; every one becomes exactly one of these."""


@dataclass(frozen=True)
class Verdict:
    """What people decided.

    Attributes:
        labels: One row an item that has a majority.
        rejected: The answers set aside, with a `reason`.
        counts: What became of how many annotations; `rows_in` is their sum.
    """

    labels: pl.DataFrame
    rejected: pl.DataFrame
    counts: dict[str, int]


def decide(history: pl.DataFrame, keys: Sequence[str], choices: Sequence[str]) -> Verdict:
    """The labels that the annotations in `history` add up to.

    Args:
        history: Events of annotations, as `annotations.schema` lists them.
        keys: Columns that identify an item's row, carried along.
        choices: The labels that the question offers.
    """
    sorted_out = _with_ties(_with_status(history, choices))
    answers = sorted_out.filter(pl.col("status") == ANSWER)
    item = list(dict.fromkeys([*keys, "sample_id", "event_time"]))
    labels = (
        answers.join(_known_times(history, choices), on="sample_id")
        .sort("sample_id", "annotation_id")
        .group_by("sample_id", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in item if name != "sample_id"),
            pl.col("known_time").first(),
            pl.col("choice").filter(pl.col("wins")).first().alias("label"),
            pl.len().cast(pl.Int64).alias("votes"),
            pl.col("wins").mean().alias("agreement"),
            pl.col("annotation_id").alias("annotation_ids"),
        )
        .select(*item, "known_time", "label", "votes", "agreement", "annotation_ids")
    )
    rejected = sorted_out.filter(pl.col("status") == REJECTED)
    seen = [*item, "annotation_id", "annotator", "choice", "result", "updated_at", "reason"]
    found = dict(sorted_out.group_by("status").len().iter_rows())
    counts = {name: found.get(name, 0) for name in (ANSWER, SKIPPED, DELETED, SUPERSEDED, REJECTED)}
    return Verdict(labels, rejected.select(seen), {"rows_in": sorted_out.height, **counts})


def newest(history: pl.DataFrame) -> pl.DataFrame:
    """The last event of each annotation."""
    return history.sort("updated_at", pl.col("event") == "deleted").unique(
        "annotation_id", keep="last", maintain_order=True
    )


def _with_status(history: pl.DataFrame, choices: Sequence[str]) -> pl.DataFrame:
    """The last event of each annotation, with the `status` of its answer and the `reason` of a refusal."""
    last = newest(history).sort("updated_at", "annotation_id").with_row_index("order").with_columns(_reason(choices))
    valid = ~_is_off() & pl.col("reason").is_null()
    current = pl.col("order") == pl.col("order").filter(valid).max().over("sample_id", "annotator")
    return last.with_columns(
        pl.when(pl.col("event") == "deleted")
        .then(pl.lit(DELETED))
        .when(pl.col("was_cancelled"))
        .then(pl.lit(SKIPPED))
        .when(pl.col("reason").is_not_null())
        .then(pl.lit(REJECTED))
        .when(current)
        .then(pl.lit(ANSWER))
        .otherwise(pl.lit(SUPERSEDED))
        .alias("status")
    )


def _is_off() -> pl.Expr:
    return (pl.col("event") == "deleted") | pl.col("was_cancelled")


def _reason(choices: Sequence[str]) -> pl.Expr:
    offered = ", ".join(choices)
    return (
        pl.when(pl.col("choice").is_null())
        .then(pl.lit("no choice was made"))
        .when(~pl.col("choice").is_in(list(choices)))
        .then(pl.format(f"{{}} is none of the choices ({offered.replace('{', '{{')})", pl.col("choice")))
        .alias("reason")
    )


def _with_ties(last: pl.DataFrame) -> pl.DataFrame:
    """With `wins` (it is the item's majority); the answers of an item where several choices lead are rejected."""
    counted = pl.col("status") == ANSWER
    tally = last.filter(counted).group_by("sample_id", "choice").len("given")
    leading = tally.filter(pl.col("given") == pl.col("given").max().over("sample_id"))
    tied = leading.group_by("sample_id").len("leaders").filter(pl.col("leaders") > 1)
    wins = leading.select("sample_id", "choice", wins=pl.lit(value=True))
    is_tied = counted & pl.col("leaders").is_not_null()
    return (
        last.join(wins, on=["sample_id", "choice"], how="left", maintain_order="left")
        .join(tied, on="sample_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("wins").fill_null(value=False),
            pl.when(is_tied).then(pl.lit(REJECTED)).otherwise("status").alias("status"),
            pl.when(is_tied)
            .then(pl.lit("no majority: as many people chose another answer"))
            .otherwise("reason")
            .alias("reason"),
        )
    )


def _known_times(history: pl.DataFrame, choices: Sequence[str]) -> pl.DataFrame:
    """Since when an item's label is what it is: the last event of any annotation that ever was an answer.

    Withdrawn answers count too: until they were withdrawn the label may have been another.
    """
    was_answer = (~_is_off() & pl.col("choice").is_in(list(choices))).any().over("annotation_id")
    return history.filter(was_answer).group_by("sample_id").agg(pl.col("updated_at").max().alias("known_time"))
