"""Media in tasks: a task names the bytes by their hash, and `send` puts them in as a data URL from the raw table.

The browser then needs no access to the bucket, and what people see is what the raw table holds.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.dataset import Dataset, ObjectSource, raw_table
from headrace.storage.table_store import TableStore

SCHEME = "headrace-media:"

REFERENCE = re.compile(rf"{SCHEME}(?P<sha256>[0-9a-f]{{64}});(?P<media_type>[\w.+-]+/[\w.+-]+)")

MAX_SHOWN_BYTES = 1 << 20
"""Most bytes of one object in a task: Label Studio keeps tasks in its database, and sends them to each browser."""


def show_media(row: Mapping[str, Any]) -> str:
    """What the `task` of a labeling task gives for a row of `read_media`, to show its image, sound or video.

    Args:
        row: A row with `sha256` and `media_type`.

    Examples:
        >>> headrace.show_media({"sha256": 64 * "0", "media_type": "image/png"})[-11:]
        '0;image/png'
    """
    return f"{SCHEME}{row['sha256']};{row['media_type']}"


@dataclass(frozen=True)
class MediaStore:
    """The media of a dataset, by hash.

    Attributes:
        table_store: The workspace.
        entries: Hash (SHA-256) of the bytes → raw table, and its entry with them.
    """

    table_store: TableStore
    entries: Mapping[str, tuple[str, str]]

    @classmethod
    def of_dataset(cls, dataset: Dataset, table_store: TableStore) -> "MediaStore":
        """The objects of all sources of media."""
        entries: dict[str, tuple[str, str]] = {}
        for source in dataset.sources:
            if isinstance(source.location, ObjectSource) and source.location.media:
                table = raw_table(dataset.name, source.name)
                known = table_store.manifest(table).partitions
                entries |= {entry.sha256: (table, name) for name, entry in known.items() if entry.sha256}
        return cls(table_store, entries)

    def embed(self, data: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The data of a task with its media in it, and why that cannot be sent; empty if it can."""
        shown: dict[str, Any] = {}
        for name, value in data.items():
            reference = REFERENCE.fullmatch(value) if isinstance(value, str) else None
            shown[name], fault = self._data_url(reference) if reference else (value, "")
            if fault:
                return {}, f"`task` gave {name!r} as media that cannot be shown: {fault}"
        return shown, ""

    def _data_url(self, reference: re.Match[str]) -> tuple[str, str]:
        found = self.entries.get(reference["sha256"])
        if found is None:
            return "", f"no raw table of media holds the bytes with the SHA-256 {reference['sha256']}"
        table, entry = found
        (path,) = self.table_store.paths(table, [entry]).values()
        size = path.stat().st_size
        if size > MAX_SHOWN_BYTES:
            return "", f"{size:,} bytes, more than the {MAX_SHOWN_BYTES:,} that a task may hold"
        content = base64.b64encode(path.read_bytes()).decode()
        return f"data:{reference['media_type']};base64,{content}", ""


def embed_media(
    dataset: Dataset, table_store: TableStore, tasks: Mapping[str, Mapping[str, Any]], rejected: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Sample id → data of the task with its media in it.

    Args:
        dataset: The dataset.
        table_store: The workspace.
        tasks: Sample id → data of the task.
        rejected: Receives sample id → why there is no task for it.
    """
    if not any(
        isinstance(value, str) and value.startswith(SCHEME) for each in tasks.values() for value in each.values()
    ):
        return {name: {**data} for name, data in tasks.items()}
    store = MediaStore.of_dataset(dataset, table_store)
    embedded: dict[str, dict[str, Any]] = {}
    for name, data in tasks.items():
        shown, fault = store.embed(data)
        if fault:
            rejected[name] = fault
        else:
            embedded[name] = shown
    return embedded
