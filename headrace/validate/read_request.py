"""What validation wants of a raw object: a reader that knows it reads no more than that, and refuses early."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import polars as pl

PARAMETER = "request"
"""Name of the parameter by which the `read` of a source receives a `ReadRequest`, if it has one."""


def check_nothing(_schema: Mapping[str, pl.DataType]) -> None:
    """Accept any columns."""


@dataclass(frozen=True)
class ReadRequest:
    """What validation wants of a raw object, for a `read` with a parameter `request`.

    Attributes:
        columns: Column of the contract → type.
        extra_columns: What is to happen with other columns: `Source.extra_columns`.
        key: Key of the object; empty in a partition of a single object.
        check_schema: Raises what validation would raise for columns of these names and types, whatever is in them.
    """

    columns: Mapping[str, pl.DataType]
    extra_columns: Literal["refuse", "drop"] = "refuse"
    key: str = ""
    check_schema: Callable[[Mapping[str, pl.DataType]], None] = check_nothing


@cache
def takes_request(read: Callable[..., Any]) -> bool:
    """Whether the `read` of a source has a parameter `request`."""
    try:
        return PARAMETER in inspect.signature(read).parameters
    except (TypeError, ValueError):  # a callable of C
        return False
