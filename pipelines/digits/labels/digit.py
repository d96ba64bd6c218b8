"""validated → sample: pictures that people are asked to read: at random, where the rules disagree, and some gold.

The true digits stay hidden: a gold picture's answer is in no task, and nothing in its task shows that it is gold.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl

from headrace.dataset import Input, ItemFeatures, LabelingTask, Thresholds
from headrace.label.sampling import GoldSampling, UncertaintySampling, UniformSampling, sample_rows
from pipelines.digits.labels import strokes

KEYS = ("image_id",)
CHOICES = tuple("0123456789")
POLICIES = (UniformSampling(0.4), UncertaintySampling(0.4, "uncertainty"), GoldSampling(0.2))

CONFIG = (
    """<View>
  <Header value="Which digit is this?" size="4"/>
  <Image name="picture" value="$picture" zoom="false" width="256px" maxWidth="256px"/>
  <Choices name="digit" toName="picture" choice="single-radio" required="true" showInline="true"
           requiredMessage="Pick a digit, or Skip">
"""
    + "".join(f'    <Choice value="{digit}" hotkey="{digit}"/>\n' for digit in CHOICES)
    + """  </Choices>
</View>
"""
)


def sample(*, params: Mapping[str, int], images: pl.LazyFrame, gold: pl.LazyFrame) -> pl.DataFrame:
    """`params["sample"]` pictures, in the order of their ids."""
    pictures = images.sort(KEYS).collect()
    known = gold.select("image_id").collect()["image_id"]
    population = pictures.with_columns(
        pl.col("image_id").alias("sample_id"),
        pl.col("taken_at").alias("event_time"),
        pl.Series("uncertainty", [uncertainty(row) for row in pictures.iter_rows(named=True)], pl.Float64),
    )
    return sample_rows(population, POLICIES, params["sample"], params["seed"], held_out=known)


def uncertainty(row: Mapping[str, Any]) -> float:
    """Share of the rules' votes that are not for the digit with most votes; 1 where all abstain."""
    cast = [digit for function in strokes.FUNCTIONS if (digit := function(row)) is not None]
    return 1 - max(Counter(cast).values()) / len(cast) if cast else 1.0


def ink(row: Mapping[str, Any]) -> list[float]:
    """The ink of each cell: what a model may learn a digit from."""
    return [float(cell) for line in strokes.grid_of(row) for cell in line]


def task(row: Mapping[str, Any]) -> dict[str, Any]:
    """What Label Studio holds: the picture itself, and which object it came from."""
    return {"picture": row["picture"], "object": f"digits/{row['image_id']}.png"}


LABELING = LabelingTask(
    name="digit",
    title="Which digit is this?",
    config=CONFIG,
    control="digit",
    choices=CHOICES,
    inputs={"images": Input("validated/images"), "gold": Input("validated/gold")},
    sample=sample,
    keys=KEYS,
    task=task,
    params={"sample": 40, "seed": 7},
    labeling_functions=strokes.FUNCTIONS,
    no_suggestion_share=0.25,
    annotators_per_item=2,
    max_annotators_per_item=3,
    consensus="crowdlab",
    item_features=ItemFeatures("validated/images", ink),
    gold=Input("validated/gold"),
    thresholds=Thresholds(agreement=0.5, gold=0.75),
    unreviewed="accept",
)
