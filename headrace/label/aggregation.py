"""annotations → labels: what the newest answers to each item add up to, and since when.

A pure function of the annotations' history. A skip is never an answer. An answer that the question does not offer, one
that may not be its author's, and every answer to an item that stays undecided, is rejected with the reason. Where the
declaration says so, an answer counts once a reviewer has accepted it in the state that it has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

ACCEPTED, SKIPPED, DELETED, SUPERSEDED, REJECTED = "accepted", "skipped", "deleted", "superseded", "rejected"
HELD = "held"
"""Status of an annotation; every one has exactly one of these. Held is an answer that waits for its review."""

REASSIGNED, EDITED_BY_OTHER = "reassigned", "edited_by_other"
DISPUTES = (REASSIGNED, EDITED_BY_OTHER)
"""Events after which an answer may not be what its author gave: its author on the server is not the one that was first
seen, or somebody else changed it last. Until its author changes it, or a reviewer accepts it, it counts for nothing."""

UNDECIDED = "no majority: as many people chose another answer"

REVIEW_EVENTS = ("accepted", "rejected", "refused")
"""Events that are a reviewer's decision on an answer; all others are what its annotator did. 0.1 wrote `refused`."""


@dataclass(frozen=True)
class AggregationResult:
    """The labels that a history of annotations adds up to.

    Attributes:
        labels: One row per item that is decided.
        rejected: The answers that were rejected, with a `reason`.
        counts: Status → number of annotations; `rows_in` is their sum.
    """

    labels: pl.DataFrame
    rejected: pl.DataFrame
    counts: dict[str, int]


Aggregator = Callable[[pl.DataFrame], pl.DataFrame]
"""Answers (`sample_id`, `annotator`, `choice`) → `sample_id`, `label`, `confidence` of each item that is decided."""


def aggregate_annotations(
    history: pl.DataFrame,
    keys: Sequence[str],
    choices: Sequence[str],
    aggregator: Aggregator | None = None,
    *,
    hold_unreviewed: bool = False,
) -> AggregationResult:
    """The labels that the annotations in `history` add up to.

    Args:
        history: Events, with the columns of `annotations.annotation_schema`.
        keys: Columns that identify an item's row, carried along.
        choices: The labels that the question offers.
        aggregator: How answers become a label; the majority vote by default.
        hold_unreviewed: Whether an answer counts only once a reviewer has accepted it.
    """
    status = with_status(history, choices, hold_unreviewed=hold_unreviewed)
    decided = _with_labels(status, (aggregator or majority_vote)(_answers(status)))
    item = list(dict.fromkeys([*keys, "sample_id", "event_time"]))
    labels = (
        decided.filter(pl.col("status") == ACCEPTED)
        .join(_known_times(history, choices, hold_unreviewed=hold_unreviewed), on="sample_id")
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
    rejected = decided.filter(pl.col("status") == REJECTED)
    columns = [*item, "annotation_id", "annotator", "choice", "result", "updated_at", "reason"]
    by_status = dict(decided.group_by("status").len().iter_rows())
    counts = {name: by_status.get(name, 0) for name in (ACCEPTED, SKIPPED, DELETED, SUPERSEDED, REJECTED, HELD)}
    return AggregationResult(labels, rejected.select(columns), {"rows_in": decided.height, **counts})


def majority_vote(answers: pl.DataFrame) -> pl.DataFrame:
    """The label that most people chose, per item, as an `Aggregator` returns it; a tied item has none."""
    tally = answers.group_by("sample_id", label="choice").len("votes")
    leading = tally.filter(pl.col("votes") == pl.col("votes").max().over("sample_id"))
    winners = leading.filter(pl.len().over("sample_id") == 1)
    all_votes = answers.group_by("sample_id").len("all_votes")
    share = (pl.col("votes") / pl.col("all_votes")).alias("confidence")
    return winners.join(all_votes, on="sample_id").select("sample_id", "label", share).sort("sample_id")


def labels_by_item(labels: pl.DataFrame) -> dict[str, str]:
    """Sample id → label."""
    return dict(labels.select("sample_id", "label").iter_rows())


def latest_events(history: pl.DataFrame) -> pl.DataFrame:
    """The last event of each annotation, review decisions aside."""
    events = history.filter(~pl.col("event").is_in(REVIEW_EVENTS))
    return events.sort("updated_at", pl.col("event") == "deleted").unique(
        "annotation_id", keep="last", maintain_order=True
    )


def active_annotations(history: pl.DataFrame) -> pl.DataFrame:
    """The last event of each annotation that is an answer and was not withdrawn, rejected or not."""
    return latest_events(history).filter(~_is_withdrawn())


def review_events(history: pl.DataFrame) -> pl.DataFrame:
    """The review decisions in `history`, oldest first, in the words `accepted` and `rejected`."""
    decisions = history.filter(pl.col("event").is_in(REVIEW_EVENTS)).sort("created_at")
    return decisions.with_columns(pl.col("event").replace("refused", "rejected"))


def accepted_answers(history: pl.DataFrame, choices: Sequence[str], *, hold_unreviewed: bool = False) -> pl.DataFrame:
    """The answers that count: `sample_id`, `annotator`, `choice`; one per annotator and item."""
    return _answers(with_status(history, choices, hold_unreviewed=hold_unreviewed))


def last_known_time(history: pl.DataFrame, choices: Sequence[str], *, hold_unreviewed: bool = False) -> datetime | None:
    """The time since which no label has changed; None without answers."""
    times = _known_times(history, choices, hold_unreviewed=hold_unreviewed)
    time: datetime | None = times["known_time"].max()  # type: ignore[assignment]
    return time


def disputed_answers(history: pl.DataFrame) -> dict[str, str]:
    """Annotation id → why the answer is set aside as perhaps not its author's, and no reviewer has accepted it."""
    last = latest_events(history).filter(pl.col("event").is_in(DISPUTES))
    last = last.join(_decisions(history), on=["annotation_id", "updated_at"], how="left")
    is_open = pl.col("decision").fill_null("") != "accepted"
    return dict(last.filter(is_open).sort("annotation_id").select("annotation_id", _dispute_reason()).iter_rows())


def with_status(history: pl.DataFrame, choices: Sequence[str], *, hold_unreviewed: bool) -> pl.DataFrame:
    """The last event of each annotation, with the `status` of its answer and the `reason` of a rejection."""
    last = latest_events(history).sort("updated_at", "annotation_id").with_row_index("order")
    # A decision is about an answer in one state: one that was changed since has another `updated_at`.
    last = last.join(_decisions(history), on=["annotation_id", "updated_at"], how="left", maintain_order="left")
    is_disputed = pl.col("event").is_in(DISPUTES) & (pl.col("decision").fill_null("") != "accepted")
    last = last.with_columns(_rejection_reason(choices, is_disputed))
    is_held = pl.col("decision").is_null() if hold_unreviewed else pl.lit(value=False)
    is_valid = ~_is_withdrawn() & pl.col("reason").is_null() & ~is_held
    is_newest = pl.col("order") == pl.col("order").filter(is_valid).max().over("sample_id", "annotator")
    return last.with_columns(
        pl.when(pl.col("event") == "deleted")
        .then(pl.lit(DELETED))
        .when(pl.col("was_cancelled") & ~is_disputed)
        .then(pl.lit(SKIPPED))
        .when(pl.col("reason").is_not_null())
        .then(pl.lit(REJECTED))
        .when(is_held)
        .then(pl.lit(HELD))
        .when(is_newest)
        .then(pl.lit(ACCEPTED))
        .otherwise(pl.lit(SUPERSEDED))
        .alias("status")
    )


def _is_withdrawn() -> pl.Expr:
    """A skip stores what was suggested along with it (Label Studio 1.23), so a choice alone makes no answer."""
    return (pl.col("event") == "deleted") | pl.col("was_cancelled")


def _rejection_reason(choices: Sequence[str], is_disputed: pl.Expr) -> pl.Expr:
    offered = ", ".join(choices)
    return (
        pl.when(is_disputed & (pl.col("decision").is_null()))
        .then(_dispute_reason())
        .when(pl.col("choice").is_null())
        .then(pl.lit("no choice was made"))
        .when(~pl.col("choice").is_in(list(choices)))
        .then(pl.format(f"{{}} is none of the choices ({offered.replace('{', '{{')})", pl.col("choice")))
        .otherwise("review")
        .alias("reason")
    )


def _dispute_reason() -> pl.Expr:
    return (
        pl.when(pl.col("event") == REASSIGNED)
        .then(pl.format("its author in Label Studio is not {}, who gave it", "annotator"))
        .otherwise(pl.format("somebody else than {}, who gave it, changed it last", "annotator"))
    )


def _decisions(history: pl.DataFrame) -> pl.DataFrame:
    """The states of annotations that a reviewer decided about.

    Returns:
        `annotation_id` and `updated_at` of the state, the last `decision` on it and its time `decided_at`, whether it
        `was_rejected` at any time, and in `review` who rejected it and why, null if it was accepted later.
    """
    last = (
        review_events(history)
        .group_by("annotation_id", "updated_at", maintain_order=True)
        .agg(
            pl.col("event", "annotator", "note").last(),
            was_rejected=(pl.col("event") == "rejected").any(),
            decided_at=pl.col("created_at").last(),
        )
    )
    time, note = pl.col("decided_at").dt.strftime("%Y-%m-%d %H:%M UTC"), pl.col("note").fill_null("no reason given")
    review = pl.when(pl.col("event") == "rejected").then(pl.format("rejected by {} on {}: {}", "annotator", time, note))
    return last.select(
        "annotation_id", "updated_at", "was_rejected", "decided_at", review=review, decision=pl.col("event")
    )


def _answers(status: pl.DataFrame) -> pl.DataFrame:
    return status.filter(pl.col("status") == ACCEPTED).select("sample_id", "annotator", "choice")


def _with_labels(status: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """With `label` and `confidence` of the item; the answers to an item that is not decided are rejected."""
    is_undecided = (pl.col("status") == ACCEPTED) & pl.col("label").is_null()
    return status.join(decided, on="sample_id", how="left", maintain_order="left").with_columns(
        pl.when(is_undecided).then(pl.lit(REJECTED)).otherwise("status").alias("status"),
        pl.when(is_undecided).then(pl.lit(UNDECIDED)).otherwise("reason").alias("reason"),
    )


def _known_times(history: pl.DataFrame, choices: Sequence[str], *, hold_unreviewed: bool) -> pl.DataFrame:
    """Since when an item's label is what it is: the last event of any annotation that ever was an answer.

    Withdrawn and rejected answers count too: until then the label may have been another. A decision changes a label
    where it rejects an answer, and where an answer counts only because it was accepted.
    """
    was_answer = (~_is_withdrawn() & pl.col("choice").is_in(list(choices))).any().over("annotation_id")
    events = history.filter(was_answer).join(_decisions(history), on=["annotation_id", "updated_at"], how="left")
    changes_label = pl.lit(hold_unreviewed) | pl.col("was_rejected") | pl.col("event").is_in(DISPUTES)
    decided_at = pl.when(changes_label).then("decided_at")
    return events.group_by("sample_id").agg(pl.max_horizontal("updated_at", decided_at).max().alias("known_time"))
