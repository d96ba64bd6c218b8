"""A fault of a declaration, and the checks that every kind of declaration shares."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from headrace.dataset import Dataset, FeatureTable, KernelTable, LabelingTask, Source
from headrace.project.findings import Level
from headrace.workspace import DATASET_NAME

Declaration = Dataset | Source | KernelTable | LabelingTask


@dataclass(frozen=True)
class Fault:
    """What is wrong in a declaration.

    Attributes:
        declared: The declaration.
        path: The argument of its constructor, and what is inside of it.
        text: What is expected, what was found, and what to do.
        level: `error` if the dataset cannot do what is declared.
    """

    declared: Declaration
    path: tuple[str, ...]
    text: str
    level: Level = "error"


def argument(declared: Declaration, field: str) -> Any:  # noqa: ANN401  whatever was given
    """An argument of a declaration, of any type: nothing has held it to the declared one."""
    return getattr(declared, field)


def name_faults(declared: Source | KernelTable | LabelingTask) -> Iterator[Fault]:
    """A name becomes a folder, a column and a stage."""
    if not (isinstance(declared.name, str) and DATASET_NAME.fullmatch(declared.name)):
        yield Fault(
            declared,
            ("name",),
            "expected a name of lower-case letters, digits and underscores that begins with a letter, found"
            f" {declared.name!r}: rename it",
        )


def text_tuple_faults(declared: Declaration, *fields: str) -> Iterator[Fault]:
    """A tuple of texts: `("id")` is a text, whose letters would be taken one by one."""
    for field in fields:
        found = argument(declared, field)
        if isinstance(found, str):
            yield Fault(declared, (field,), f"expected a tuple of texts, found the text {found!r}: write ({found!r},)")
        elif not is_text_sequence(found):
            yield Fault(declared, (field,), f"expected a tuple of texts, found {found!r}")
        elif twice := sorted({name for name in found if list(found).count(name) > 1}):
            yield Fault(
                declared, (field, twice[0]), f"{', '.join(map(repr, twice))} is named more than once: once is enough"
            )


def key_types_faults(declared: FeatureTable | LabelingTask) -> Iterator[Fault]:
    """Types of keys: a mapping of keys that there are."""
    found = argument(declared, "key_types")
    if not isinstance(found, Mapping):
        yield Fault(declared, ("key_types",), f"expected key → Polars type, found {found!r}")
        return
    for key in found:
        if key not in declared.keys:
            yield Fault(
                declared,
                ("key_types", str(key)),
                f"it types {key!r}, which is none of the keys {', '.join(declared.keys)}",
            )


def is_text_sequence(value: object) -> bool:
    """Whether a value is a sequence of texts."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(it, str) for it in value)


def number_faults(
    declared: Declaration, field: str, least: float, most: float | None = None, *, whole: bool = False
) -> Iterator[Fault]:
    """A number between bounds."""
    found = argument(declared, field)
    is_number = isinstance(found, int if whole else (int, float)) and not isinstance(found, bool)
    if is_number and found >= least and (most is None or found <= most):  # NaN is neither
        return
    kind = "a whole number" if whole else "a number"
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
    yield Fault(declared, (field,), f"expected {kind} {bounds}, found {found!r}")


def function_faults(declared: Declaration, field: str, *keywords: str, positional: int = 0) -> Iterator[Fault]:
    """A function that is called with these keywords, after `positional` arguments; without any, only that it is one."""
    function = argument(declared, field)
    if not callable(function):
        yield Fault(declared, (field,), f"expected a function, found {function!r}")
        return
    try:
        parameters = list(inspect.signature(function).parameters.values())[positional:] if keywords else []
    except (TypeError, ValueError):  # a function written in C tells nothing
        return
    by_name = [it for it in parameters if it.kind in (it.POSITIONAL_OR_KEYWORD, it.KEYWORD_ONLY)]
    takes_any = any(it.kind is it.VAR_KEYWORD for it in parameters)
    names = [it.name for it in by_name]
    if lacking := [name for name in keywords if name not in names and not takes_any]:
        yield Fault(
            declared,
            (field,),
            f"{function_name(function)} is called with {', '.join(f'{name}=' for name in lacking)}, but takes"
            f" {', '.join(names) or 'nothing'}: add the parameter, or correct `inputs`",
        )
    required = [it.name for it in by_name if it.default is it.empty and it.name not in keywords] if keywords else []
    required += [it.name for it in parameters if it.kind is it.POSITIONAL_ONLY and it.default is it.empty]
    if required:
        yield Fault(
            declared,
            (field,),
            f"{function_name(function)} needs {', '.join(required)}, which it is not called with: name an input so, or"
            " give a default",
        )


def function_name(function: object) -> str:
    """Module and name of a function, for messages."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"


def data_type(value: object) -> pl.DataType | None:
    """The Polars type that a declaration names, as a class or an instance; None if it is none."""
    if isinstance(value, pl.DataType):
        return value
    if isinstance(value, type) and issubclass(value, pl.DataType):
        try:
            return value()
        except TypeError:  # `pl.List` and others have no meaning without arguments
            return None
    return None


def type_of_key(declared: FeatureTable | LabelingTask, key: str) -> pl.DataType | None:
    """The declared type of a key, text by default."""
    types = argument(declared, "key_types")
    return data_type(types.get(key, pl.String())) if isinstance(types, Mapping) else None
