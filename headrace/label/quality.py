"""answers → how good they are: agreement, each person against gold, what is undecided; and whether that is enough.

Pure. It measures and never changes a label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import polars as pl

from headrace.dataset import LabelingTask
from headrace.errors import HeadraceError
from headrace.label import aggregation, crowdlab, dawid_skene, item_model
from headrace.text import pluralize

SHOWN = 20


class QualityError(HeadraceError):
    """The labels do not reach what their declaration asks for."""


@dataclass(frozen=True)
class Person:
    """An annotator: answers, skips, share of others' answers to the same items that are the same, right on gold."""

    annotator: str
    answers: int
    skips: int
    agrees: float | None
    gold: int
    right: float | None


@dataclass(frozen=True)
class Quality:
    """What a batch of answers is worth.

    Attributes:
        items: Items that somebody answered.
        answers: Answers that count.
        undecided: Items whose answers leave the label open.
        alpha: Krippendorff's alpha; None where no item has two answers.
        gold: Gold items with a label.
        right: Share of them with the true one, by the way that makes the labels.
        ways: Way to make labels → share right on gold.
        people: Who answered.
        doubtful: Items whose label is not what weighing the people says, or that a model of the items doubts: to look
            at again, the worst first.
    """

    items: int
    answers: int
    undecided: int
    alpha: float | None
    gold: int
    right: float | None
    ways: Mapping[str, float | None]
    people: Sequence[Person]
    doubtful: Sequence[str]

    def lines(self) -> list[str]:
        """For people."""
        judged = f"{share(self.right)} right on {pluralize(self.gold, 'gold item')}"
        gold = judged if self.gold else "no gold item has a label"
        given = f"{pluralize(self.answers, 'answer')} to {pluralize(self.items, 'item')}, {self.undecided} undecided"
        head = [f"{given}; alpha {_number(self.alpha)}; {gold}"]
        people = map(_line, self.people)
        ways = ", ".join(f"{way} {share(right)}" for way, right in self.ways.items())
        doubtful = [f"  to look at again: {', '.join(self.doubtful)}"] if self.doubtful else []
        return [*head, *people, *([f"  on gold: {ways}"] if self.gold else []), *doubtful]


def _line(person: Person) -> str:
    on_gold = f", right on {pluralize(person.gold, 'gold item')} {share(person.right)}" if person.gold else ""
    given = f"{pluralize(person.answers, 'answer')}, {pluralize(person.skips, 'skip')}"
    said = f"{given}, agrees with others {share(person.agrees)}"
    return f"  {person.annotator}: {said}{on_gold}"


def measure(
    history: pl.DataFrame, labeling: LabelingTask, gold: Mapping[str, str], items: item_model.Items | None = None
) -> Quality:
    """The quality of what people did.

    Args:
        history: Events of annotations.
        labeling: The question.
        gold: Sample id → true answer.
        items: What a model of the items may learn from, where the labeling declares it.
    """
    given = aggregation.answers(history, labeling.choices)
    ways = {"majority": aggregation.majority(given), "dawid_skene": dawid_skene.judge(given, labeling.choices)}
    if items:
        ways["crowdlab"] = crowdlab.judge(given, items, labeling.choices)
    labels = _by_item(ways[labeling.consensus])
    right = {way: _right(_by_item(found), gold) for way, found in ways.items()}
    return Quality(
        items=given["sample_id"].n_unique(),
        answers=given.height,
        undecided=given["sample_id"].n_unique() - len(labels),
        alpha=alpha(given),
        gold=len(labels.keys() & gold.keys()),
        right=right[labeling.consensus],
        ways=right,
        people=_people(history, given, gold),
        doubtful=_doubtful(labels, _by_item(ways["dawid_skene"]), labeling, items)[:SHOWN],
    )


def gate(found: Quality, labeling: LabelingTask) -> None:
    """Refuse labels that are not good enough.

    Raises:
        QualityError: They are below a threshold.
    """
    wanted = {"agreement": labeling.thresholds.agreement, "gold": labeling.thresholds.gold}
    seen = {"agreement": found.alpha, "gold": found.right}
    missed = [
        f"{name}: expected at least {least:g}, seen {_number(seen[name])}"
        for name, least in wanted.items()
        if least is not None and (seen[name] or 0) < least
    ]
    if missed:
        raise QualityError(
            f"labels {labeling.name} are not good enough to release. {'; '.join(missed)}. Look at who differs"
            " (`headrace label report`), ask for more opinions (`headrace label request-more`), then collect and run"
            " the same command again; or leave answers out of every release (`headrace label reject`), or"
            " change the thresholds in the declaration."
        )


def alpha(given: pl.DataFrame) -> float | None:
    """Krippendorff's alpha for choices without an order: 1 - observed / expected disagreement.

    Items with one answer say nothing about agreement and are left out. Where all answers are one and the same, there is
    nothing that chance could differ by; that counts as agreement.
    """
    counts = given.group_by("sample_id", "choice").len("count")
    counts = counts.with_columns(all=pl.col("count").sum().over("sample_id")).filter(pl.col("all") > 1)
    total = int(counts["count"].sum())
    if not total:
        return None
    pairs = pl.col("count") * (pl.col("all") - pl.col("count")) / (pl.col("all") - 1)
    observed = float(counts.select(pairs.sum()).item()) / total
    each = counts.group_by("choice").agg(pl.col("count").sum())["count"].to_list()
    expected = (total**2 - sum(count**2 for count in each)) / (total * (total - 1))
    return 1 - observed / expected if expected else 1.0


def _doubtful(
    labels: Mapping[str, str], weighed: Mapping[str, str], labeling: LabelingTask, items: item_model.Items | None
) -> list[str]:
    doubted = crowdlab.suspects(labels, items, labeling.choices) if items else []
    differs = sorted(item for item, label in labels.items() if weighed.get(item, label) != label)
    return list(dict.fromkeys([*doubted, *differs]))


def _people(history: pl.DataFrame, given: pl.DataFrame, gold: Mapping[str, str]) -> list[Person]:
    skips = aggregation.newest(history).filter(pl.col("was_cancelled"), pl.col("event") != "deleted")
    skipped = dict(skips.group_by("annotator").len().iter_rows())
    answers: dict[str, dict[str, str]] = {}
    for item, who, choice in given.sort("sample_id", "annotator").iter_rows():
        answers.setdefault(who, {})[item] = choice
    same: dict[str, list[bool]] = {}
    for who, other in permutations(answers, 2):
        shared = answers[who].keys() & answers[other].keys()
        same.setdefault(who, []).extend(answers[who][item] == answers[other][item] for item in shared)
    return [
        Person(
            annotator=who,
            answers=len(answers.get(who, {})),
            skips=skipped.get(who, 0),
            agrees=_mean(same.get(who, [])),
            gold=len(answers.get(who, {}).keys() & gold.keys()),
            right=_right(answers.get(who, {}), gold),
        )
        for who in sorted(answers.keys() | skipped.keys())
    ]


def _by_item(labels: pl.DataFrame) -> dict[str, str]:
    return dict(labels.select("sample_id", "label").iter_rows())


def _right(labels: Mapping[str, str], gold: Mapping[str, str]) -> float | None:
    return _mean([labels[item] == gold[item] for item in labels.keys() & gold.keys()])


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def share(value: float | None) -> str:
    """A share for people; None is not known."""
    return "unknown" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
