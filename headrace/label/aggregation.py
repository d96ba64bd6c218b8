"""annotations → labels: per item what people's newest answers add up to, known from its newest answer on.

A pure function of the annotations' history. A skip is never an answer; an answer that the question does not offer, and
every answer of an item that they leave undecided, is set aside with the reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

ANSWER, SKIPPED, DELETED, SUPERSEDED, REJECTED = "accepted", "skipped", "deleted", "superseded", "rejected"
"""What becomes of an annotation; every one becomes exactly one of these."""

UNDECIDED = "no majority: as many people chose another answer"

DECISIONS = ("accepted", "refused")
"""Events that are somebody's word on an answer; every other one is what its annotator did."""


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


Judge = Callable[[pl.DataFrame], pl.DataFrame]
"""Answers (`sample_id`, `annotator`, `choice`) → `sample_id`, `label`, `confidence` of each item that is decided."""


def decide(history: pl.DataFrame, keys: Sequence[str], choices: Sequence[str], judge: Judge | None = None) -> Verdict:
    """The labels that the annotations in `history` add up to.

    Args:
        history: Events of annotations, as `annotations.schema` lists them.
        keys: Columns that identify an item's row, carried along.
        choices: The labels that the question offers.
        judge: How answers become a label; by majority if nothing else is said.
    """
    status = _with_status(history, choices)
    sorted_out = _with_labels(status, (judge or majority)(_answers(status)))
    answers = sorted_out.filter(pl.col("status") == ANSWER)
    item = list(dict.fromkeys([*keys, "sample_id", "event_time"]))
    labels = (
        answers.join(_known_times(history, choices), on="sample_id")
        .sort("sample_id", "annotation_id")
        .group_by("sample_id", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in item if name != "sample_id"),
            pl.col("known_time").first(),
            pl.col("label").first(),
            pl.len().cast(pl.Int64).alias("votes"),
            (pl.col("choice") == pl.col("label")).mean().alias("agreement"),
            pl.col("confidence").first(),
            pl.col("annotation_id").alias("annotation_ids"),
        )
        .select(*item, "known_time", "label", "votes", "agreement", "confidence", "annotation_ids")
    )
    rejected = sorted_out.filter(pl.col("status") == REJECTED)
    seen = [*item, "annotation_id", "annotator", "choice", "result", "updated_at", "reason"]
    found = dict(sorted_out.group_by("status").len().iter_rows())
    counts = {name: found.get(name, 0) for name in (ANSWER, SKIPPED, DELETED, SUPERSEDED, REJECTED)}
    return Verdict(labels, rejected.select(seen), {"rows_in": sorted_out.height, **counts})


def newest(history: pl.DataFrame) -> pl.DataFrame:
    """The last that was done to each annotation."""
    done = history.filter(~pl.col("event").is_in(DECISIONS))
    return done.sort("updated_at", pl.col("event") == "deleted").unique(
        "annotation_id", keep="last", maintain_order=True
    )


def standing(history: pl.DataFrame) -> pl.DataFrame:
    """The last that was done to each annotation that is an answer and was not taken back, refused or not."""
    return newest(history).filter(~_is_off())


def _with_status(history: pl.DataFrame, choices: Sequence[str]) -> pl.DataFrame:
    """The last event of each annotation, with the `status` of its answer and the `reason` of a refusal."""
    last = newest(history).sort("updated_at", "annotation_id").with_row_index("order")
    last = last.join(_refusals(history), on=["annotation_id", "updated_at"], how="left", maintain_order="left")
    last = last.with_columns(_reason(choices))
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
        .otherwise("refused")
        .alias("reason")
    )


def _refusals(history: pl.DataFrame) -> pl.DataFrame:
    """Of each state of an annotation that was ever refused: who `refused` it and why, null if it was accepted later.

    And `decided_at`, when that was last decided.
    """
    said = history.filter(pl.col("event").is_in(DECISIONS)).sort("created_at")
    last = said.group_by("annotation_id", "updated_at", maintain_order=True).agg(
        pl.col("event", "annotator", "note").last(),
        ever=(pl.col("event") == "refused").any(),
        decided_at=pl.col("created_at").last(),
    )
    when, why = pl.col("decided_at").dt.strftime("%Y-%m-%d %H:%M UTC"), pl.col("note").fill_null("no reason given")
    refused = pl.when(pl.col("event") == "refused").then(pl.format("refused by {} on {}: {}", "annotator", when, why))
    return last.filter("ever").select("annotation_id", "updated_at", "decided_at", refused=refused)


def answers(history: pl.DataFrame, choices: Sequence[str]) -> pl.DataFrame:
    """The answers that count: `sample_id`, `annotator`, `choice`; one of each person an item."""
    return _answers(_with_status(history, choices))


def majority(given: pl.DataFrame) -> pl.DataFrame:
    """As `Judge`: the choice of most people; an item where several choices lead is not decided."""
    tally = given.group_by("sample_id", label="choice").len("votes")
    leading = tally.filter(pl.col("votes") == pl.col("votes").max().over("sample_id"))
    alone = leading.filter(pl.len().over("sample_id") == 1)
    all_votes = given.group_by("sample_id").len("all")
    share = (pl.col("votes") / pl.col("all")).alias("confidence")
    return alone.join(all_votes, on="sample_id").select("sample_id", "label", share).sort("sample_id")


def _answers(status: pl.DataFrame) -> pl.DataFrame:
    return status.filter(pl.col("status") == ANSWER).select("sample_id", "annotator", "choice")


def _with_labels(last: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """With `label` and `confidence` of the item; the answers of an item that is not decided are rejected."""
    undecided = (pl.col("status") == ANSWER) & pl.col("label").is_null()
    return last.join(decided, on="sample_id", how="left", maintain_order="left").with_columns(
        pl.when(undecided).then(pl.lit(REJECTED)).otherwise("status").alias("status"),
        pl.when(undecided).then(pl.lit(UNDECIDED)).otherwise("reason").alias("reason"),
    )


def known_from(history: pl.DataFrame, choices: Sequence[str]) -> datetime | None:
    """Since when the newest of all labels is what it is."""
    found: datetime | None = _known_times(history, choices)["known_time"].max()  # type: ignore[assignment]
    return found


def _known_times(history: pl.DataFrame, choices: Sequence[str]) -> pl.DataFrame:
    """Since when an item's label is what it is: the last event of any annotation that ever was an answer.

    Withdrawn and refused answers count too: until then the label may have been another.
    """
    was_answer = (~_is_off() & pl.col("choice").is_in(list(choices))).any().over("annotation_id")
    found = history.filter(was_answer).join(_refusals(history), on=["annotation_id", "updated_at"], how="left")
    return found.group_by("sample_id").agg(pl.max_horizontal("updated_at", "decided_at").max().alias("known_time"))
