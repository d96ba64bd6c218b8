"""Review decisions → events of the history: a rejected answer makes no label until it is changed or accepted.

A decision is about an answer in exactly the state that it had. In its event `updated_at` is that state, `annotator` the
reviewer, `note` the reason, `created_at` the time of the decision. What becomes of an answer without a decision is for
the declaration to say (`LabelingTask.unreviewed`). One that may not be its author's is accepted only if asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import polars as pl

from headrace.dataset import Dataset, LabelingTask
from headrace.label import table_names
from headrace.label.aggregation import DISPUTES, active_annotations, disputed_answers, review_events
from headrace.label.annotation_log import AnnotationLogWriter
from headrace.label.annotations import Row, pseudonymize
from headrace.label.connection import pseudonym_key
from headrace.label.consensus import holds_unreviewed
from headrace.label.stage import run_label_stage
from headrace.settings import Settings
from headrace.storage.locks import wait_for_lock
from headrace.storage.table_store import TableStore

NOBODY = "nobody"
"""The reviewer where a time limit passed without a decision. It accepts only what counts without a review anyway."""

DecisionValue = Literal["accepted", "rejected"]


@dataclass(frozen=True)
class ReviewDecision:
    """A decision, and the answers that it is about.

    Attributes:
        decision: Accepted, or rejected.
        reviewer: Name of the reviewer; the history keeps a pseudonym of it.
        reason: The reason, stored as given.
        annotator: Only answers of that person, by pseudonym.
        include_reviewed: Also answers that were reviewed before.
        before: Only answers given or changed before that time.
        include_disputed: Accept also answers that may not be their authors'; rejecting includes them always.
    """

    decision: DecisionValue
    reviewer: str
    reason: str = ""
    annotator: str | None = None
    include_reviewed: bool = False
    before: datetime | None = None
    include_disputed: bool = False

    def new_events(self, history: pl.DataFrame, reviewer: str, at: datetime) -> Iterator[Row]:
        """An event for each answer that the decision is about and that it changes.

        Args:
            history: All events so far.
            reviewer: The pseudonym.
            at: The time of the decision.
        """
        answers = with_decisions(history)
        if self.annotator:
            answers = answers.filter(pl.col("annotator") == self.annotator)
        if self.before:
            answers = answers.filter(pl.col("updated_at") < self.before)
        if self.decision == "accepted" and not self.include_disputed:
            answers = answers.filter(~pl.col("event").is_in(DISPUTES))
        decision = pl.col("decision")
        is_new = decision.fill_null("") != self.decision if self.include_reviewed else decision.is_null()
        event = {"event": self.decision, "annotator": reviewer, "note": self.reason or None, "created_at": at}
        for row in answers.filter(is_new).drop("decision").iter_rows(named=True):
            yield row | event | {"choice": None, "result": "[]", "lead_time_s": None}


@dataclass(frozen=True)
class ReviewResult:
    """Result of a review.

    Attributes:
        decision: `accepted` or `rejected`.
        reviewer: The reviewer's pseudonym.
        answers: How many answers it was about.
        annotation_partitions: Partitions of the annotations that received events.
        label_partitions: Partitions of the labels that were computed.
        labels: Rows of the whole labels table.
        disputed: Answers that may not be their authors', and that no reviewer has accepted.
    """

    decision: str
    reviewer: str
    answers: int
    annotation_partitions: tuple[str, ...]
    label_partitions: tuple[str, ...]
    labels: int
    disputed: int


def review_annotations(
    dataset: Dataset, labeling: LabelingTask, table_store: TableStore, settings: Settings, decision: ReviewDecision
) -> ReviewResult:
    """Append a decision to the history, and bring the labels up to date.

    Raises:
        NothingCollectedError: There are no answers yet.
    """
    table = table_names.annotations_table(dataset, labeling)
    reviewer = pseudonymize(f"by {decision.reviewer}", pseudonym_key(settings))
    with wait_for_lock(table_store, table):
        before, history = table_store.manifest(table), table_names.read_history(dataset, labeling, table_store)
        log = AnnotationLogWriter(before, table_store, {name: history.schema[name] for name in labeling.keys})
        if not (decision.reviewer == NOBODY and decision.decision == "accepted" and holds_unreviewed(labeling)):
            log.append(decision.new_events(history, reviewer, datetime.now(UTC)))
        log.flush()
        table_store.checkout(log.manifest)
        stage = run_label_stage(dataset, labeling, table_store)
    return ReviewResult(
        decision=decision.decision,
        reviewer=reviewer,
        answers=log.event_counts[decision.decision],
        annotation_partitions=log.changed_partitions(before),
        label_partitions=tuple(stage.computed),
        labels=stage.manifest.rows,
        disputed=len(disputed_answers(table_names.read_history(dataset, labeling, table_store))),
    )


def with_decisions(history: pl.DataFrame) -> pl.DataFrame:
    """The answers that were not withdrawn, each with the last `decision` on it; null where it was not reviewed."""
    last = (
        review_events(history)
        .group_by("annotation_id", "updated_at", maintain_order=True)
        .agg(decision=pl.col("event").last())
    )
    answers = active_annotations(history)
    return answers.join(last, on=["annotation_id", "updated_at"], how="left", maintain_order="left")
