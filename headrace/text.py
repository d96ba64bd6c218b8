"""English text for numbers and names."""

from collections.abc import Iterable


def pluralize(number: int, what: str) -> str:
    """A count and its noun, which takes an `s`: `1 answer`, `2,000 answers`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def closest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'flights'?)` for the nearest of the known names; empty if none is near."""
    from difflib import get_close_matches  # noqa: PLC0415  only a message needs it

    near = get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
