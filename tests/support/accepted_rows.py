"""The accepted rows of a validation as they came, which no table keeps."""

import polars as pl

from headrace.validate.result import ValidationResult, rows_as_text
from headrace.validate.validate_objects import ObjectsResult


def accepted_raw(result: ValidationResult) -> pl.DataFrame:
    """`_row` and the raw columns as text, as `accepted` is ordered; of several objects, `_object` (the key) first."""
    if not isinstance(result, ObjectsResult):
        return rows_as_text(result.raw, result.row_numbers)
    parts = [
        rows_as_text(result.read_object(number), result.row_numbers.filter(result.object_numbers == number)).select(
            pl.lit(key).alias("_object"), pl.all()
        )
        for number, key in enumerate(result.keys)
    ]
    return pl.concat(parts, how="diagonal")
