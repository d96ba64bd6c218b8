"""Which files were hashed and found to be what they are named for: each is hashed once, and again if it was touched.

What is remembered of a file is what the file system says of it: size, inode, times of its last change and of the last
change of its entry, which nobody sets by hand. DVC trusts the same. A disk that forgets a bit says nothing:
`headrace doctor` hashes everything.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

from headrace.storage.dvc.objects import md5_of

SETTLED_NS = 1_000_000_000
"""A file that was touched more recently is not remembered: it may be written again within one tick of its clock."""


@dataclass
class Verified:
    """What is remembered in one workspace.

    Attributes:
        path: Where it is kept: a line a file.
        known: md5 → what the file system said of the file.
        new: Those of them that are not kept yet.
    """

    path: Path
    known: dict[str, str]
    new: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> Self:
        """What was kept in the workspace `root`."""
        path = root / ".headrace" / "verified"
        lines = path.read_text().splitlines() if path.exists() else []
        return cls(path, {md5: told for md5, _, told in (line.partition(" ") for line in lines)})

    def remembers(self, path: Path, md5: str) -> bool:
        """Whether the file is there, and untouched since its bytes had that hash."""
        try:
            return md5 in self.known and self.known[md5] == _told(path.stat())
        except FileNotFoundError:
            return False

    def is_whole(self, path: Path, md5: str) -> bool:
        """Whether the file's bytes have that hash."""
        if self.remembers(path, md5):
            return True
        found = path.stat()
        if md5_of(path) != md5:
            return False
        if time.time_ns() - found.st_ctime_ns > SETTLED_NS:
            self.known[md5] = self.new[md5] = _told(found)
        return True

    # no failpoint: a memory: who lacks a line, or has it torn, hashes the file
    def keep(self) -> None:
        """Write down what is new; what is torn, or can not be written, is hashed again next time."""
        new: Mapping[str, str] = {md5: self.new.pop(md5) for md5 in list(self.new)}
        if not new:
            return
        lines = "".join(f"{md5} {told}\n" for md5, told in new.items()).encode()
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(lines)


def _told(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"


@cache
def memory(root: Path) -> Verified:
    """The one of this process for the workspace `root`."""
    return Verified.of(root)
