"""raw → validated: good rows go on, each bad row is kept in `rejected` with the checks it failed.

For every partition: rows in = rows accepted + rows rejected. A key stands once in the whole table, not only once a
partition: the earliest partition that holds it keeps it, the others reject their row.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from headrace.dataset import Dataset, Source, raw_table
from headrace.engine.stage import Files, Inputs, Outcome, Stage
from headrace.errors import HeadraceError
from headrace.storage.manifest import Entry, Manifest
from headrace.validate import validate_partition
from headrace.validate.result import Verdict
from headrace.validate.validate_partition import Judged

KEYS = "keys"
"""The fact that holds the first and the last value of the leading key column."""


class TooManyRejectedError(HeadraceError):
    """More of a partition's rows fail the contract than its source tolerates."""


def validation_stage(dataset: Dataset, source: Source) -> Stage:
    """The stage that validates `source`."""
    raw, rejected = raw_table(dataset.name, source.name), f"rejected/{dataset.name}/{source.name}"
    return Stage(
        verb="validate",
        dataset=dataset.name,
        table=f"validated/{dataset.name}/{source.name}",
        beside=(rejected,),
        reads=(raw,),
        modules=(*source.modules, source.read.__module__, source.transform.__module__),
        files=source.files,
        libraries=("polars", "pyarrow", "pandera"),
        partitions=partial(partitions, raw),
        compute=partial(compute, source, dataset.name, rejected),
        at_once=source.batch_size,
        together=partial(together, source, dataset.name, rejected),
        settles=False,
    )


def partitions(raw: str, inputs: Mapping[str, Manifest], own: Manifest) -> Iterator[tuple[str, Inputs]]:
    """Every raw partition, read with the earlier ones whose keys may be its own, as far as they are known."""
    md5s = inputs[raw].md5s
    spans = {name: _span(own.partitions.get(name)) for name in md5s}
    earlier: list[str] = []
    latest: Any = None
    for name in sorted(md5s):
        shared: list[str] = []
        if span := spans[name]:
            if latest is not None and latest >= span[0]:
                shared = [other for other in earlier if _overlap(spans[other], span)]
            latest = span[1] if latest is None else max(latest, span[1])
            earlier.append(name)
        yield name, {raw: {part: md5s[part] for part in (*shared, name)}}


def compute(
    source: Source, dataset: str, rejected: str, name: str, files: Files, _params: Mapping[str, Any]
) -> Outcome:
    """Judge one partition, given the raw files of it and of the earlier ones that may hold its keys."""
    (paths,) = files.values()
    return _outcome(
        validate_partition.judge(source, name, paths), source, rejected, partial(too_many, source, dataset, name)
    )


def together(
    source: Source, dataset: str, rejected: str, files: Mapping[str, Files], _params: Mapping[str, Any]
) -> dict[str, Outcome]:
    """Judge partitions whose keys stand in no other, those of which one look can tell."""
    own = {name: paths[name] for name, tables in files.items() for paths in tables.values() if len(paths) == 1}
    judged = validate_partition.judge_together(source, own) if own else {}
    return {
        name: _outcome(found, source, rejected, partial(too_many, source, dataset, name))
        for name, found in judged.items()
    }


def _outcome(judged: Judged, source: Source, rejected: str, refuse: Callable[[Verdict, str], HeadraceError]) -> Outcome:
    verdict, span = judged
    return Outcome(
        verdict.accepted,
        source.key,
        {"rows_in": verdict.rows_in, "rejected": verdict.rejected.height, "checks": verdict.counts, KEYS: span},
        beside={rejected: verdict.rejected} if verdict.rejected.height else {},
        is_unique=True,
        refusal=partial(refuse, verdict) if _is_refused(verdict, source) else None,
    )


def too_many(source: Source, dataset: str, name: str, verdict: Verdict, evidence: str) -> TooManyRejectedError:
    """The error for a partition over its tolerance."""
    share = verdict.rejected.height / verdict.rows_in
    check, rows = next(iter(verdict.counts.items()))
    return TooManyRejectedError(
        f"{source.name} {name}: {share:.1%} of {verdict.rows_in:,} rows rejected,"
        f" {source.max_rejected_share:.1%} tolerated."
        f" Most often: {check} ({rows:,} rows). The rows are in {evidence}; fix the source or the contract, then run"
        f" `headrace validate {dataset} --table {source.name}`."
    )


def _is_refused(verdict: Verdict, source: Source) -> bool:
    return verdict.rejected.height > source.max_rejected_share * verdict.rows_in


def _span(entry: Entry | None) -> list[Any] | None:
    return entry.facts.get(KEYS) if entry else None


def _overlap(span: list[Any] | None, other: list[Any]) -> bool:
    return span is not None and span[0] <= other[1] and other[0] <= span[1]
