"""Sources → raw tables: object bytes are stored unchanged, database rows as canonical Parquet.

A run reads the partitions that are new or changed since the raw table's manifest was written, and nothing else.
Partitions that the source no longer has are removed and reported. The manifest is written last, so a raw table is
either updated completely or not at all.

How changes are detected, and which are missed:

- An object has changed if its key, ETag or size has. It is read as exactly the version that was listed.
- A partition of a database table has changed if its row count, a digest of the values of its watermark column, or the
  table's columns have. That covers inserts, hard deletes and updates that set the watermark, of any type, including
  late commits below the maximum. A partition with a row whose watermark is NULL is always read. What is missed are
  updates that leave the watermark alone: `full_refresh=True` reads every partition again.
- Of a table whose history is recorded, the same statistics tell whether it is read at all: see `table_history`.
- A table of another dataset is compared by the hashes of its partitions in the release.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from headrace.dataset import (
    DATABASE_URL,
    SOURCE_STATES,
    Dataset,
    ObjectSource,
    RawSource,
    ReleaseSource,
    Source,
    TableSource,
    raw_table,
)
from headrace.engine.partition_errors import combine_partition_errors
from headrace.engine.plan import find_by_cache_key
from headrace.engine.run import combine_table_errors
from headrace.errors import ConcurrentRunError, HeadraceError, NotConfiguredError
from headrace.guards.future import clock, future_findings, starts_of
from headrace.guards.gate import enforce
from headrace.guards.vanished import TableLoss, table_loss
from headrace.ingest.listing import SourceListing
from headrace.ingest.object_source import ObjectListing, StoreName, open_object_store
from headrace.ingest.release_source import ReleasedTableListing
from headrace.partitions import Partitions
from headrace.settings import Settings
from headrace.storage.manifest import Manifest
from headrace.storage.manifest_entries import LazyEntries
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import entries_by_partition, partition_of, recorded_interval
from headrace.storage.s3.errors import StorageUnreachableError
from headrace.storage.table_store import TableStore
from headrace.text import pluralize

if TYPE_CHECKING:
    from headrace.ingest.table_source import TableSnapshot

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the source, the number of partitions read, and the number to read."""

DEFAULT_THREADS = 16
"""Parallel downloads."""


class NothingMatchesError(HeadraceError):
    """A source has keys, and none of them is a partition."""


class HistoryLostError(HeadraceError):
    """A history would be replaced by the rows as they are."""


class UnknownSourceError(HeadraceError):
    """The dataset has no such source, or no source has such a partition."""


@dataclass(frozen=True)
class IngestResult:
    """What one run did for one source.

    Attributes:
        source: Name of the source.
        table: The raw table.
        listed: Number of partitions in the source.
        objects: Number of objects that were listed for them; of a database, the number of partitions.
        new: Partitions that the table did not have.
        changed: Partitions with different bytes.
        deleted: Partitions that the source no longer has.
        unmatched: Keys below the prefix that match no partition. They were not read.
        invalid: Key → why what it names cannot be a partition. They were not read.
        waiting: Partitions that the source has not completed. The table keeps what it has of them.
        read: Number of objects read, or of partitions of a database.
        rows: Rows read; None for objects, which are not parsed here.
        size: Bytes stored.
        operations: Of a history, `insert`, `update` or `delete` → how many changes were recorded.
    """

    source: str
    table: str
    listed: int
    objects: int
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    invalid: Mapping[str, str] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    read: int = 0
    rows: int | None = None
    size: int = 0
    operations: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = ((len(getattr(self, kind)), kind) for kind in ("new", "changed", "deleted"))
        changes = ", ".join(f"{count} {kind}" for count, kind in counts if count) or "nothing new"
        rows = "" if self.rows is None else f", {self.rows:,} rows"
        objects = f" ({pluralize(self.objects, 'object')})" if self.objects > self.listed else ""
        line = f"{self.table}: {self.listed} listed{objects}, {changes}; read {self.read}{rows}, {self.size:,} bytes"
        if self.operations:
            line += f"; recorded {', '.join(pluralize(count, kind) for kind, count in self.operations.items())}"
        return "\n  ".join([line, *skipped_keys(self.unmatched, self.invalid, self.waiting)])


def skipped_keys(unmatched: Sequence[str], invalid: Mapping[str, str], waiting: Sequence[str] = ()) -> Iterator[str]:
    """Lines about the keys and partitions of a source that are not read."""
    if unmatched:
        verbs = ("matches", "was") if len(unmatched) == 1 else ("match", "were")
        count = pluralize(len(unmatched), "key")
        yield f"{count} {verbs[0]} no partition and {verbs[1]} not read, e.g. {unmatched[0]!a}"
    if invalid:
        key, reason = next(iter(invalid.items()))
        verbs = ("has", "was") if len(invalid) == 1 else ("have", "were")
        name = f"{pluralize(len(invalid), 'key')} {verbs[0]} no valid partition name and {verbs[1]} not read"
        yield f"{name}, e.g. {key!a}: {reason}"
    if waiting:
        verbs = ("waits", "was") if len(waiting) == 1 else ("wait", "were")
        count = pluralize(len(waiting), "partition")
        yield f"{count} {verbs[0]} for the marker of a folder and {verbs[1]} not read, e.g. {waiting[0]}"


def required_partitions(dataset: Dataset) -> dict[str, Partitions]:
    """Source → the partitions that its keys have to name: those that it declares, or that a feature table relies on."""
    read = {read.table.partition("/") for table in dataset.kernel_tables for read in table.inputs.values()}
    names = {name for state, _, name in read if state in SOURCE_STATES}
    return {
        source.name: source.partitioning
        for source in dataset.sources
        if source.partitions is not None or source.name in names
    }


@dataclass(frozen=True)
class IngestRun:
    """The arguments of one `ingest` call, and for each source its result or the error that it met."""

    dataset: Dataset
    table_store: TableStore
    partition: str | None
    full_refresh: bool
    progress: Progress
    results: dict[str, IngestResult] = field(default_factory=dict)
    failed: dict[str, HeadraceError] = field(default_factory=dict)

    @contextmanager
    def note_failure(self, *sources: str) -> Iterator[None]:
        """Note what happens to sources, instead of raising it: the others go on."""
        try:
            yield
        except ConcurrentRunError:
            raise
        except HeadraceError as error:
            self.failed.update(dict.fromkeys(sources, error))

    def includes(self, entry: str) -> bool:
        """Whether the run covers the partition that an entry belongs to."""
        return self.partition in (None, partition_of(entry))


def ingest(  # noqa: PLR0913  everything behind the star is an option
    dataset: Dataset,
    table_store: TableStore,
    settings: Settings,
    *,
    sources: Iterable[str] | None = None,
    partition: str | None = None,
    full_refresh: bool = False,
    progress: Progress = lambda _source, _done, _total: None,
) -> list[IngestResult]:
    """Bring the raw tables up to date with their sources. All tables of one database are read in one transaction.

    Args:
        dataset: The dataset whose sources are read.
        table_store: The workspace's tables.
        settings: Bucket, database and number of threads.
        sources: Names of the sources; None for all.
        partition: Only this partition; the others stay as they are.
        full_refresh: Read unchanged partitions again.
        progress: Called after each partition.

    Raises:
        FindingsError: A table would lose too much, or has partitions of the future, and nobody has accepted that.
        HeadraceError: A source, or a partition of it, cannot be read. Its table stays as it was. Everything else that
            could be read was read first, and is not read again.
    """
    selected = _select_sources(dataset, sources)
    released = _select_released(dataset, sources, partition)
    run = IngestRun(dataset, table_store, partition, full_refresh, progress)
    _ingest_tables(run, selected, settings)
    _ingest_objects(run, selected, settings)
    _ingest_released(run, released)
    if run.failed:
        raise combine_table_errors(list(run.failed.values()))
    _check_partition_exists(run, run.results)
    return [run.results[name] for name in (*(it.name for it in selected), *(it.name for it in released))]


def _ingest_released(run: IngestRun, sources: Iterable[ReleaseSource]) -> None:
    for source in sources:
        table = raw_table(run.dataset.name, source.name)
        with run.note_failure(source.name), run.table_store.lock_table(table):
            listing = ReleasedTableListing.resolve(run.table_store, run.dataset.name, source)
            run.results[source.name] = _sync_table(run, source, listing)


def _ingest_tables(run: IngestRun, sources: Iterable[Source], settings: Settings) -> None:
    databases = _group_by_database(run, sources, settings)
    if not databases:
        return
    # Not needed in a run that has only objects to read, and slow to import.
    from headrace.ingest.database.read_transaction import open_read_transaction  # noqa: PLC0415
    from headrace.ingest.table_source import TableSnapshot  # noqa: PLC0415

    for address, tables in databases.items():
        waiting, is_open = list(tables), True
        # Again after an error: PostgreSQL ends the transaction with the statement that fails.
        while waiting and is_open:
            is_open = False
            with ExitStack() as stack, run.note_failure(*(source.name for source, _ in waiting)):
                # Lock before the transaction begins. Otherwise another run could publish a later state of the database
                # first, and this run would replace it with an earlier one.
                for source, _ in waiting:
                    stack.enter_context(run.table_store.lock_table(raw_table(run.dataset.name, source.name)))
                transaction = stack.enter_context(
                    open_read_transaction(address, statement_timeout_s=settings.statement_timeout_s)
                )
                is_open = True
                while waiting:
                    source, location = waiting.pop(0)
                    with run.note_failure(source.name):
                        snapshot = TableSnapshot.from_transaction(
                            run.table_store, transaction, location, source.partitioning
                        )
                        sync = _sync_history if location.history else _sync_table
                        run.results[source.name] = sync(run, source, snapshot)
                    if source.name in run.failed and not transaction.backend.survives_errors:
                        break


def _ingest_objects(run: IngestRun, sources: Iterable[Source], settings: Settings) -> None:
    threads = settings.threads or DEFAULT_THREADS
    open_store = cache(
        partial(open_object_store, settings=settings, root=run.table_store.root)
    )  # one connection per bucket
    required = required_partitions(run.dataset)
    unreachable: dict[StoreName, HeadraceError] = {}
    for source in sources:
        if not isinstance(source.location, ObjectSource):
            continue
        with run.note_failure(source.name):
            name = StoreName.from_source(source.location)
        if source.name in run.failed:
            continue
        if error := unreachable.get(name):  # it would be waited for once more
            run.failed[source.name] = error
            continue
        with run.note_failure(source.name), run.table_store.lock_table(raw_table(run.dataset.name, source.name)):
            store = open_store(name)
            listing = ObjectListing.from_bucket(
                run.table_store, store, source.location, threads, required.get(source.name)
            )
            run.results[source.name] = _sync_table(run, source, listing)
        if isinstance(failure := run.failed.get(source.name), StorageUnreachableError):
            unreachable[name] = failure


def _sync_history(run: IngestRun, source: Source, snapshot: "TableSnapshot") -> IngestResult:
    """Record what has changed in the table, then write the manifest, which a run without a change leaves as it was."""
    # Here for the reason that is given above.
    from headrace.ingest import table_history  # noqa: PLC0415

    table = raw_table(run.dataset.name, source.name)
    earlier = run.table_store.manifest(table)
    result = IngestResult(source.name, table, len(snapshot.cache_keys), len(snapshot.cache_keys))
    if run.partition is not None:  # what is recorded is what changed by now, not what a partition holds
        return replace(result, listed=int(run.partition in earlier.md5s))
    if table_history.recorded_listing(earlier) == snapshot.digest and not (snapshot.always_read or run.full_refresh):
        run.table_store.checkout(earlier)  # finishes what a run that died had begun
        return replace(result, rows=0)

    run.progress(source.name, 0, 1)
    recorded = earlier if table_history.is_history(earlier) else earlier.with_partitions({})
    history = table_history.read_history(run.table_store, recorded, snapshot.source)
    read = snapshot.read_snapshot()
    changes = table_history.find_changes(history, read, snapshot.source)
    loss = table_history.deletions_as_loss(table, history, changes, snapshot.source)
    manifest = recorded
    if changes.height:
        metadata = table_history.history_metadata(read, changes, snapshot.source)
        manifest = table_history.append_changes(run.table_store, recorded, changes, source.partitioning, metadata)
        manifest = replace(manifest, libraries=snapshot.libraries)
    _enforce_guards(run, earlier, manifest, snapshot, loss if history.seen else None)
    run.table_store.checkout(manifest)
    run.progress(source.name, 1, 1)

    old, new = recorded.md5s, manifest.md5s
    changed = [name for name in new if old.get(name) != new[name]]
    return replace(
        result,
        new=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(set(changed) & old.keys())),
        deleted=tuple(sorted(earlier.md5s.keys() - new.keys())),
        read=1,
        rows=read.rows.height,
        size=sum(manifest.partitions[name].size for name in changed),
        operations=table_history.count_operations(changes),
    )


def _check_keeps_history(run: IngestRun, source: RawSource, earlier: Manifest) -> None:
    """Check that a table that is about to be replaced is not a history, which no source could give again.

    Raises:
        HistoryLostError: It is.
    """
    first = next(iter(earlier.partitions.values()), None)
    is_table = isinstance(source, Source) and isinstance(source.location, TableSource)
    if is_table and first and "history" in first.metadata:
        raise HistoryLostError(
            f"{earlier.table} is a history of {pluralize(len(earlier.md5s), 'partition')}, but the source {source.name}"
            " is declared without `history=True`, so the rows of today would replace it. The table was left as it was."
            f" Declare `history=True` again, or give the source another name: `headrace drop {run.dataset.name}` then"
            " says what becomes of the history."
        )


def _sync_table(run: IngestRun, source: RawSource, listing: SourceListing) -> IngestResult:
    """Read the partitions that the table lacks, then write its manifest."""
    table = raw_table(run.dataset.name, source.name)
    earlier = run.table_store.manifest(table)
    _check_keeps_history(run, source, earlier)
    check_some_match(source, listing)
    reused, missing = split_unchanged(run, source, listing, earlier)
    for skipped in skipped_keys((), listing.invalid, listing.waiting):
        log.warning("%s: %s", table, skipped)
    read = _read_partitions(run, source, listing, missing)

    manifest = next_manifest(run, source, listing, earlier, reused | read)
    _enforce_guards(run, earlier, manifest, listing)

    # The journal is cleared after the manifest is written: a crash in between costs nothing but its deletion.
    run.table_store.checkout(manifest)
    run.table_store.clear_journal(table)

    old, new = earlier.partition_md5s, manifest.partition_md5s
    is_parsed = not (isinstance(source, Source) and isinstance(source.location, ObjectSource))
    objects = [name for name in listing.cache_keys if run.includes(name)]
    waiting = tuple(filter(run.includes, listing.waiting))
    return IngestResult(
        source=source.name,
        table=table,
        listed=len(entries_by_partition(objects)) + len(waiting),
        objects=len(objects),
        new=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
        deleted=tuple(sorted(old.keys() - new.keys())),
        unmatched=listing.unmatched,
        invalid=listing.invalid,
        waiting=waiting,
        read=len(read),
        rows=sum(entry.rows or 0 for entry in read.values()) if is_parsed else None,
        size=0 if isinstance(source, ReleaseSource) else sum(entry.size for entry in read.values()),
    )


def next_manifest(
    run: IngestRun, source: RawSource, listing: SourceListing, earlier: Manifest, entries: LazyEntries
) -> Manifest:
    """The raw table with these entries, as an ingest writes it."""
    table = raw_table(run.dataset.name, source.name)
    if isinstance(listing, ReleasedTableListing):
        params = listing.params_after(run.table_store, earlier)
        own = entries.with_schemas(listing.manifest.schemas)
        return Manifest(table, params=params, partitions=own, columns=listing.manifest.columns)
    return Manifest(table, raw_suffix(source), libraries=listing.libraries, partitions=entries)


def _read_partitions(
    run: IngestRun, source: RawSource, listing: SourceListing, names: list[str]
) -> dict[str, PartitionEntry]:
    """Read partitions into the cache. Each goes into the journal, so that the run after a crash need not read it.

    Raises:
        HeadraceError: A partition cannot be read; all the others were read first.
    """
    read = {}
    table = raw_table(run.dataset.name, source.name)
    failed = {name: error for name, error in listing.errors.items() if run.includes(name)}
    run.progress(source.name, 0, len(names))
    for count, (name, entry) in enumerate(listing.read(names), start=1):
        if isinstance(entry, HeadraceError):
            failed[name] = entry
        elif entry is not None:
            run.table_store.append_to_journal(table, entry)
            read[name] = entry
        run.progress(source.name, count, len(names))
    if failed:
        raise combine_partition_errors(table, failed, listing.address)
    return read


def split_unchanged(
    run: IngestRun, source: RawSource, listing: SourceListing, earlier: Manifest
) -> tuple[LazyEntries, list[str]]:
    """The entries that need no read, and the names of those to read, sorted."""
    cache_keys = {name: key for name, key in listing.cache_keys.items() if run.includes(name)}
    comparable = {name: key for name, key in cache_keys.items() if name not in listing.always_read}
    reused = _reusable_entries(run, source, earlier, comparable, frozenset(listing.waiting))
    return reused, sorted(cache_keys.keys() - reused.md5s.keys())


def _reusable_entries(
    run: IngestRun, source: RawSource, earlier: Manifest, cache_keys: Mapping[str, str], waiting: Collection[str]
) -> LazyEntries:
    """Entries that need no read: partitions outside of the run, and those that were read before under the same key.

    What an object was read as is found by its key, also where its entry has another name now.
    """
    outside = [name for name in earlier.md5s if not run.includes(name) or partition_of(name) in waiting]
    if run.full_refresh:
        return earlier.entries.select(outside)
    known = run.table_store.candidate_manifests(earlier.table)
    own = known[0]
    same = [name for name, key in cache_keys.items() if own.cache_keys.get(name) == key]
    others = {name: key for name, key in cache_keys.items() if own.cache_keys.get(name) != key}
    moved = find_by_cache_key(known, others, partial(recorded_interval, source.partitioning))
    return own.entries.select(same) | earlier.entries.select(outside) | moved


def check_some_match(source: RawSource, listing: SourceListing) -> None:
    """Check that some key of the source is a partition, if it has any.

    Raises:
        NothingMatchesError: None is.
    """
    if listing.cache_keys or listing.waiting or not (listing.unmatched or listing.invalid):
        return
    location = source.location if isinstance(source, Source) else None
    pattern = f" Its pattern is {location.partition!r}." if isinstance(location, ObjectSource) else ""
    raise NothingMatchesError(
        f"source {source.name}: {listing.description} has keys, but none is a partition:"
        f" {'; '.join(skipped_keys(listing.unmatched, listing.invalid))}.{pattern} The table was left as it was."
        " Correct the pattern or the keys, then run the same command again."
    )


def _enforce_guards(
    run: IngestRun, earlier: Manifest, manifest: Manifest, listing: SourceListing, loss: TableLoss | None = None
) -> None:
    """Refuse a table that would lose too much, or that has partitions of the future, unless that was accepted.

    A source that lists nothing is a finding whatever the bound: the likely cause is a mistake.
    """
    table, old, new = manifest.table, earlier.partition_md5s, manifest.partition_md5s
    guards, loss = run.dataset.guards_of(table), loss or table_loss(earlier, manifest)
    found = loss.finding(guards, "since the last ingest")
    if old and not (listing.cache_keys or listing.waiting):
        found = loss.as_finding(
            f"{table} has {pluralize(len(old), 'partition')}, but {listing.description} lists none; the likely cause is"
            " a wrong bucket, prefix or database"
        )
    changed = [name for name, md5 in new.items() if old.get(name) != md5]
    future = future_findings(table, starts_of(manifest, changed), new, guards, clock()) if changed else []
    enforce(
        [*([found] if found else []), *future],
        dataset=run.dataset.name,
        step="ingest",
        tables=[table],
        table_store=run.table_store,
        consequence="The table stays as it was.",
    )


def raw_suffix(source: RawSource) -> str:
    """File name ending of the source's raw partitions."""
    location = source.location if isinstance(source, Source) else None
    return location.suffix if isinstance(location, ObjectSource) else ".parquet"


def _select_sources(dataset: Dataset, names: Iterable[str] | None) -> list[Source]:
    wanted = None if names is None else set(names)
    declared = {source.name for source in dataset.raw_sources}
    if wanted and wanted - declared:
        unknown = ", ".join(sorted(wanted - declared))
        raise UnknownSourceError(f"{dataset.name}: expected sources of {', '.join(sorted(declared))}, found {unknown}.")
    return [source for source in dataset.sources if wanted is None or source.name in wanted]


def _select_released(dataset: Dataset, names: Iterable[str] | None, partition: str | None) -> list[ReleaseSource]:
    """The tables of other datasets to read; none where one partition is asked for, since a release is read as a whole.

    Raises:
        UnknownSourceError: One is named together with a partition.
    """
    wanted = None if names is None else set(names)
    found = [it for it in dataset.release_sources if wanted is None or it.name in wanted]
    if partition is None or not found:
        return found
    if wanted is None and dataset.sources:
        return []
    raise UnknownSourceError(
        f"{dataset.name}: {found[0].name} is {found[0].read.table} at a release, which is read as a whole. Omit"
        " `--partition`."
    )


def _group_by_database(
    run: IngestRun, sources: Iterable[Source], settings: Settings
) -> dict[str, list[tuple[Source, TableSource]]]:
    """Database address → sources that are tables of it."""
    databases: dict[str, list[tuple[Source, TableSource]]] = {}
    for source in sources:
        if isinstance(source.location, TableSource):
            with run.note_failure(source.name):
                address = database_address(source.location, settings)
                databases.setdefault(address, []).append((source, source.location))
    return databases


def database_address(source: TableSource, settings: Settings) -> str:
    """SQLAlchemy address of the source's database.

    Raises:
        NotConfiguredError: The environment variable is not set.
    """
    if source.database == DATABASE_URL and settings.database_url:
        return settings.database_url.get_secret_value()
    address = os.environ.get(source.database)
    if not address:
        raise NotConfiguredError(
            f"{source.label}: expected the address of its database in {source.database}, found nothing. Set it (for"
            " example to postgresql+psycopg://user:password@host:port/database), or start the local stack:"
            " `headrace stack up`."
        )
    return address


def _check_partition_exists(run: IngestRun, results: Mapping[str, IngestResult]) -> None:
    exists = any(result.listed or result.deleted for result in results.values())
    if run.partition is not None and not exists:
        tables = ", ".join(result.table for result in results.values())
        raise UnknownSourceError(
            f"{run.dataset.name}: no source lists the partition {run.partition}, and it is not in {tables} in"
            f" {run.table_store.root} either. Omit `--partition` to ingest every partition."
        )
