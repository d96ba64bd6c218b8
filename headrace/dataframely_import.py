"""dataframely without what a contract does not need.

dataframely imports SQLAlchemy and pydantic wherever it finds them, for exports that Headrace does not use
(`Schema.to_sqlalchemy_columns`, pydantic models), and NumPy for random samples and the limits of floats. All three are
installed with Headrace, and every command that loads a dataset would pay for them. `headrace.dataset` imports this
module, so the contracts below it get dataframely as it is where the first two are missing, with a NumPy that is
imported when it is used.
"""

import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from types import ModuleType, SimpleNamespace

import polars as pl  # noqa: F401  looks for NumPy once, when it is imported: not below

NUMPY = "numpy"
HIDDEN = frozenset({"sqlalchemy", "pydantic", "pydantic_core"})


class _LazyNumpy(ModuleType):
    """NumPy, imported when it is used. `finfo`, asked for when a column of floats has bounds, needs no import."""

    float32, float64 = 3.4028234663852886e38, sys.float_info.max

    @staticmethod
    def finfo(largest: float) -> SimpleNamespace:
        """The limits of a type of float, which stands here as its largest value."""
        return SimpleNamespace(min=-largest, max=largest)

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(NUMPY) is self:
            del sys.modules[NUMPY]
        return getattr(import_module(NUMPY), name)


class _HidingFinder(MetaPathFinder):
    """Finds none of the hidden modules, for the thread that made it."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> None:
        """Refuse a hidden module; None leaves any other to the next finder."""
        if name.partition(".")[0] in HIDDEN and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


_finder, _numpy = _HidingFinder(), _LazyNumpy(NUMPY)
sys.meta_path.insert(0, _finder)
sys.modules.setdefault(NUMPY, _numpy)
try:
    import dataframely as dataframely  # noqa: PLC0414  what this module is for
finally:
    sys.meta_path.remove(_finder)
    if sys.modules.get(NUMPY) is _numpy:
        del sys.modules[NUMPY]
