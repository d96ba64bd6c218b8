"""The dataset `digits`: small pictures of handwritten digits, and people who say which digit each shows."""

from headrace.dataset import Dataset
from pipelines.digits.labels import digit
from pipelines.digits.sources import gold, images

DATASET = Dataset(
    description="Handwritten digits, a PNG object each, with the true digit of some of them.",
    owner="data-platform",
    sources=(images.SOURCE, gold.SOURCE),
    labels=(digit.LABELING,),
    tags={"licence": "CC BY 4.0", "period": "1998"},
)
