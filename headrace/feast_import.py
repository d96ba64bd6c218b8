"""Feast for a command: without the type checks that typeguard compiles into it, two thirds of the time of its import.

Feast decorates its definitions with `typeguard.typechecked`, which parses and compiles their module again for each
method: about 240 times whenever Feast is imported. A command builds Feast's objects from declarations that Headrace has
checked. Code that imports Feast itself (a notebook, a training job, a server, `feast apply`) keeps the checks.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from types import ModuleType
from typing import TypeVar

FEAST, TYPEGUARD = "feast", "typeguard"

T = TypeVar("T")


def import_feast_unchecked() -> None:
    """Leave the type checks out when this process first imports Feast. Nothing is imported yet."""
    if FEAST not in sys.modules:
        sys.meta_path.insert(0, _FeastFinder())


class _FeastFinder(MetaPathFinder):
    """Finds Feast once, where any other finder finds it."""

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Give Feast another loader; None leaves any other module, and a missing Feast, to the next finder."""
        if name != FEAST:
            return None
        sys.meta_path.remove(self)
        found = find_spec(FEAST)
        if found is None or found.origin is None:
            return None
        loader, folders = _UncheckedLoader(FEAST, found.origin), found.submodule_search_locations
        return spec_from_file_location(FEAST, found.origin, loader=loader, submodule_search_locations=folders)


class _UncheckedLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        with _without_type_checks():
            super().exec_module(module)


@contextmanager
def _without_type_checks() -> Iterator[None]:
    """Replace the decorator, if Feast still brings typeguard: it is Feast's dependency, not one of Headrace."""
    if find_spec(TYPEGUARD) is None:
        yield
        return
    typeguard = import_module(TYPEGUARD)
    checked = typeguard.typechecked
    typeguard.typechecked = _unchecked  # type: ignore[attr-defined]
    try:
        yield
    finally:
        typeguard.typechecked = checked  # type: ignore[attr-defined]


def _unchecked(target: T | None = None, **_options: object) -> T | Callable[[T], T]:
    """Stand in for `typechecked`, which is used with and without arguments."""
    return _unchecked if target is None else target  # type: ignore[return-value]
