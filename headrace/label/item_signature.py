"""The signature of a task: proof that what it asks about is what `label send` sent.

Everybody on a free Label Studio can edit and import tasks. So each task carries an HMAC (RFC 2104) of its sample id and
its item, made with a key that is derived from HEADRACE_PSEUDONYM_KEY, the secret that collecting needs anyway. It is
checked wherever a task is read: there is no record of what was sent that another clone would lack.

Tasks of versions up to 0.2, and those that are sent without the secret, carry none. Such a task is taken as ours while
it is older than every signed one of its project; afterwards, only somebody else can have imported it.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.dataset import LabelingTask

FIELD = "item_signature"
"""Name of the signature in the data of a task."""

MARK_START = "[headrace "
"""How the mark of any project of ours begins."""

NOT_SIGNED = (
    "it has no signature, unlike the tasks before it: somebody imported it, or has removed its `item_signature`"
)
NOT_AS_SENT = (
    "its signature does not fit: somebody has edited `sample_id` or `item`, or HEADRACE_PSEUDONYM_KEY is not the one"
    " that it was sent with"
)


@dataclass(frozen=True)
class ItemSigner:
    """Signs the tasks of one project, and checks their signatures.

    Attributes:
        project_mark: The mark of the project: a task that is copied from another project is not ours.
        secret: The secret; without one nothing is signed or checked.
    """

    project_mark: str
    secret: str | None

    def sign(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The data of a task with its signature."""
        if not self.secret:
            return dict(data)
        return {**data, FIELD: self._signature(self.secret, data)}

    def find_problem(self, data: Mapping[str, Any]) -> str:
        """Why a signed task is not what was sent; empty if it is, or has no signature."""
        if not self.secret or not is_signed(data):
            return ""
        expected = self._signature(self.secret, data)
        return "" if hmac.compare_digest(expected.encode(), str(data[FIELD]).encode()) else NOT_AS_SENT

    def _signature(self, secret: str, data: Mapping[str, Any]) -> str:
        content = [self.project_mark, data.get("sample_id"), _normalize(data.get("item"))]
        key = hmac.new(secret.encode(), b"headrace: items of labeling tasks", hashlib.sha256).digest()
        return hmac.new(key, json.dumps(content, sort_keys=True).encode(), hashlib.sha256).hexdigest()[:32]


def project_mark(labeling: LabelingTask) -> str:
    """What the description of the labeling task's project says, by which it is found when people rename it.

    A declaration with another title has another project.
    """
    return f"{MARK_START}{labeling.name} {hashlib.sha256(labeling.title.encode()).hexdigest()[:12]}]"


def is_signed(data: Mapping[str, Any]) -> bool:
    """Whether a task carries a signature, right or wrong."""
    return bool(data.get(FIELD))


def _normalize(value: Any) -> Any:  # noqa: ANN401  any JSON
    """PostgreSQL returns 1e16 as an integer."""
    if isinstance(value, Mapping):
        return {str(name): _normalize(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_normalize(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
