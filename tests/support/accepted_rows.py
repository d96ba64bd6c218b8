"""The accepted rows of a validation as they came, which no table keeps."""

import polars as pl

from headrace.validate.result import ValidationResult, rows_as_text


def accepted_raw(result: ValidationResult) -> pl.DataFrame:
    """`_row` and the raw columns as text, in the order of `accepted`."""
    return rows_as_text(result.raw, result.row_numbers)
