"""The guards of a publish: keys that would be offline, and times beyond the moment at which the release was made.

That moment is the time of the release's tag: no row of the release can move it, and it is the same on every machine.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from headrace.dataset import EVENT_TIME, KNOWN_TIME, FeatureTable
from headrace.feast.definitions import physical_view_name
from headrace.feast.encoding import keys, plain_key
from headrace.feast.types import KEY
from headrace.guards.finding import Acceptance, FindingRecord, GuardFinding
from headrace.guards.finding_log import open_publish_log
from headrace.guards.future import CHECK as FUTURE
from headrace.guards.future import clock, future_findings
from headrace.guards.gate import enforce
from headrace.guards.vanished import NAMED, Loss, TableLoss
from headrace.publish.snapshot import Snapshot
from headrace.release.guards import read_acceptances
from headrace.retrieve.partition_reader import PartitionReader, table_name
from headrace.storage import git

if TYPE_CHECKING:
    from headrace.publish.blue_green import PublishAttempt
    from headrace.publish.verification import Expected


def check_guards(attempt: "PublishAttempt", expected: Mapping[str, "Expected"]) -> list[Acceptance]:
    """Hold what a publish would show against what is online and against its time; the acceptances that count.

    Args:
        attempt: The publish.
        expected: Feature table → what its view must hold.

    Raises:
        FindingsError: Too many keys would vanish, or times lie in the future, and nobody has accepted that.
    """
    sides, live = attempt.sides, attempt.deployment.live
    snapshot, dataset = sides.snapshot, sides.snapshot.dataset
    findings = [*_vanished(attempt, expected), *_future(snapshot)]
    if not findings:
        return []
    released = read_acceptances(snapshot.table_store.root, dataset.name) if snapshot.release else {}
    served = f"{live.release or 'Tables of a workspace'} stays online" if live.digest else "Nothing is online yet"
    return enforce(
        findings,
        dataset=dataset.name,
        step="publish",
        tables=[finding.table for finding in findings],
        table_store=snapshot.table_store,
        consequence=f"{served}.",
        log=open_publish_log(snapshot.table_store, dataset.name),
        earlier=[each for made in released.values() for each in made if each.finding.startswith(f"{FUTURE}:")],
    )


def forget_published(snapshot: Snapshot, accepted: list[Acceptance]) -> None:
    """Remove what the report of a publish has recorded."""
    ids = {each.finding for each in accepted}

    def forget(record: FindingRecord) -> FindingRecord:
        return FindingRecord(
            tuple(each for each in record.findings if each.step != "publish"),
            tuple(each for each in record.acceptances if each.finding not in ids),
        )

    if accepted:
        open_publish_log(snapshot.table_store, snapshot.dataset.name).update(forget)


def _vanished(attempt: "PublishAttempt", expected: Mapping[str, "Expected"]) -> Iterator[GuardFinding]:
    sides, live = attempt.sides, attempt.deployment.live
    if not live.digest:
        return
    snapshot = sides.snapshot
    before = sides.verified_snapshot(live)
    served, lost = dict[str, pl.Series](), dict[str, pl.Series]()
    for table in sides.tables:
        if physical_view_name(table, live.side) in attempt.deployment.views:  # else it is not served yet
            online = sides.online_table(table, live.side)
            served[table.name] = online.online.keys(online.view)
            lost[table.name] = _lost_keys(snapshot, table, expected[table.name], before, served[table.name])
    left = sum(served[name].len() - gone.len() for name, gone in lost.items())
    for name, gone in lost.items():
        loss = TableLoss(
            f"online/{snapshot.dataset.name}/{name}",
            [Loss("key", gone.len(), served[name].len(), left)],
            [_key_text(key) for key in gone.sort().head(NAMED + 1)],
            [live.digest, snapshot.digest],
        )
        if loss.losses[0].is_beyond(snapshot.dataset.guards):
            since = f"that {live.release or 'the workspace'} has online"
            if finding := loss.finding(snapshot.dataset.guards, since, note=f"; {_newest_row(snapshot)}"):
                yield finding


def _lost_keys(
    snapshot: Snapshot, table: FeatureTable, expected: "Expected", before: Snapshot | None, served: pl.Series
) -> pl.Series:
    """The served keys that have no value in the snapshot."""
    if expected.among is None:
        has = expected.encoded[KEY]
    elif before is None:
        has = keys(snapshot.latest[table.name], table)
    else:
        changed = snapshot.changed_keys(table, before)
        served, has = keys(changed, table), keys(snapshot.latest_rows_of(table, changed), table)
        served = _without(served, _without(served, keys(before.latest_rows_of(table, changed), table)))
    return _without(served, has)


def _without(some: pl.Series, others: pl.Series) -> pl.Series:
    return some.alias(KEY).to_frame().join(others.alias(KEY).to_frame(), on=KEY, how="anti")[KEY]


def _key_text(key: bytes) -> str:
    return ", ".join(f"{name}={value}" for name, value in plain_key(key).items())


def _newest_row(snapshot: Snapshot) -> str:
    """Where the moment comes from at which the latest values are taken."""
    spans = (
        (table, name, span) for table in snapshot.dataset.features for name, span in snapshot.partition_spans(table)
    )
    table, name, _ = max(spans, key=lambda found: max(found[2].event, found[2].known))
    made = snapshot.manifests[table.name]
    rows = PartitionReader(snapshot.table_store, made, (name,)).read([*table.keys, EVENT_TIME, KNOWN_TIME])
    newest = rows.sort(pl.max_horizontal(EVENT_TIME, KNOWN_TIME), descending=True).row(0, named=True)
    key = ", ".join(f"{column}={newest[column]}" for column in table.keys)
    place = f"{table_name(snapshot.dataset, table)} {name}"
    return f"the newest time of the release, {snapshot.now.isoformat()}, comes from {key} in {place}"


def _future(snapshot: Snapshot) -> Iterator[GuardFinding]:
    limit = snapshot.dataset.guards.max_future
    moment = _release_time(snapshot)
    if limit is None or snapshot.now - moment <= limit:
        return
    for table in snapshot.dataset.features:
        made = snapshot.manifests[table.name]
        times = {name: max(span.event, span.known) for name, span in snapshot.partition_spans(table)}
        yield from future_findings(made.table, times, made.md5s, snapshot.dataset.guards_of(made.table), moment)


def _release_time(snapshot: Snapshot) -> datetime:
    """When the release was made, by its tag; of tables that are no release, now."""
    if not snapshot.release:
        return clock()
    tag = f"refs/tags/{snapshot.release}"
    created = git.git(snapshot.table_store.root, "for-each-ref", "--format=%(creatordate:unix)", tag)
    return datetime.fromtimestamp(int(created), UTC) if created else clock()
