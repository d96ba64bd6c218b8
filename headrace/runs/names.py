"""Names of runs: they are part of git refs and of folders, so they hold few characters."""

import hashlib
import re
import secrets
from datetime import UTC, datetime

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,119}")
NEW = "new"
"""Stands for a run that is started, where the name of one is expected."""

HASH_DIGITS = 16
"""64 bits: that two of a million names meet has a chance of 3 in 100 million (birthday bound, n^2 / 2^65)."""


def run_name(text: str) -> str:
    """A run's name for any text, for example for the id that Airflow gives a run.

    A text that is a name already stays. Other characters are replaced, and then a hash of the text is appended, so that
    two texts never get the same name.
    """
    if RUN_NAME.fullmatch(text) and text != NEW:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
    readable = re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-_")
    return f"{readable[:100]}-{digest}" if readable else digest


def new_run_name() -> str:
    """The name of a new run: the time, and digits that two runs of the same second do not share."""
    return f"{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(4)}"
