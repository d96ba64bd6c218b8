"""raw → validated: pictures of one handwritten digit each, a PNG object a picture.

What the contract holds is the picture as it was decoded, not its file name: one grey channel, a side of 64 pixels,
some ink and not all ink, and the id and the time that the PNG itself carries (its texts `Title` and `Creation Time`).
Bytes that are no whole picture are refused, with the object named.

The picture goes on as a data address (`data:image/png;base64,…`, about 500 characters), so that whoever holds the row
can show it: no other system needs a way into the bucket. That is right for pictures of a few kilobytes only.
"""

import base64
import io
from datetime import UTC, datetime
from pathlib import Path

import dataframely as dy
import polars as pl
from PIL import Image, UnidentifiedImageError

from headrace.dataset import ObjectSource, Source
from headrace.validate.columns import TimeBounds, one_of, utc_time
from headrace.validate.unreadable import refused

SIDE_PX, GRID = 64, 8
MOST_BYTES = 16 * 1024
MOST_PX = 1024 * 1024
"""A picture of one color takes a bit per thousand pixels: 16 KiB could unpack to 130 MB."""


class Images(dy.Schema):
    """One picture of a handwritten digit, and what it says of itself."""

    image_id = dy.String(regex=r"^digit-\d{4}$")
    taken_at = utc_time(within=TimeBounds(datetime(1990, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)))
    mode = dy.String(check=one_of("L"))
    width_px = dy.Int64(is_in=[SIDE_PX])
    height_px = dy.Int64(is_in=[SIDE_PX])
    ink = dy.Float64(min=0.02, max=0.9)
    cells = dy.String(regex=rf"^[0-9a-f]{{{2 * GRID * GRID}}}$")
    picture = dy.String()


def read(path: Path) -> pl.DataFrame:
    """One picture as one row: what it says of itself, its measures, its ink on a grid, and the picture.

    Raises:
        UnreadableError: It is no whole PNG.
    """
    content = path.read_bytes()
    if len(content) > MOST_BYTES:
        raise refused(path, f"expected a picture of at most {MOST_BYTES:,} bytes, seen {len(content):,}")
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            _check_size(picture)
            picture.load()
            return pl.DataFrame([_row(picture, content)], schema=dict.fromkeys(Images.column_names(), pl.String))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise refused(path, f"expected a PNG picture, but {len(content):,} bytes cannot be decoded: {error}") from error


def _check_size(picture: Image.Image) -> None:
    """Raise before the pixels are decoded."""
    if picture.width * picture.height > MOST_PX:
        raise ValueError(f"expected at most {MOST_PX:,} pixels, found {picture.width:,} x {picture.height:,}")


def _row(picture: Image.Image, content: bytes) -> dict[str, str | None]:
    cells = picture.convert("L").resize((GRID, GRID), Image.Resampling.BOX).tobytes()
    return {
        "image_id": picture.info.get("Title"),
        "taken_at": picture.info.get("Creation Time"),
        "mode": picture.mode,
        "width_px": str(picture.width),
        "height_px": str(picture.height),
        "ink": str(sum(cells) / (255 * len(cells))),
        "cells": cells.hex(),
        "picture": f"data:image/png;base64,{base64.b64encode(content).decode()}",
    }


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """Typed pictures; what the contract fixes for all is left behind."""
    return rows.select("image_id", "taken_at", "ink", "cells", "picture")


SOURCE = Source(
    name="images",
    location=ObjectSource(location="digits/", partition=r"(?P<partition>digit-\d{4})\.png", suffix=".png"),
    read=read,
    contract=Images,
    transform=tidy,
    key=("image_id",),
    max_rejected_share=0.0,
)
