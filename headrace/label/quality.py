"""answers → their quality: agreement, each annotator against gold, what is undecided; and whether that is enough.

Pure functions. They measure and never change a label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import polars as pl

from headrace.dataset import LabelingTask
from headrace.errors import HeadraceError
from headrace.label import aggregation, crowdlab, dawid_skene, item_model
from headrace.text import pluralize

SHOWN_ISSUES = 20


class QualityError(HeadraceError):
    """The labels do not reach the declared thresholds."""


class UnfinishedLabelsError(QualityError):
    """The labels do not reach the declared thresholds while their answers are still being collected."""


@dataclass(frozen=True)
class AnnotatorQuality:
    """Answers and accuracy of one annotator.

    Attributes:
        annotator: By pseudonym.
        answers: Answers that count.
        skips: Items skipped.
        agreement: Share of other people's answers to the same items that are the same; None without any.
        gold_items: Gold items answered.
        gold_accuracy: Share of those answered correctly; None without any.
    """

    annotator: str
    answers: int
    skips: int
    agreement: float | None
    gold_items: int
    gold_accuracy: float | None


@dataclass(frozen=True)
class AnnotationQuality:
    """The quality of a set of answers.

    Attributes:
        items: Items that somebody answered.
        answers: Answers that count.
        undecided: Items whose answers leave the label open.
        krippendorff_alpha: Agreement: 1 is perfect, 0 is what chance gives; None where no item has two answers.
        gold_items: Gold items with a label.
        gold_accuracy: Share of those labels that are correct, by the declared consensus.
        aggregators: Consensus → share of gold items that it labels correctly.
        annotators: One entry per annotator.
        label_issues: Items to look at again, the worst first: a model of the items doubts the label, or weighing the
            annotators gives another one.
    """

    items: int
    answers: int
    undecided: int
    krippendorff_alpha: float | None
    gold_items: int
    gold_accuracy: float | None
    aggregators: Mapping[str, float | None]
    annotators: Sequence[AnnotatorQuality]
    label_issues: Sequence[str]

    def summary_lines(self) -> list[str]:
        """The quality as text."""
        on_gold = f"{format_percent(self.gold_accuracy)} correct on {pluralize(self.gold_items, 'gold item')}"
        gold = on_gold if self.gold_items else "no gold item has a label"
        given = f"{pluralize(self.answers, 'answer')} to {pluralize(self.items, 'item')}, {self.undecided} undecided"
        head = [f"{given}; alpha {_decimal(self.krippendorff_alpha)}; {gold}"]
        by_consensus = ", ".join(f"{name} {format_percent(share)}" for name, share in self.aggregators.items())
        comparison = [f"  correct on gold items: {by_consensus}"] if self.gold_items else []
        issues = [f"  to look at again: {', '.join(self.label_issues)}"] if self.label_issues else []
        return [*head, *map(_annotator_line, self.annotators), *comparison, *issues]


def _annotator_line(one: AnnotatorQuality) -> str:
    given = f"{pluralize(one.answers, 'answer')}, {pluralize(one.skips, 'skip')}"
    gold = f", {format_percent(one.gold_accuracy)} correct on {pluralize(one.gold_items, 'gold item')}"
    agreement = format_percent(one.agreement)
    return f"  {one.annotator}: {given}, agrees with others {agreement}{gold if one.gold_items else ''}"


def measure_quality(
    history: pl.DataFrame,
    labeling: LabelingTask,
    gold: Mapping[str, str],
    items: item_model.FeatureVectors | None = None,
) -> AnnotationQuality:
    """The quality of what people answered.

    Args:
        history: Events of annotations.
        labeling: The question.
        gold: Sample id → true answer.
        items: What a model of the items may learn from, where the labeling task declares it.
    """
    answers = aggregation.accepted_answers(history, labeling.choices)
    decided = {
        "majority": aggregation.majority_vote(answers),
        "dawid_skene": dawid_skene.aggregate_answers(answers, labeling.choices),
    }
    if items:
        decided["crowdlab"] = crowdlab.aggregate_answers(answers, items, labeling.choices)
    by_consensus = {name: aggregation.labels_by_item(labels) for name, labels in decided.items()}
    labels = by_consensus[labeling.consensus]
    accuracies = {name: _accuracy(by_item, gold) for name, by_item in by_consensus.items()}
    return AnnotationQuality(
        items=answers["sample_id"].n_unique(),
        answers=answers.height,
        undecided=answers["sample_id"].n_unique() - len(labels),
        krippendorff_alpha=krippendorff_alpha(answers),
        gold_items=len(labels.keys() & gold.keys()),
        gold_accuracy=accuracies[labeling.consensus],
        aggregators=accuracies,
        annotators=_measure_annotators(history, answers, gold),
        label_issues=_label_issues(labels, by_consensus["dawid_skene"], labeling, items)[:SHOWN_ISSUES],
    )


def count_open_items(history: pl.DataFrame, labeling: LabelingTask) -> int:
    """Items that somebody answered, but not as many people as the declaration wants; a skip counts like an answer."""
    given = aggregation.latest_events(history).filter(pl.col("event") != "deleted")
    people = given.group_by("sample_id").agg(pl.col("annotator").n_unique())["annotator"]
    return int((people < labeling.annotators_per_item).sum())


def check_thresholds(quality: AnnotationQuality, labeling: LabelingTask, open_items: int = 0) -> None:
    """Check the labels against the declared thresholds.

    Args:
        quality: What was measured.
        labeling: The labeling task.
        open_items: Items that wait for more answers.

    Raises:
        UnfinishedLabelsError: They are below one, or it cannot be told, while answers are still being collected.
        QualityError: They are below one.
    """
    expected = {"agreement": labeling.thresholds.agreement, "gold": labeling.thresholds.gold}
    found = {"agreement": quality.krippendorff_alpha, "gold": quality.gold_accuracy}
    missed = [
        f"{name}: expected at least {least:g}, found {_decimal(found[name])}"
        for name, least in expected.items()
        if least is not None and (found[name] or 0) < least
    ]
    if missed:
        is_unfinished = open_items or any(found[name] is None for name, least in expected.items() if least is not None)
        error = UnfinishedLabelsError if is_unfinished else QualityError
        waiting = (
            f" {pluralize(open_items, 'item')} still {'waits' if open_items == 1 else 'wait'} for answers."
            if open_items
            else ""
        )
        raise error(
            f"labels {labeling.name} are not good enough to release. {'; '.join(missed)}.{waiting} See who differs"
            " (`headrace label report`), ask for more answers (`headrace label request-more`), then collect and run the"
            " same command again; or leave answers out of every release (`headrace label reject`), or change the"
            " thresholds in the declaration."
        )


def krippendorff_alpha(answers: pl.DataFrame) -> float | None:
    """Krippendorff's alpha for choices without an order: 1 - observed / expected disagreement.

    Items with one answer say nothing about agreement and are left out. Where all answers are the same, chance could not
    differ either; that counts as perfect agreement.
    """
    counts = answers.group_by("sample_id", "choice").len("count")
    counts = counts.with_columns(all=pl.col("count").sum().over("sample_id")).filter(pl.col("all") > 1)
    total = int(counts["count"].sum())
    if not total:
        return None
    pairs = pl.col("count") * (pl.col("all") - pl.col("count")) / (pl.col("all") - 1)
    observed = float(counts.select(pairs.sum()).item()) / total
    by_choice = counts.group_by("choice").agg(pl.col("count").sum())["count"].to_list()
    expected = (total**2 - sum(count**2 for count in by_choice)) / (total * (total - 1))
    return 1 - observed / expected if expected else 1.0


def _label_issues(
    labels: Mapping[str, str],
    weighed: Mapping[str, str],
    labeling: LabelingTask,
    items: item_model.FeatureVectors | None,
) -> list[str]:
    doubted = crowdlab.label_issues(labels, items, labeling.choices) if items else []
    differing = sorted(item for item, label in labels.items() if weighed.get(item, label) != label)
    return list(dict.fromkeys([*doubted, *differing]))


def _measure_annotators(
    history: pl.DataFrame, answers: pl.DataFrame, gold: Mapping[str, str]
) -> list[AnnotatorQuality]:
    skips = aggregation.latest_events(history).filter(pl.col("was_cancelled"), pl.col("event") != "deleted")
    skip_counts = dict(skips.group_by("annotator").len().iter_rows())
    choices: dict[str, dict[str, str]] = {}
    for item, annotator, choice in answers.sort("sample_id", "annotator").iter_rows():
        choices.setdefault(annotator, {})[item] = choice
    agrees: dict[str, list[bool]] = {}
    for one, other in permutations(choices, 2):
        shared = choices[one].keys() & choices[other].keys()
        agrees.setdefault(one, []).extend(choices[one][item] == choices[other][item] for item in shared)
    return [
        AnnotatorQuality(
            annotator=name,
            answers=len(choices.get(name, {})),
            skips=skip_counts.get(name, 0),
            agreement=_mean(agrees.get(name, [])),
            gold_items=len(choices.get(name, {}).keys() & gold.keys()),
            gold_accuracy=_accuracy(choices.get(name, {}), gold),
        )
        for name in sorted(choices.keys() | skip_counts.keys())
    ]


def _accuracy(labels: Mapping[str, str], gold: Mapping[str, str]) -> float | None:
    return _mean([labels[item] == gold[item] for item in labels.keys() & gold.keys()])


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def format_percent(share: float | None) -> str:
    """A share as text; None is unknown."""
    return "unknown" if share is None else f"{share:.1%}"


def _decimal(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
