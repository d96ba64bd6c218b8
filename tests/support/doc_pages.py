"""The pages of the documentation, and the code in them."""

import re

from workspaces import REPOSITORY

PAGES = sorted(
    {
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").glob("*.md"),
        *REPOSITORY.glob("infra/**/*.md"),
        *REPOSITORY.glob("benchmarks/*.md"),
    }
)


def code_blocks(text: str, language: str = r"\w*") -> list[str]:
    """The fenced blocks of a page whose language matches a regular expression, by default all."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [code for found, code in fenced if re.fullmatch(language, found)]


def code_spans(text: str) -> list[str]:
    """The code that a page has in its sentences, in backticks."""
    return re.findall(r"`([^`\n]+)`", without_blocks(text))


def without_blocks(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
