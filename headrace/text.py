"""English text for numbers."""


def pluralize(number: int, what: str) -> str:
    """A count and its noun, which takes an `s`: `1 answer`, `2,000 answers`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
