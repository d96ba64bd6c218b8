"""Tables: partitions and the manifest that names them, read and written atomically.

A table is the folder `data/<state>/<dataset>/<name>/`. Its bytes are objects of the DVC cache, named by their md5; the
folder has copies of them, and the manifest in it names those that belong to the table. Readers go through the manifest
only, so other files in the folder are never read.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from headrace import failpoints
from headrace.errors import LockLostError, MissingObjectError, TableLockedError
from headrace.storage.dvc.cache import Cache, find_in_directory
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.dvc.objects import directory_bytes, object_key
from headrace.storage.files import atomic_write
from headrace.storage.manifest import FORMAT_1_FILE, HEAD_FILE, Manifest, ManifestFiles, parse_manifest
from headrace.storage.manifest_entries import FOLDER, Chunk, ChunkReference, LazyEntries, check_chunk
from headrace.storage.partition_entry import PartitionEntry, decode_entry, encode_entry
from headrace.storage.table_schema import table_schema

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class TableStore:
    """The tables of one workspace.

    Attributes:
        root: The workspace: a git clone.
        cache: Where the bytes are: DVC's cache there, and the remote behind it.
        run_outs: In the worktree of a run: path → output entry of the tables that the run has made so far. They count
            before what the workspace records, and the worktree shows manifests alone. None outside of a run.
        findings_ref: Full name of the git ref that keeps the findings of the run; empty outside of a run.
        has_findings: Whether that ref existed when the task began.
        held_locks: Lock file → inode, of the locks that this run holds.
        written: Tables that `checkout` has written.
    """

    root: Path
    cache: Cache
    run_outs: Mapping[str, dict[str, Any]] | None = None
    findings_ref: str = ""
    has_findings: bool = False
    held_locks: dict[Path, int] = field(default_factory=dict, compare=False)
    written: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def at(cls, root: Path, *, is_remote_only: bool = False) -> "TableStore":
        """The table store of the workspace `root`; one whose partitions are on the remote only has manifests alone."""
        return cls(root.resolve(), Cache.of(root.resolve(), is_remote_only=is_remote_only))

    def folder(self, table: str) -> Path:
        """Folder of the table."""
        return self.root / "data" / table

    def manifest(self, table: str) -> Manifest:
        """What the table holds now: its manifest in the workspace, else the recorded one, else an empty one."""
        return self.visible_manifest(table) or self.recorded_manifest(table) or Manifest(table)

    def visible_manifest(self, table: str) -> Manifest | None:
        """The manifest in the workspace; None if there is none."""
        folder = self.folder(table)
        for name in (HEAD_FILE, FORMAT_1_FILE):
            path = folder / name
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            return _read(path, (found.st_ino, found.st_mtime_ns, found.st_size), self.cache)
        return None

    def recorded_manifest(self, table: str, revision: str | None = None) -> Manifest | None:
        """The table as `dvc.lock` (or its `.dvc` file) records it, wherever its bytes are; None if it is in neither.

        Args:
            table: The table.
            revision: A git revision, for example a release; by default what the run has made, else the workspace's own
                files.
        """
        out = self._recorded_out(f"data/{table}", revision)
        return self.manifest_of_directory(out["md5"]) if out else None

    def _recorded_out(self, path: str, revision: str | None) -> dict[str, Any] | None:
        if revision is None and self.run_outs and path in self.run_outs:
            return self.run_outs[path]
        return recorded_outs(self.root, revision).get(path)

    def manifest_of_directory(self, folder: str) -> Manifest | None:
        """The table whose list of files is the object `folder`; None if that lists no manifest."""
        head = find_in_directory(self.cache, folder, HEAD_FILE, FORMAT_1_FILE)
        return None if head is None else _fetch(self.cache, head)

    def candidate_manifests(self, table: str) -> list[Manifest]:
        """Every manifest whose entries may be reused, the one that readers see first.

        Of what no release records, only entries whose bytes the cache still has.
        """
        recorded = self.recorded_manifest(table)
        visible = self.visible_manifest(table)
        mine = [
            self._drop_missing(each, recorded) for each in (*([visible] if visible else []), self._read_journal(table))
        ]
        found = [*mine[:-1], *([recorded] if recorded else []), mine[-1]]
        return found if visible or recorded else [Manifest(table), *found]

    def _drop_missing(self, manifest: Manifest, recorded: Manifest | None) -> Manifest:
        """`manifest` less the partitions whose bytes are lost; what a release records is on the remote."""
        new = manifest.entries.changed_since(recorded.entries if recorded else LazyEntries())
        lost = {name for name in new if not self._is_stored(manifest.entries[name])}
        return manifest.with_partitions(manifest.entries.select(manifest.md5s.keys() - lost)) if lost else manifest

    def _is_stored(self, entry: PartitionEntry) -> bool:
        where = self.cache.remote if self.cache.is_remote_only else self.cache
        return all(where.has(file.md5, file.size) for file in entry.files)

    def append_to_journal(self, table: str, entry: PartitionEntry) -> None:
        """Record an entry that is computed and in no manifest yet: a run after a crash need not compute it again."""
        path = self._journal(table)
        path.parent.mkdir(parents=True, exist_ok=True)
        line = encode_entry(entry) + b"\n"
        with (
            failpoints.failpoint(
                "line of the journal", lambda: path.open("ab", buffering=0).write(line[: len(line) // 2])
            ),
            path.open("ab", buffering=0) as journal,
        ):
            journal.write(line)

    def clear_journal(self, table: str) -> None:
        """Delete the journal: the manifest has its entries."""
        with failpoints.failpoint("end of the journal"):
            self._journal(table).unlink(missing_ok=True)

    def _read_journal(self, table: str) -> Manifest:
        path = self._journal(table)
        lines = path.read_bytes().splitlines() if path.exists() else []
        entries = (entry for entry in map(_journal_entry, lines) if entry)
        return Manifest(table, partitions={entry.cache_key: entry for entry in entries})

    def _journal(self, table: str) -> Path:
        return self.root / ".headrace" / "journal" / (table.replace("/", ".") + ".jsonl")

    def tables(self, dataset: str) -> tuple[str, ...]:
        """Every table of `dataset` that has a manifest in the workspace, or that the run has made."""
        data = self.root / "data"
        folders = (path.relative_to(data).as_posix() for path in data.glob(f"*/{dataset}/*/"))
        made = (path.removeprefix("data/") for path in self.run_outs or ())
        return tuple(sorted({*filter(self.is_visible, folders), *made}))

    def known_tables(self, dataset: str) -> tuple[str, ...]:
        """The same, and every table of `dataset` that `dvc.lock` or a `.dvc` file records, as in a fresh clone."""
        recorded = (path.removeprefix("data/") for path in recorded_outs(self.root) if path.startswith("data/"))
        return tuple(sorted({*self.tables(dataset), *(it for it in recorded if it.split("/")[1:2] == [dataset])}))

    def is_visible(self, table: str) -> bool:
        """Whether the workspace has a manifest of the table."""
        return any((self.folder(table) / name).exists() for name in (HEAD_FILE, FORMAT_1_FILE))

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
        wanted_entries = {partition: entries[partition] for partition in wanted}
        return {name: self.cache.fetch(entry.md5, entry.sha256) for name, entry in wanted_entries.items()}

    def scan(self, table: str, partitions: Iterable[str] | None = None) -> "pl.LazyFrame":
        """The rows of a Parquet table, in partition order.

        Raises:
            MissingObjectError: As `paths`; also for a table of no partition, which has no schema.
        """
        import polars as pl  # noqa: PLC0415  who looks at manifests alone does not pay for the import

        paths = self.paths(table, partitions)
        if not paths:
            raise MissingObjectError(f"{table} has no partition: `headrace run {table.split('/')[1]}` makes them.")
        schema = table_schema(self.manifest(table))
        return schema.scan(paths) if schema else pl.scan_parquet(list(paths.values()))

    def checkout(self, manifest: Manifest) -> None:
        """Write the table to the workspace: new files first, then the manifest, then old files are removed.

        A crash leaves the old manifest or the new one. Files that it does not name are not read; the next write removes
        them.

        Raises:
            LockLostError: A lock of this run was taken away.
        """
        folder, fence = self.folder(manifest.table), partial(self._check_locks_held, manifest.table)
        fence()
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        there = {item.name: item.stat().st_size for item in os.scandir(folder) if item.name != FOLDER}
        if not self.cache.is_remote_only and self.run_outs is None:
            for partition in self._take_shown(manifest, there):
                entry = manifest.partitions[partition]
                self.cache.copy_to(entry.md5, folder / (partition + manifest.suffix), fence, entry.sha256)
        self._write_manifest(self._with_schemas(manifest).to_files(), folder, fence)
        for name in there:
            with failpoints.failpoint("file that is gone"):
                fence()
                (folder / name).unlink(missing_ok=True)
        self.written.add(manifest.table)

    def _write_manifest(self, files: ManifestFiles, folder: Path, fence: Callable[[], None]) -> None:
        """Chunks first, then the head that names them; chunks that no head names any more go last."""
        there = {f"{FOLDER}/{item.name}": item.stat().st_size for item in os.scandir(folder / FOLDER)}
        for chunk in files.chunks:
            self._keep_chunk(chunk)
            if there.get(chunk.reference.path) != chunk.reference.size:
                reference = chunk.reference
                self.cache.copy_to(reference.md5, folder / reference.path, fence, reference.sha256)
        head = folder / HEAD_FILE
        if HEAD_FILE not in there or head.read_bytes() != files.head:
            atomic_write(head, files.head, fence)
        for path in there.keys() - files.md5s.keys():
            with failpoints.failpoint("chunk that is gone"):
                fence()
                (folder / path).unlink(missing_ok=True)

    def _keep_chunk(self, chunk: Chunk) -> None:
        if not self.cache.has(chunk.reference.md5, chunk.reference.size):
            self.cache.add_bytes(chunk.content)

    def _with_schemas(self, manifest: Manifest) -> Manifest:
        """`manifest` with the schemas of its new partitions, each read from one of their files."""
        entries = manifest.entries
        if entries.files_of_unknown_schemas():
            entries = entries.with_schemas(self.manifest(manifest.table).schemas)
        missing = entries.files_of_unknown_schemas()
        if not missing:
            return manifest.with_partitions(entries)
        from headrace.storage.parquet import read_schema  # noqa: PLC0415  who plans alone does not pay for the import

        with self.cache.worker_cache() as cache:  # where partitions go to the remote at once, none stays here
            schemas = {name: read_schema(cache.fetch(md5)) for name, md5 in missing.items()}
        return manifest.with_partitions(entries.with_schemas(schemas))

    def _take_shown(self, manifest: Manifest, there: dict[str, int]) -> list[str]:
        """The partitions whose files are not as the manifest says, judged by the visible manifest and their sizes.

        Args:
            manifest: What is to be shown.
            there: File name → bytes of the files in the folder; those that the manifest names are taken out.
        """
        visible = self.visible_manifest(manifest.table)
        is_same_suffix = visible is not None and visible.suffix == manifest.suffix
        md5s, sizes = (visible.md5s, visible.sizes) if visible and is_same_suffix else ({}, {})
        missing = []
        for partition, md5 in manifest.md5s.items():
            size = there.pop(partition + manifest.suffix, None)
            if size is None or md5s.get(partition) != md5 or sizes[partition] != size:
                missing.append(partition)
        return missing

    def dvc_out(self, manifest: Manifest, recorded: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """The output entry that records a table, with which its manifest and its list of files go into the cache.

        Args:
            manifest: The table.
            recorded: Output entries that there are; the table's own is reused if it is as it was.
        """
        path, files = f"data/{manifest.table}", manifest.to_files()
        for chunk in files.chunks:
            self._keep_chunk(chunk)
        own = self.cache.add_bytes(files.head).md5
        had = recorded.get(path)
        if had and self.cache.has(had["md5"]) and find_in_directory(self.cache, had["md5"], HEAD_FILE) == own:
            return {"path": path, **{name: had[name] for name in ("hash", "md5", "size", "nfiles")}}
        listed = {**manifest.files, **files.md5s}
        folder = self.cache.add_bytes(directory_bytes(listed), suffix=".dir")
        size = files.size + sum(manifest.sizes.values())
        return {"path": path, "hash": "md5", "md5": folder.md5, "size": size, "nfiles": len(listed)}

    # no failpoint: the kernel holds the lock; the file only says whose it is
    @contextmanager
    def lock_table(self, table: str) -> Iterator[None]:
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
            self.held_locks[path] = os.fstat(lock.fileno()).st_ino
            try:
                yield
            finally:
                del self.held_locks[path]
                # Closing is not enough: a child that another thread has just forked still has the file open.
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _check_locks_held(self, table: str) -> None:
        """Raise if a lock of this run was taken away: another run may have written the table since."""
        for path, inode in self.held_locks.items():
            if not path.exists() or path.stat().st_ino != inode:
                raise LockLostError(
                    f"{table}: this run (process {os.getpid()}) no longer holds {path}; another may have written the"
                    " table meanwhile. Nothing was shown. Run the same command again."
                )


@lru_cache(maxsize=32)
def _read(path: Path, _same: tuple[int, int, int], cache: Cache) -> Manifest:
    """The manifest with this head, a file that is replaced and never written over.

    A run reads the same file many times: as the table that it changes, and as an input of several stages.
    """
    folder = str(path.parent.parent)

    def load(reference: ChunkReference) -> bytes:
        # A later run may have removed the chunk since the head was read; the cache keeps it.
        chunk = f"{folder}/{reference.path}"
        try:
            with open(chunk, "rb") as file:  # noqa: PTH123  without a `Path`, as there are many chunks
                return check_chunk(reference, file.read(), chunk)
        except FileNotFoundError:
            return _load_chunk(cache, reference)

    return parse_manifest(path.read_bytes(), load, str(path), _chunks(cache))


@lru_cache(maxsize=32)
def _fetch(cache: Cache, head: str) -> Manifest:
    """The manifest whose head, or file of format 1, is the object `head`."""
    path = cache.fetch(head)
    return parse_manifest(path.read_bytes(), partial(_load_chunk, cache), str(path), _chunks(cache))


@lru_cache(maxsize=4)
def _chunks(_cache: Cache) -> WeakValueDictionary[str, Chunk]:
    """md5 → chunk that some manifest holds: the table in the workspace shares most chunks with the recorded one."""
    return WeakValueDictionary()


def _load_chunk(cache: Cache, reference: ChunkReference) -> bytes:
    path = f"{cache.folder}/{object_key(reference.md5)}"
    try:
        with open(path, "rb") as file:  # noqa: PTH123  as above
            content = file.read()
    except FileNotFoundError:
        content = cache.fetch(reference.md5, reference.sha256).read_bytes()
    return check_chunk(reference, content, path)


def _journal_entry(line: bytes) -> PartitionEntry | None:
    """The entry in a line of the journal; None if it is torn by a crash or damaged: it is computed again."""
    try:
        return decode_entry(line)
    except ValueError:
        return None
