"""Which files were hashed and had the hash that they are named after: each is hashed once, and again if it was touched.

An entry is what the file system says of the file: size, inode, and the times of the last change of its content and of
its inode. A program can set the former time, not the latter. A disk that loses a bit changes neither: `headrace
doctor --deep` hashes everything.

Not `State` of dvc_data, which DVC keeps for the same purpose: it leaves out the inode's time, so a file that was
changed and given its old time back (`touch -r`, `rsync -t`) counts as unchanged. It also costs more (docs/why.md).
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

from headrace.storage.digests import Digests

SETTLED_NS = 1_000_000_000
"""A file that was touched more recently is not recorded: it may be written again within one tick of its clock."""


@dataclass
class HashCache:
    """The hashed files of one workspace.

    Attributes:
        path: Where the entries are kept, one line for each.
        entries: md5 → what the file system said of the file.
        unsaved: Those of them that are not kept yet.
    """

    path: Path
    entries: dict[str, str]
    unsaved: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, root: Path, name: str = "verified") -> Self:
        """The entries that the workspace `root` keeps in the file `name`."""
        path = root / ".headrace" / name
        lines = path.read_text().splitlines() if path.exists() else []
        return cls(path, {md5: state for md5, _, state in (line.partition(" ") for line in lines)})

    def is_unchanged(self, path: Path, md5: str) -> bool:
        """Whether the file is there, and untouched since its bytes had that hash."""
        try:
            return md5 in self.entries and self.entries[md5] == _file_state(path.stat())
        except FileNotFoundError:
            return False

    def matches(self, path: Path, md5: str, sha256: str | None = None) -> bool:
        """Whether the file's bytes have these hashes; `sha256` is None where it is not known."""
        if self.is_unchanged(path, md5):
            return True
        stat = path.stat()
        if Digests.of_file(path).mismatch(md5, sha256):
            return False
        if time.time_ns() - stat.st_ctime_ns > SETTLED_NS:
            self.entries[md5] = self.unsaved[md5] = _file_state(stat)
        return True

    # no failpoint: a cache: without a line, or with half of one, the file is hashed again
    def append_unsaved(self) -> None:
        """Append the new entries; a file whose entry is torn, or cannot be written, is hashed again next time."""
        new = {md5: self.unsaved.pop(md5) for md5 in list(self.unsaved)}
        if not new:
            return
        lines = "".join(f"{md5} {state}\n" for md5, state in new.items()).encode()
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(lines)


def _file_state(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}"


@cache
def hash_cache_of(root: Path) -> HashCache:
    """The one of this process for the workspace `root`."""
    return HashCache.load(root)
