"""The tables that a dataset's tables read: unknown ones, those of another dataset, cycles, and the order."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import NoneType

from headrace.dataset import (
    KNOWN_TIME,
    Dataset,
    DerivedTable,
    FeatureTable,
    Input,
    KernelTable,
    LabelingTask,
    ObjectSource,
    ReleaseSource,
    Source,
    TableSource,
    pointer_name,
)
from headrace.partitions import UTC_DAYS, UTC_ZONE, Days, Partitions, Static, TimePartitions
from headrace.project.faults import Fault, argument, function_name
from headrace.project.source_lines import written_call
from headrace.text import closest
from headrace.transform.kernel import takes_interval
from headrace.transform.known_times import KNOWN_STATES

LATEST = "latest"
"""In place of a release: the latest one."""

FOREIGN_STATES = ("validated", "rejected", "derived", "features", "labels")
"""States of the tables of other datasets that can be read; annotations are read by who aggregates them."""

FOREIGN_TABLE = re.compile(rf"[a-z][a-z0-9_]*:({'|'.join(FOREIGN_STATES)})/[a-z][a-z0-9_]*")

Maker = Source | ReleaseSource | KernelTable | LabelingTask
Reads = Mapping[tuple[str, ...], str]
"""Argument of a declaration → table that it reads."""

MAX_LOOKBACK_DAYS = 36_525
"""A century: more is a number of another unit."""


@dataclass(frozen=True)
class TableGraph:
    """The tables of a dataset as inputs name them, and what computes each.

    Attributes:
        dataset: The dataset.
        makers: Table → declaration that makes it.
    """

    dataset: Dataset
    makers: Mapping[str, Maker] = field(init=False)

    def __post_init__(self) -> None:
        """Collect the tables."""
        dataset, makers = self.dataset, dict[str, Maker]()
        for source in dataset.sources:
            makers |= {f"{state}/{source.name}": source for state in ("raw", "validated", "rejected")}
        makers |= {f"raw/{source.name}": source for source in dataset.release_sources}
        makers |= {f"annotations/{labeling.name}": labeling for labeling in dataset.labels}
        makers |= {f"{table.state}/{table.name}": table for table in dataset.kernel_tables}
        makers |= {f"{state}/{it.name}": it for it in dataset.labels for state in ("labels", "rejected")}
        object.__setattr__(self, "makers", makers)

    def faults(self) -> Iterator[Fault]:
        """What is wrong with the inputs of feature tables, derived tables and labeling tasks."""
        for table in self.dataset.kernel_tables:
            own = f"{table.state}/{table.name}"
            reads: Reads = {("inputs", name): read for name, read in self._reads(own).items()}
            faults = [*self._input_faults(table, table.inputs, "transform"), *self._cycle_faults(table, own, reads)]
            yield from faults or (*self._partition_faults(table), *self._known_time_faults(table))
        for labeling in self.dataset.labels:
            inputs = dict(labeling.inputs) if isinstance(labeling.inputs, Mapping) else labeling.inputs
            yield from self._input_faults(labeling, inputs, "sample")
            if labeling.gold is not None:
                yield from self._table_faults(labeling, ("gold",), labeling.gold)
            if labeling.item_features is not None:
                yield from self._table_faults(labeling, ("item_features",), Input(labeling.item_features.table))
                own = f"labels/{labeling.name}"
                model: Reads = {(argument, "table"): read for argument, read in self._reads(own).items()}
                yield from self._cycle_faults(labeling, own, model)

    def _input_faults(self, declared: KernelTable | LabelingTask, inputs: object, function: str) -> Iterator[Fault]:
        if not isinstance(inputs, Mapping) or not inputs:
            name = function_name(getattr(declared, function))
            yield Fault(
                declared, ("inputs",), f"expected keyword of {name} → `Input`, found {inputs!r}: name what it reads"
            )
            return
        tables: dict[str, str] = {}
        for keyword, read in inputs.items():
            if isinstance(read, Input) and tables.setdefault(read.table, str(keyword)) != keyword:
                yield Fault(
                    declared,
                    ("inputs", str(keyword)),
                    f"the inputs {tables[read.table]!r} and {keyword!r} read one table, {read.table!r}: read it"
                    " once, with the longer lookback",
                )
            elif isinstance(read, Input):
                yield from self._table_faults(declared, ("inputs", str(keyword)), read)
            else:
                yield Fault(declared, ("inputs", str(keyword)), f"expected an `Input`, found {read!r}")

    def _table_faults(
        self, declared: KernelTable | LabelingTask, path: tuple[str, ...], read: Input
    ) -> Iterator[Fault]:
        if fault := _lookback_fault(read.lookback):
            yield Fault(declared, path, fault)
        if read.other_dataset or read.release or read.partitions is not None:
            yield from (Fault(declared, path, text) for text in self._release_faults(read))
            return
        maker = self.makers.get(read.table)
        if maker is None or isinstance(maker, ReleaseSource):
            yield Fault(declared, path, self._unknown(read.table))
        elif isinstance(maker, Source) and read.table.startswith("raw/") and not _is_parquet(maker):
            yield Fault(
                declared,
                path,
                f"{read.table} holds the source's files as they came, which no transform can scan: read"
                f" 'validated/{maker.name}'",
            )

    def _release_faults(self, read: Input) -> Iterator[str]:
        """What is wrong with an input of another dataset, or with one of the own that says it were one."""
        cut: object = read.partitions
        if not read.other_dataset:
            yield (
                f"`release` and `partitions` are of tables of other datasets, and {read.table!r} is of this one: leave"
                " them out, or name the dataset, 'flights:features/delays'"
            )
            return
        if not FOREIGN_TABLE.fullmatch(read.table):
            yield (
                f"expected the table of another dataset as 'flights:features/delays', of {', '.join(FOREIGN_STATES)},"
                f" found {read.table!r}: correct it"
            )
        elif read.other_dataset == self.dataset.name:
            yield f"{read.table!r} is a table of this dataset: name it {read.named_table!r}, without `release`"
        if read.release != LATEST and not re.fullmatch(rf"{re.escape(read.other_dataset)}/[1-9][0-9]*", read.release):
            yield (
                f'{read.table!r} is read at a release: expected `release="latest"` or one such as'
                f' `release="{read.other_dataset}/12"`, found {read.release!r}'
            )
        if not isinstance(cut, Partitions | NoneType):
            yield f"expected partitions such as Daily(), found {cut!r}"
        first = next((it.read for it in self.dataset.release_sources if it.name == pointer_name(read.table)), read)
        if (first.table, first.release, first.partitions) != (read.table, read.release, read.partitions):
            yield (
                f"another input reads {first.table!r} at release={first.release!r}, partitions={first.partitions!r}:"
                " a dataset reads a table at one release, so write the same in both"
            )
        if any(source.name == pointer_name(read.table) for source in self.dataset.sources):
            yield f"a source is named {pointer_name(read.table)!r}, which is where {read.table!r} is kept: rename it"

    def _unknown(self, table: object) -> str:
        name, readable = str(table), [known for known in self.makers if not known.startswith("raw/")]
        parts = name.split("/")
        if len(parts) == 3:  # noqa: PLR2004  state, dataset, table
            state, dataset, own = parts
            if dataset != self.dataset.name:
                return (
                    f"{name!r} is a table of another dataset, which is read at a release:"
                    f" Input('{dataset}:{state}/{own}', release=\"latest\")"
                )
            return f"there is no table {name!r}: tables are named without the dataset, {f'{state}/{own}'!r}"
        return f"there is no table {name!r}{closest(name, readable)}; its tables: {', '.join(readable)}"

    def _cycle_faults(self, declared: KernelTable | LabelingTask, own: str, reads: Reads) -> Iterator[Fault]:
        """A table that reads itself, directly or through others; a cycle is reported at its first table."""
        order = [table for table in self.makers if self._reads(table)]
        for path, name in reads.items():
            if name == own:
                yield Fault(
                    declared,
                    path,
                    f"it reads itself, {name!r}, and would be computed from what an earlier run made: read its inputs"
                    " with a lookback instead",
                )
                continue
            cycle = self._path(name, own)
            if cycle and order.index(own) == min(map(order.index, cycle)):
                yield Fault(declared, path, f"the tables read each other: {' → '.join((own, *cycle))}: break the cycle")

    def _known_time_faults(self, table: KernelTable) -> Iterator[Fault]:
        """A derived table between one that has a known time and those that decide it, and that drops it."""
        if isinstance(table, DerivedTable) and KNOWN_TIME not in table.columns:
            return
        for keyword, read in table.inputs.items():
            maker = self.makers.get(read.table)
            if not isinstance(maker, DerivedTable) or KNOWN_TIME in maker.columns:
                continue
            if known := self._known_inputs(read.table):
                yield Fault(
                    table,
                    ("inputs", keyword),
                    f"{read.table!r} is computed from {', '.join(known)} and has no column {KNOWN_TIME!r}, so nothing"
                    f" shows when its rows could be known: add it to the `columns` of {maker.name}",
                )

    def _known_inputs(self, table: str) -> list[str]:
        """The features and labels, and derived tables with a known time, that a derived table is computed from."""
        known: dict[str, None] = {}
        for name in self._reads(table).values():
            maker = self.makers.get(name)
            if isinstance(maker, DerivedTable) and KNOWN_TIME not in maker.columns:
                known |= dict.fromkeys(self._known_inputs(name))
            elif name.partition(":")[2].partition("/")[0] in KNOWN_STATES or name.partition("/")[0] in KNOWN_STATES:
                known[name] = None
        return list(known)

    def _reads(self, table: str) -> dict[str, str]:
        """Keyword → table that is read to compute `table`; of labels, what the model of the items learns from."""
        maker = self.makers.get(table)
        if isinstance(maker, LabelingTask):
            model = maker.item_features if maker.consensus == "crowdlab" else None
            return {"item_features": model.table} if model and not table.startswith("annotations/") else {}
        inputs = maker.inputs if isinstance(maker, FeatureTable | DerivedTable) else {}
        items = inputs.items() if isinstance(inputs, Mapping) else ()
        return {str(keyword): str(getattr(read, "table", "")) for keyword, read in items}

    def _partition_faults(self, table: KernelTable) -> Iterator[Fault]:
        """Partitions that a table cannot have, and lookbacks that do not fit those of an input."""
        declared, driver = argument(table, "partitions"), next(iter(table.inputs.values()))
        driving = self.dataset.partitions_of(driver.local_table)
        own = driving if declared is None else declared
        if not isinstance(own, Partitions):
            yield Fault(table, ("partitions",), f"expected partitions such as Daily(), found {own!r}")
        elif isinstance(own, Static):
            yield Fault(
                table,
                ("partitions",),
                f"its partitions are the static names {', '.join(own.names)}, and a kernel computes intervals of time:"
                " declare `partitions=Unpartitioned()`, or put an input that is cut by time first",
            )
        elif isinstance(own, TimePartitions) and not isinstance(driving, TimePartitions):
            yield Fault(
                table,
                ("partitions",),
                f"{driver.table!r}, its first input, has no intervals of time ({driving.label}), so which"
                " partitions there are is not known: put an input that is cut by time first",
            )
        elif isinstance(own, TimePartitions) and own != UTC_DAYS and not takes_interval(table):
            yield Fault(
                table,
                ("transform",),
                f"{function_name(table.transform)} takes `day`, a UTC day, and each partition is a {own.label}: take"
                " `interval` in its place, with `interval.start` and `interval.end`",
            )
        for keyword, read in table.inputs.items():
            yield from self._zone_faults(table, keyword, read)
            yield from self._history_faults(table, keyword, read, own)

    def _zone_faults(self, table: KernelTable, keyword: str, read: Input) -> Iterator[Fault]:
        """Whole days of elapsed time on a table that is cut by local days, which may have 23 or 25 hours."""
        zone, lookback = self.dataset.partitions_of(read.local_table).timezone, read.lookback
        if zone == UTC_ZONE or not isinstance(lookback, timedelta) or not lookback or lookback % timedelta(days=1):
            return
        path = ("inputs", str(keyword), "lookback")
        if _is_written_in_hours(written_call(*table.place, path)):
            return
        yield Fault(
            table,
            path,
            f"{read.table!r} is cut by days in {zone}, which have 23 to 25 hours, so `timedelta(days={lookback.days})`"
            f" may mean either: write `timedelta(hours={lookback.days * 24})` for elapsed time, or"
            f" `Days({lookback.days})` for calendar days",
        )

    def _history_faults(self, table: KernelTable, keyword: str, read: Input, own: object) -> Iterator[Fault]:
        """A database table that is updated in place, without a history, read into partitions of the past."""
        path, cut = ("inputs", str(keyword)), self.dataset.partitions_of(read.table)
        maker = self.makers.get(read.table)
        is_current = isinstance(maker, Source) and not maker.is_history and not isinstance(cut, TimePartitions)
        if read.as_of not in ("", "now"):
            yield Fault(table, (*path, "as_of"), f"expected as_of 'now', or none, found {read.as_of!r}")
        elif read.as_of and not is_current:
            what = (
                "records when each change was known"
                if self.dataset.is_history(read.table)
                else f"is cut by {cut.label}"
            )
            yield Fault(table, (*path, "as_of"), f"{read.table!r} {what}, so it is not read as of now: leave it out")
        elif (
            is_current
            and not read.as_of
            and isinstance(maker, Source)
            and isinstance(maker.location, TableSource)
            and isinstance(own, TimePartitions)
        ):
            yield Fault(
                table,
                path,
                f"{read.table!r} is a database table that is updated in place, and each partition here is a"
                f" {own.label}: a change of a row would rewrite the features of all times with values not known then."
                f" Declare `history=True` in its `TableSource` and join it with `join_as_known`,"
                f' or accept that with `Input({read.table!r}, as_of="now")`',
            )

    def _path(self, start: str, end: str) -> list[str]:
        """Tables from `start`, each reading the next one, to `end`; empty if there is no such path."""
        paths, seen = [[start]], {start}
        while paths:
            path = paths.pop()
            for name in self._reads(path[-1]).values():
                if name == end:
                    return [*path, end]
                if name not in seen:
                    seen.add(name)
                    paths.append([*path, name])
        return []


def _lookback_fault(lookback: object) -> str:
    """What is wrong with a lookback; empty if nothing is."""
    days: float = -1
    if isinstance(lookback, timedelta):
        days = lookback / timedelta(days=1)
    elif isinstance(lookback, Days):
        days = lookback.count
    elif isinstance(lookback, int) and not isinstance(lookback, bool):
        days = lookback
    if 0 <= days <= MAX_LOOKBACK_DAYS:
        return ""
    return (
        f"expected a lookback of 0 to {MAX_LOOKBACK_DAYS:,} whole days, `Days(…)` or a timedelta of at most as long,"
        f" found {lookback!r}"
    )


def _is_written_in_hours(call: ast.Call | None) -> bool:
    """Whether a duration is written as `timedelta(hours=…)` or in smaller units, without days or weeks."""
    units = [word.arg for word in call.keywords] if call else []
    return bool(units) and not (call and call.args) and not {"days", "weeks", None} & set(units)


def _is_parquet(source: Source) -> bool:
    return not isinstance(source.location, ObjectSource) or source.location.suffix.endswith(".parquet")
