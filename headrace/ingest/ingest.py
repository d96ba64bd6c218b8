"""source → raw: the bytes of objects as they came, the rows of database tables as canonical Parquet.

A run reads what is new or changed since the raw table's manifest, and nothing else; what is gone from the source goes
from the table, and is reported. A raw table is whole or as it was: its manifest is written last.

What "changed" means, and what it cannot see:

- An object is changed when its key, ETag or size in the listing is; its bytes are then read as that one version.
- A partition of a database table is changed when its number of rows, the greatest value or the sum of its watermark
  column is, or the table's columns are. So inserts, hard deletes and updates that set the watermark are seen, late
  commits below the greatest watermark included. An update that leaves the watermark as it was is not, nor (for a
  watermark that is text, which has no sum) rows deleted and as many inserted below the greatest: `full=True` reads
  everything again.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from headrace.dataset import Dataset, ObjectSource, Source, TableSource, raw_table
from headrace.engine.plan import by_memo
from headrace.errors import HeadraceError, NotConfiguredError
from headrace.ingest.listing import Origin
from headrace.ingest.object_source import Keys
from headrace.settings import Settings
from headrace.storage.manifest import Entry, Manifest, Partitions
from headrace.storage.s3.bucket import Bucket
from headrace.storage.table_store import Lake

Progress = Callable[[str, int, int], None]
"""Called with source, partitions read, partitions to read."""

AT_ONCE = 16
"""Objects read at once: with fewer, threads wait for each other more and cost more CPU."""


class SourceEmptyError(HeadraceError):
    """A source that had partitions shows none at all."""


class UnknownSourceError(HeadraceError):
    """The dataset has no such source, or the source no such partition."""


@dataclass(frozen=True)
class IngestResult:
    """What one run did for one source.

    Attributes:
        source: Its name.
        table: The raw table.
        listed: Partitions that the source shows.
        new: Partitions that the table did not have.
        changed: Partitions whose bytes are others now.
        deleted: Partitions that the source no longer has.
        unmatched: Keys below the prefix that are no partition, never read.
        read: Partitions read in this run.
        rows: Rows read in this run; None for objects, which nobody has counted yet.
        size: Bytes kept in this run.
    """

    source: str
    table: str
    listed: int
    new: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    unmatched: tuple[str, ...]
    read: int
    rows: int | None
    size: int

    def __str__(self) -> str:
        """One line for people, and one for what was left aside."""
        news = ((len(getattr(self, word)), word) for word in ("new", "changed", "deleted"))
        what = ", ".join(f"{count} {word}" for count, word in news if count) or "nothing new"
        rows = "" if self.rows is None else f", {self.rows:,} rows"
        line = f"{self.table}: {self.listed} listed, {what}; read {self.read}{rows}, {self.size:,} bytes"
        if not self.unmatched:
            return line
        return f"{line}\n  {len(self.unmatched)} keys are no partition and were not read, such as {self.unmatched[0]!a}"


@dataclass(frozen=True)
class IngestRun:
    """What is asked for, and where it goes; the options are those of `ingest`."""

    dataset: Dataset
    lake: Lake
    partition: str | None
    full: bool
    allow_empty: bool
    progress: Progress

    def wants(self, partition: str) -> bool:
        """Whether the run looks at this partition."""
        return self.partition in (None, partition)


def ingest(  # noqa: PLR0913  everything behind the star is an option
    dataset: Dataset,
    lake: Lake,
    settings: Settings,
    *,
    sources: Iterable[str] | None = None,
    partition: str | None = None,
    full: bool = False,
    allow_empty: bool = False,
    progress: Progress = lambda _source, _done, _total: None,
) -> list[IngestResult]:
    """Bring the raw tables up to date with their sources; all tables of one database come from one moment of it.

    Args:
        dataset: Whose sources.
        lake: Where the tables are.
        settings: Bucket, database and threads.
        sources: Names of the sources; None for all.
        partition: Look at this partition only, the others stay as they are.
        full: Read everything again, also what seems unchanged.
        allow_empty: Let a table lose its last partition.
        progress: Told of each partition read.

    Raises:
        HeadraceError: A source cannot be read; its table is as it was.
    """
    chosen = _chosen(dataset, sources)
    run = IngestRun(dataset, lake, partition, full, allow_empty, progress)
    done = _from_databases(run, chosen, settings) | _from_bucket(run, chosen, settings)
    _expect_known(run, done)
    return [done[source.name] for source in chosen]


def _from_databases(run: IngestRun, sources: Iterable[Source], settings: Settings) -> dict[str, IngestResult]:
    done: dict[str, IngestResult] = {}
    grouped = _by_database(sources, settings)
    if not grouped:
        return done
    from headrace.ingest.database.read_transaction import snapshot  # noqa: PLC0415
    from headrace.ingest.table_source import Rows  # noqa: PLC0415  half the imports of a run that has only objects to read

    for address, queries in grouped.items():
        with ExitStack() as held:
            # Before the snapshot: else another run could show a later moment first, and this one take it back.
            for source, _ in queries:
                held.enter_context(run.lake.lease(raw_table(run.dataset.name, source.name)))
            moment = held.enter_context(snapshot(address))
            for source, query in queries:
                done[source.name] = _bring(run, source, Rows.listed(run.lake, moment, query))
    return done


def _from_bucket(run: IngestRun, sources: Iterable[Source], settings: Settings) -> dict[str, IngestResult]:
    threads = settings.threads or AT_ONCE
    bucket = Bucket(settings.bucket, endpoint=settings.s3_endpoint)
    done = {}
    for source in sources:
        if isinstance(source.location, ObjectSource):
            with run.lake.lease(raw_table(run.dataset.name, source.name)):
                done[source.name] = _bring(run, source, Keys.listed(run.lake, bucket, source.location, threads))
    return done


def _bring(run: IngestRun, source: Source, origin: Origin) -> IngestResult:
    """Read what is missing and show the table."""
    table = raw_table(run.dataset.name, source.name)
    before = run.lake.manifest(table)
    had = before.md5s
    _refuse_emptiness(run, table, origin, had)
    offers = {name: memo for name, memo in origin.offers.items() if run.wants(name)}
    kept = _kept(run, before, offers)
    read = _read(run, source, origin, sorted(offers.keys() - kept.lines.keys()))
    after = Manifest(table, _suffix(source), libraries=origin.libraries, partitions=kept | read)
    run.lake.commit(after)
    run.lake.forget(table)
    has = after.md5s
    return IngestResult(
        source=source.name,
        table=table,
        listed=len(offers),
        new=tuple(sorted(has.keys() - had.keys())),
        changed=tuple(sorted(name for name in has.keys() & had.keys() if has[name] != had[name])),
        deleted=tuple(sorted(had.keys() - has.keys())),
        unmatched=origin.unmatched,
        read=len(read),
        rows=sum(entry.rows or 0 for entry in read.values()) if isinstance(source.location, TableSource) else None,
        size=sum(entry.size for entry in read.values()),
    )


def _read(run: IngestRun, source: Source, origin: Origin, missing: list[str]) -> dict[str, Entry]:
    """Bring the partitions into the cache, noting each, so that a run after a crash need not read it again."""
    read = {}
    run.progress(source.name, 0, len(missing))
    for count, (name, entry) in enumerate(origin.read(missing), start=1):
        if entry is not None:
            run.lake.remember(raw_table(run.dataset.name, source.name), entry)
            read[name] = entry
        run.progress(source.name, count, len(missing))
    return read


def _kept(run: IngestRun, before: Manifest, offers: Mapping[str, str]) -> Partitions:
    """What need not be read: partitions that the run does not look at, and what we have had by its memo key."""
    aside = {name: line for name, line in before.lines.items() if not run.wants(name)}
    lent = {} if run.full else by_memo(run.lake.known(before.table))
    return Partitions(aside | {name: lent[memo] for name, memo in offers.items() if memo in lent})


def _refuse_emptiness(run: IngestRun, table: str, origin: Origin, had: Mapping[str, str]) -> None:
    if had and not origin.offers and not run.allow_empty:
        raise SourceEmptyError(
            f"{table} has {len(had)} partitions, but {origin.where} shows none. That is more often a wrong bucket,"
            " prefix or database than the truth, so the table stays as it is. If everything is meant to go, run"
            f" `headrace ingest {run.dataset.name} --allow-empty`."
        )


def _suffix(source: Source) -> str:
    return source.location.suffix if isinstance(source.location, ObjectSource) else ".parquet"


def _chosen(dataset: Dataset, names: Iterable[str] | None) -> list[Source]:
    wanted = None if names is None else set(names)
    known = {source.name for source in dataset.sources}
    if wanted and wanted - known:
        raise UnknownSourceError(
            f"{dataset.name}: expected sources of {', '.join(sorted(known))}, seen {', '.join(sorted(wanted - known))}."
        )
    return [source for source in dataset.sources if wanted is None or source.name in wanted]


def _by_database(sources: Iterable[Source], settings: Settings) -> dict[str, list[tuple[Source, TableSource]]]:
    grouped: dict[str, list[tuple[Source, TableSource]]] = {}
    for source in sources:
        if isinstance(source.location, TableSource):
            address = database_address(source.location, settings)
            grouped.setdefault(address, []).append((source, source.location))
    return grouped


def database_address(query: TableSource, settings: Settings) -> str:
    """SQLAlchemy address of the query's database.

    Raises:
        NotConfiguredError: Nobody set it.
    """
    if query.database == "HEADRACE_DATABASE_URL" and settings.database_url:
        return settings.database_url.get_secret_value()
    address = os.environ.get(query.database)
    if not address:
        raise NotConfiguredError(
            f"{query.table}: expected the address of its database in {query.database}, seen nothing. Set it (such as"
            " postgresql+psycopg://user:password@host:port/database), or start the stack: `headrace stack up`."
        )
    return address


def _expect_known(run: IngestRun, done: Mapping[str, IngestResult]) -> None:
    seen = any(item.listed or item.deleted for item in done.values())
    if run.partition is not None and not seen:
        tables = ", ".join(item.table for item in done.values())
        raise UnknownSourceError(
            f"{run.dataset.name}: no source shows the partition {run.partition}, nor do {tables} in {run.lake.root}"
            " have it. Leave out `--partition` to ingest whatever there is."
        )
