"""The handwritten digits that come with scikit-learn, as PNG objects in the bucket; their true values stay here.

1,797 pictures of 8 x 8 cells with 16 greys (the test part of the UCI set, given to it in July 1998; the pictures carry
no time, so each gets a minute after that month's start). Enlarged eight times, so that a person can read them.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from PIL import Image, PngImagePlugin
from sklearn.datasets import load_digits

BEGAN = datetime(1998, 7, 1, tzinfo=UTC)
LARGER, GREYS = 8, 16
GOLD_EVERY = 5
"""One picture in so many has a known answer."""


@dataclass(frozen=True)
class Picture:
    """A picture as it lies in the bucket, and what it shows."""

    image_id: str
    png: bytes
    digit: str

    @property
    def key(self) -> str:
        """Where it lies."""
        return f"digits/{self.image_id}.png"


@cache
def pictures() -> tuple[Picture, ...]:
    """All of them."""
    found = load_digits()
    return tuple(
        Picture(_name(number), _png(number, cells), str(digit))
        for number, (cells, digit) in enumerate(zip(found.images, found.target, strict=True))
    )


def truth() -> dict[str, str]:
    """Id of a picture → the digit it shows; whoever labels must not see this."""
    return {picture.image_id: picture.digit for picture in pictures()}


def gold(of: Sequence[Picture]) -> bytes:
    """The object that gives the true digit of some of these pictures."""
    text = io.StringIO()
    rows = [(picture.image_id, picture.digit) for picture in of[::GOLD_EVERY]]
    csv.writer(text, lineterminator="\n").writerows([("image_id", "digit"), *rows])
    return text.getvalue().encode()


def put(storage: Any, bucket: str, count: int) -> Sequence[Picture]:  # noqa: ANN401  boto3 makes its clients at run time
    """Have the first `count` pictures lie in the bucket, with the gold answers of some."""
    chosen = pictures()[:count]
    for key, content in _objects(chosen):
        storage.put_object(Bucket=bucket, Key=key, Body=content)
    return chosen


def _objects(chosen: Sequence[Picture]) -> Iterator[tuple[str, bytes]]:
    yield from ((picture.key, picture.png) for picture in chosen)
    yield "digits-gold/gold.csv", gold(chosen)


def _name(number: int) -> str:
    return f"digit-{number:04d}"


def _png(number: int, cells: Any) -> bytes:  # noqa: ANN401  an array of numpy
    """The picture, with its id and time in it; the same bytes every time."""
    small = Image.fromarray((cells * (255 / GREYS)).round().astype("uint8"))
    said = PngImagePlugin.PngInfo()
    said.add_text("Title", _name(number))
    said.add_text("Creation Time", (BEGAN + timedelta(minutes=number)).isoformat())
    stream = io.BytesIO()
    small.resize((8 * LARGER, 8 * LARGER), Image.Resampling.NEAREST).save(stream, "PNG", pnginfo=said)
    return stream.getvalue()
