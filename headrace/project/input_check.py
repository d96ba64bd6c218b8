"""The tables that a dataset's tables read: unknown ones, those of another dataset, cycles, and the order."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from headrace.dataset import Dataset, FeatureTable, Input, LabelingTask, ObjectSource, Source, TableSource
from headrace.partitions import UTC_DAYS, UTC_ZONE, Days, Partitions, Static, TimePartitions
from headrace.project.faults import Fault, argument, function_name
from headrace.project.source_lines import written_call
from headrace.text import closest
from headrace.transform.kernel import takes_interval

MAX_LOOKBACK_DAYS = 36_525
"""A century: more is a number of another unit."""


@dataclass(frozen=True)
class TableGraph:
    """The tables of a dataset as inputs name them, and what computes each.

    Attributes:
        dataset: The dataset.
        makers: Table → declaration that makes it, in the order in which `run` computes them.
    """

    dataset: Dataset
    makers: Mapping[str, Source | FeatureTable | LabelingTask] = field(init=False)

    def __post_init__(self) -> None:
        """Collect the tables."""
        dataset, makers = self.dataset, dict[str, Source | FeatureTable | LabelingTask]()
        for source in dataset.sources:
            makers |= {f"{state}/{source.name}": source for state in ("raw", "validated", "rejected")}
        makers |= {f"annotations/{labeling.name}": labeling for labeling in dataset.labels}
        makers |= {f"features/{table.name}": table for table in dataset.features}
        makers |= {f"{state}/{it.name}": it for it in dataset.labels for state in ("labels", "rejected")}
        object.__setattr__(self, "makers", makers)

    def faults(self) -> Iterator[Fault]:
        """What is wrong with the inputs of feature tables and labeling tasks."""
        for table in self.dataset.features:
            faults = [*self._input_faults(table, table.inputs, "transform"), *self._order_faults(table)]
            yield from faults or self._partition_faults(table)
        for labeling in self.dataset.labels:
            inputs = dict(labeling.inputs) if isinstance(labeling.inputs, Mapping) else labeling.inputs
            yield from self._input_faults(labeling, inputs, "sample")
            if labeling.gold is not None:
                yield from self._table_faults(labeling, ("gold",), labeling.gold)
            if labeling.item_features is not None:
                yield from self._table_faults(labeling, ("item_features",), Input(labeling.item_features.table))

    def _input_faults(self, declared: FeatureTable | LabelingTask, inputs: object, function: str) -> Iterator[Fault]:
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
        self, declared: FeatureTable | LabelingTask, path: tuple[str, ...], read: Input
    ) -> Iterator[Fault]:
        if fault := _lookback_fault(read.lookback):
            yield Fault(declared, path, fault)
        maker = self.makers.get(read.table)
        if maker is None:
            yield Fault(declared, path, self._unknown(read.table))
        elif isinstance(maker, Source) and read.table.startswith("raw/") and not _is_parquet(maker):
            yield Fault(
                declared,
                path,
                f"{read.table} holds the source's files as they came, which no transform can scan: read"
                f" 'validated/{maker.name}'",
            )

    def _unknown(self, table: object) -> str:
        name, readable = str(table), [known for known in self.makers if not known.startswith("raw/")]
        parts = name.split("/")
        if len(parts) == 3:  # noqa: PLR2004  state, dataset, table
            state, dataset, own = parts
            if dataset != self.dataset.name:
                return (
                    f"{name!r} is a table of another dataset, and a dataset reads its own tables only: declare the"
                    f" source in {self.dataset.name or 'this dataset'}, too"
                )
            return f"there is no table {name!r}: tables are named without the dataset, {f'{state}/{own}'!r}"
        return f"there is no table {name!r}{closest(name, readable)}; its tables: {', '.join(readable)}"

    def _order_faults(self, table: FeatureTable) -> Iterator[Fault]:
        """A table that reads itself, a later one, or labels: it would be computed from what an earlier run left."""
        order = [f"features/{it.name}" for it in self.dataset.features]
        own, inputs = f"features/{table.name}", table.inputs if isinstance(table.inputs, Mapping) else {}
        for keyword, read in inputs.items():
            path, name = ("inputs", str(keyword)), getattr(read, "table", "")
            if name == own:
                yield Fault(
                    table,
                    path,
                    f"it reads itself, {name!r}, and would be computed from what an earlier run made: read its inputs"
                    " with a lookback instead",
                )
            elif name in order and order.index(name) > order.index(own):
                cycle = self._path(name, own)
                if cycle:
                    yield Fault(
                        table, path, f"the tables read each other: {' → '.join((own, *cycle))}: break the cycle"
                    )
                else:
                    yield Fault(
                        table,
                        path,
                        f"it reads {name!r}, which is declared after it, and would be computed from what an earlier run"
                        f" made: move {name.removeprefix('features/')} before {table.name} in `features`",
                    )
            elif name.startswith("labels/") and name in self.makers:
                yield Fault(
                    table,
                    path,
                    f"it reads {name!r}, and labels are made after the features: join them in the training request",
                )

    def _partition_faults(self, table: FeatureTable) -> Iterator[Fault]:
        """Partitions that a feature table cannot have, and lookbacks that do not fit those of an input."""
        declared, driver = argument(table, "partitions"), next(iter(table.inputs.values()))
        driving = self.dataset.partitions_of(driver.table)
        own = driving if declared is None else declared
        if not isinstance(own, Partitions):
            yield Fault(table, ("partitions",), f"expected partitions such as Daily(), found {own!r}")
        elif isinstance(own, Static):
            yield Fault(
                table,
                ("partitions",),
                f"its partitions are the static names {', '.join(own.names)}, and features are looked up by their time:"
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

    def _zone_faults(self, table: FeatureTable, keyword: str, read: Input) -> Iterator[Fault]:
        """Whole days of elapsed time on a table that is cut by local days, which may have 23 or 25 hours."""
        zone, lookback = self.dataset.partitions_of(read.table).timezone, read.lookback
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

    def _history_faults(self, table: FeatureTable, keyword: str, read: Input, own: object) -> Iterator[Fault]:
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
                f" {own.label}: a change of a row would rewrite the features of all times with what nobody knew then."
                f" Declare `TableSource({maker.location.table!r}, …, history=True)` and join it with `join_as_known`,"
                f' or accept that with `Input({read.table!r}, as_of="now")`',
            )

    def _path(self, start: str, end: str) -> list[str]:
        """Feature tables from `start`, each reading the next one, to `end`; empty if there is no such path."""
        reads = {
            f"features/{it.name}": [getattr(read, "table", "") for read in it.inputs.values()]
            for it in self.dataset.features
            if isinstance(it.inputs, Mapping)
        }
        paths, seen = [[start]], {start}
        while paths:
            path = paths.pop()
            for name in reads.get(path[-1], ()):
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
