"""The handwritten digits that come with scikit-learn, as PNG objects in the bucket; their true values are not there.

1,797 images of 8 x 8 pixels in 16 grays: the test part of the UCI set, donated in July 1998. The images carry no time,
so each gets a minute after the start of that month. They are enlarged eight times, so that a person can read them.
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

FIRST_TIME = datetime(1998, 7, 1, tzinfo=UTC)
SCALE, GRAYS = 8, 16
GOLD_EVERY = 5
"""One image in so many has a gold answer."""


@dataclass(frozen=True)
class DigitImage:
    """An image in the bucket, and the digit that it shows."""

    image_id: str
    png: bytes
    digit: str

    @property
    def key(self) -> str:
        """Its key in the bucket."""
        return f"digits/{self.image_id}.png"


@cache
def digit_images() -> tuple[DigitImage, ...]:
    """All images of the set."""
    dataset = load_digits()
    return tuple(
        DigitImage(_name(number), _png(number, pixels), str(digit))
        for number, (pixels, digit) in enumerate(zip(dataset.images, dataset.target, strict=True))
    )


def true_digits() -> dict[str, str]:
    """Image id → the digit that it shows; annotators must not see this."""
    return {image.image_id: image.digit for image in digit_images()}


def gold_answers(images: Sequence[DigitImage]) -> bytes:
    """The object with the true digits of some of these images."""
    text = io.StringIO()
    rows = [(image.image_id, image.digit) for image in images[::GOLD_EVERY]]
    csv.writer(text, lineterminator="\n").writerows([("image_id", "digit"), *rows])
    return text.getvalue().encode()


def upload_images(s3: Any, bucket: str, count: int) -> Sequence[DigitImage]:  # noqa: ANN401  a boto3 client
    """Upload the first `count` images, and the gold answers of some."""
    images = digit_images()[:count]
    for key, content in image_objects(images):
        s3.put_object(Bucket=bucket, Key=key, Body=content)
    return images


def image_objects(images: Sequence[DigitImage]) -> Iterator[tuple[str, bytes]]:
    """Key → content of the images, and of the gold answers of some."""
    yield from ((image.key, image.png) for image in images)
    yield "digits-gold/gold.csv", gold_answers(images)


def _name(number: int) -> str:
    return f"digit-{number:04d}"


def _png(number: int, pixels: Any) -> bytes:  # noqa: ANN401  an array of numpy
    """The image with its id and time as metadata; the same bytes every time."""
    small = Image.fromarray((pixels * (255 / GRAYS)).round().astype("uint8"))
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("Title", _name(number))
    metadata.add_text("Creation Time", (FIRST_TIME + timedelta(minutes=number)).isoformat())
    stream = io.BytesIO()
    small.resize((8 * SCALE, 8 * SCALE), Image.Resampling.NEAREST).save(stream, "PNG", pnginfo=metadata)
    return stream.getvalue()
