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


def format_duration(seconds: float) -> str:
    """A rough time for people: `40 s`, `41 min`, `2 h 5 min`."""
    if seconds < 99.5:  # noqa: PLR2004  below, minutes would be too rough
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004  as above


def format_seconds(seconds: float) -> str:
    """A measured time for people: `8 ms`, `1.2 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
