"""The examples in the docstrings of the public API; as a program, runs them in the current folder.

It writes the workbook `orders.xlsx`, which no library here can, and prints a JSON object: name of each example → the
difference between its output and its docstring. It is a separate process, because a process loads the declarations of
one project only.
"""

import doctest
import json
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import FunctionType

import dataframely as dy
import polars as pl
from workbooks import number, text, workbook

import headrace

PROVIDED = {
    "headrace": headrace,
    "dy": dy,
    "pl": pl,
    "Path": Path,
    "UTC": UTC,
    "datetime": datetime,
    "timedelta": timedelta,
}
"""Imports that the examples leave out."""


def find_examples() -> dict[str, doctest.DocTest]:
    """Public name, or method of a public class → the examples in its docstring."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found: dict[str, doctest.DocTest] = {}
    for name in headrace.__all__:
        value = getattr(headrace, name)
        if isinstance(value, type | FunctionType):
            tests = finder.find(value, name, import_module(value.__module__), globs=PROVIDED)
            found.update({test.name: test for test in tests if test.examples})
    return found


def run_example(example: doctest.DocTest) -> str:
    """Run an example; the difference from its docstring."""
    differences: list[str] = []
    doctest.DocTestRunner().run(example, out=differences.append)
    return "".join(differences)


if __name__ == "__main__":
    Path("orders.xlsx").write_bytes(workbook([(text("order_id"), text("amount")), (number(7), number(1.5))]))
    print(json.dumps({name: run_example(example) for name, example in find_examples().items()}))  # noqa: T201
