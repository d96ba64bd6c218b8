"""Pandera, imported as it is where pandas is not installed: 0.1 s of CPU instead of 0.6, and the same for Polars.

Pandera brings in pandas, NumPy and Hypothesis wherever it finds them, and a command would pay for that at its start.
Whoever imports this module first has Pandera without them.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType

import polars as pl  # noqa: F401  looks for NumPy once, when it is imported: not in the block below


class _NotInstalled(MetaPathFinder):
    """Finds none of these modules, for the thread that asks for it."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.thread = threading.get_ident()

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> None:
        """Refuse; nothing found would leave it to the next finder."""
        if name in self.names and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def _without(*names: str) -> Iterator[None]:
    finder = _NotInstalled(*names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with _without("hypothesis", "numpy", "pandas"):
    import pandera.backends.polars.builtin_checks
    import pandera.polars  # noqa: F401  from here on both are there for everybody
