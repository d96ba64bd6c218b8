"""Counts as English says them."""


def pluralize(number: int, what: str) -> str:
    """So many of a thing that takes an `s`: `1 answer`, `2,000 answers`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
