"""Tables: partitions and the manifest that names them, read and written whole or not at all.

A table is the folder `data/<state>/<dataset>/<name>/`. Its bytes are objects of the DVC cache, named by their md5;
the folder shows them, and `manifest.json` in it says which belong to the table. Readers go through the manifest only,
so what else may lie in the folder is never read.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from headrace import failpoints
from headrace.errors import LockLostError, MissingObjectError, TableLockedError
from headrace.storage.dvc.cache import Cache, read_directory
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.dvc.objects import directory_bytes
from headrace.storage.files import write_whole
from headrace.storage.manifest import MANIFEST, Entry, Manifest, Partitions

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Lake:
    """The tables of one workspace.

    Attributes:
        root: The workspace: a git clone.
        cache: Where the bytes are: DVC's cache there, and the remote behind it.
        run_outs: In the worktree of a run: path → output entry of the tables that the run has made so far. They count
            before what the workspace records, and the worktree shows manifests alone. None outside of a run.
        held: Lock file → inode of the leases that this run holds.
        written: Tables that `commit` has shown.
    """

    root: Path
    cache: Cache
    run_outs: Mapping[str, dict[str, Any]] | None = None
    held: dict[Path, int] = field(default_factory=dict, compare=False)
    written: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def at(cls, root: Path, *, passes_on: bool = False) -> "Lake":
        """The lake of the workspace `root`; one that passes partitions on to the remote shows manifests alone."""
        return cls(root.resolve(), Cache.of(root.resolve(), passes_on=passes_on))

    def folder(self, table: str) -> Path:
        """Folder that shows the table's partitions."""
        return self.root / "data" / table

    def manifest(self, table: str) -> Manifest:
        """What the table holds now: its manifest in the workspace, else the recorded one, else none at all."""
        path = self.folder(table) / MANIFEST
        if path.exists():
            return Manifest.at(path)
        return self.recorded(table) or Manifest(table)

    def recorded(self, table: str, revision: str | None = None) -> Manifest | None:
        """The table as `dvc.lock` (or its `.dvc` file) records it, wherever its bytes are; None if it is in neither.

        Args:
            table: The table.
            revision: A git revision, for example a release; by default what the run has made, else the workspace's own
                files.
        """
        out = self._recorded_out(f"data/{table}", revision)
        return self.listed(out["md5"]) if out else None

    def _recorded_out(self, path: str, revision: str | None) -> dict[str, Any] | None:
        if revision is None and self.run_outs and path in self.run_outs:
            return self.run_outs[path]
        return recorded_outs(self.root, revision).get(path)

    def listed(self, folder: str) -> Manifest | None:
        """The table whose list of files is the object `folder`; None if that lists no manifest."""
        objects = read_directory(self.cache, folder)
        if MANIFEST not in objects:
            return None
        return Manifest.at(self.cache.fetch(objects[MANIFEST]))

    def known(self, table: str) -> list[Manifest]:
        """Every manifest that may lend an entry, the one that readers see first.

        What no release records is lent only while the cache still has its bytes.
        """
        recorded = self.recorded(table)
        safe = recorded.lines if recorded else {}
        path = self.folder(table) / MANIFEST
        shown = [Manifest.at(path)] if path.exists() else []
        mine = [self._there(manifest, safe) for manifest in (*shown, self._remembered(table))]
        found = [*mine[:-1], *([recorded] if recorded else []), mine[-1]]
        return found if shown or recorded else [Manifest(table), *found]

    def _there(self, manifest: Manifest, safe: Mapping[str, str]) -> Manifest:
        """`manifest` less the partitions whose bytes are lost; `safe` are the lines that a release records."""
        new = (name for name, line in manifest.lines.items() if safe.get(name) != line)
        lost = {name for name in new if not self._has(manifest.partitions[name])}
        if not lost:
            return manifest
        there = {name: line for name, line in manifest.lines.items() if name not in lost}
        return manifest.with_partitions(Partitions(there))

    def _has(self, entry: Entry) -> bool:
        where = self.cache.remote if self.cache.passes_on else self.cache
        return all(where.has(part.md5, part.size) for part in (entry, *entry.beside.values()))

    def remember(self, table: str, entry: Entry) -> None:
        """Note an entry that is computed but not yet shown: a run after a crash need not compute it again."""
        path = self._journal(table)
        path.parent.mkdir(parents=True, exist_ok=True)
        line = entry.to_line().encode() + b"\n"
        with (
            failpoints.failpoint(
                "line of the journal", lambda: path.open("ab", buffering=0).write(line[: len(line) // 2])
            ),
            path.open("ab", buffering=0) as journal,
        ):
            journal.write(line)

    def forget(self, table: str) -> None:
        """Drop the notes: the table is shown."""
        with failpoints.failpoint("end of the journal"):
            self._journal(table).unlink(missing_ok=True)

    def _remembered(self, table: str) -> Manifest:
        path = self._journal(table)
        lines = path.read_bytes().splitlines() if path.exists() else []
        entries = (Entry.from_line(line) for line in lines if _is_whole(line))
        return Manifest(table, partitions={entry.memo: entry for entry in entries})

    def _journal(self, table: str) -> Path:
        return self.root / ".headrace" / "journal" / (table.replace("/", ".") + ".jsonl")

    def tables(self, dataset: str) -> tuple[str, ...]:
        """Every table of `dataset` that the workspace shows, or that the run has made."""
        shown = (path.parent for path in (self.root / "data").glob(f"*/{dataset}/*/{MANIFEST}"))
        found = {path.relative_to(self.root / "data").as_posix() for path in shown}
        return tuple(sorted(found.union(path.removeprefix("data/") for path in self.run_outs or ())))

    def paths(self, table: str, partitions: Iterable[str] | None = None) -> dict[str, Path]:
        """Partition → file with its bytes, fetched from the remote if need be, in partition order.

        Raises:
            MissingObjectError: The manifest has no such partition, or its bytes are nowhere.
        """
        entries = self.manifest(table).partitions
        wanted = sorted(entries if partitions is None else partitions)
        for partition in wanted:
            if partition not in entries:
                raise MissingObjectError(f"{table} has no partition {partition}: see `headrace status`.")
        return {partition: self.cache.fetch(entries[partition].md5) for partition in wanted}

    def scan(self, table: str, partitions: Iterable[str] | None = None) -> "pl.LazyFrame":
        """The rows of a Parquet table, in partition order.

        Raises:
            MissingObjectError: As `paths`; also for a table of no partition, which has no schema.
        """
        import polars as pl  # noqa: PLC0415  who looks at manifests alone does not pay for the import

        paths = list(self.paths(table, partitions).values())
        if not paths:
            raise MissingObjectError(f"{table} has no partition: `headrace run {table.split('/')[1]}` makes them.")
        return pl.scan_parquet(paths)

    def commit(self, manifest: Manifest) -> None:
        """Make the workspace show `manifest`: new files first, then the manifest, then what is gone goes.

        A crash leaves the old manifest or the new one; files it does not name are not read and go next time.

        Raises:
            LockLostError: A lease of this run was taken away.
        """
        folder, fence = self.folder(manifest.table), partial(self._fence, manifest.table)
        fence()
        folder.mkdir(parents=True, exist_ok=True)
        there = {item.name: item.stat().st_size for item in os.scandir(folder)}
        wanted = {} if self.cache.passes_on or self.run_outs is not None else manifest.files
        shown = self._shown(folder, there)
        for name, md5 in wanted.items():
            if shown.get(name) != md5:
                self.cache.copy_to(md5, folder / name, fence)
        text = manifest.to_bytes()
        if MANIFEST not in there or (folder / MANIFEST).read_bytes() != text:
            write_whole(folder / MANIFEST, text, fence)
        for name in there.keys() - wanted.keys() - {MANIFEST}:
            with failpoints.failpoint("file that is gone"):
                fence()
                (folder / name).unlink(missing_ok=True)
        self.written.add(manifest.table)

    def _shown(self, folder: Path, there: Mapping[str, int]) -> dict[str, str]:
        """File name → md5 of the partitions that lie in the folder as its manifest says, by their sizes."""
        if MANIFEST not in there:
            return {}
        known = Manifest.at(folder / MANIFEST)
        sizes = {name + known.suffix: size for name, size in known.sizes.items()}
        return {name: md5 for name, md5 in known.files.items() if there.get(name) == sizes[name]}

    def out(self, manifest: Manifest, recorded: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """The output entry that records a table, with which its manifest and its list of files go into the cache.

        Args:
            manifest: The table.
            recorded: Output entries that there are; the table's own stands if it is as it was.
        """
        path, text = f"data/{manifest.table}", manifest.to_bytes()
        own = self.cache.add_bytes(text).md5
        had = recorded.get(path)
        if had and self.cache.has(had["md5"]) and read_directory(self.cache, had["md5"]).get(MANIFEST) == own:
            return {"path": path, **{name: had[name] for name in ("hash", "md5", "size", "nfiles")}}
        files = {**manifest.files, MANIFEST: own}
        folder = self.cache.add_bytes(directory_bytes(files), suffix=".dir")
        size = len(text) + sum(manifest.sizes.values())
        return {"path": path, "hash": "md5", "md5": folder.md5, "size": size, "nfiles": len(files)}

    # no failpoint: the kernel holds the lock; the file only says whose it is
    @contextmanager
    def lease(self, table: str) -> Iterator[None]:
        """Hold the table for one run, until the block or the process ends.

        Raises:
            TableLockedError: Another run holds it.
        """
        path = self.root / ".headrace" / "locks" / (table.replace("/", ".") + ".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read() or "unknown"
                raise TableLockedError(
                    f"{table} is being written by another run (process {holder}) in {self.root}."
                    " Let it finish, or stop it if it hangs, then run the same command again."
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self.held[path] = os.fstat(lock.fileno()).st_ino
            try:
                yield
            finally:
                del self.held[path]
                # Closing is not enough: a child that another thread has just forked still has the file open.
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _fence(self, table: str) -> None:
        """Refuse to go on if a lease of this run was taken away, so that another run may have come and gone since."""
        for path, inode in self.held.items():
            if not path.exists() or path.stat().st_ino != inode:
                raise LockLostError(
                    f"{table}: this run (process {os.getpid()}) no longer holds {path}; another may have written the"
                    " table meanwhile. Nothing was shown. Run the same command again."
                )


def _is_whole(line: bytes) -> bool:
    """Whether a line of the journal was written to its end: a crash may tear one."""
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True
