"""What a team declares about a dataset: its sources, contracts, features and labeling tasks, as frozen values.

A declaration has no behavior beyond plain functions on Polars frames; every command reads it.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache, partial, update_wrapper
from textwrap import shorten
from types import FrameType
from typing import Any, ClassVar, Literal

import polars as pl

from headrace.dataframely_import import dataframely as dy
from headrace.object_location import ObjectLocation, parse_location
from headrace.partitions import Daily, Lookback, Partitions, Unpartitioned

UNPARTITIONED = Unpartitioned.NAME
"""Name of the partition of a table that has only one."""

UTC_MICROSECONDS = pl.Datetime("us", "UTC")
"""Type of every time in a table; only raw tables have others."""

FIRST_US, END_US = -62_135_596_800_000_000, 253_402_300_800_000_000
"""0001-01-01 and 10000-01-01 in microseconds since 1970: Python's `datetime` holds the times between them."""

MAX_TTL = timedelta(days=365 * 1000)
"""Longest TTL: longer ones overflow where a time is compared with them, and in Feast. 0 means no limit."""

EVENT_TIME = "event_time"
"""Column of a feature table or a labels table: when something was so."""

KNOWN_TIME = "known_time"
"""Column of a feature table or a labels table: when one could know it."""

SEEN_TIME = "seen_time"
"""Column of a history: when the snapshot was taken that first showed the change."""

OPERATION = "operation"
"""Column of a history: `insert`, `update` or `delete`."""

HISTORY_COLUMNS = (KNOWN_TIME, SEEN_TIME, OPERATION)
"""Columns that a history adds to those of its table."""

SOURCE_STATES = ("raw", "validated", "rejected")
"""States of the tables that are named after a source."""

COMPUTED_STATES = ("derived", "features")
"""States of the tables that a kernel computes."""

DATABASE_URL = "HEADRACE_DATABASE_URL"
"""Environment variable with the address of the database that table sources are read from, unless they name another."""


QUERY_LABEL_LENGTH = 60
"""Characters of a query that a message shows."""


def _declaring_modules() -> tuple[str, ...]:
    """The modules whose code declares something now: from the constructor's caller up to the top level of a module.

    If a helper function builds declarations, the module that calls it counts, too: its arguments decide results.
    """
    modules: dict[str, None] = {}
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  documented; `inspect` reads the source lines of every frame
    while frame is not None and not frame.f_code.co_filename.startswith("<") and SITE not in frame.f_code.co_filename:
        modules[frame.f_globals.get("__name__", "")] = None
        if frame.f_code.co_name == "<module>":
            break
        frame = frame.f_back
    return tuple(modules)


def _declaring_place() -> tuple[str, int]:
    """File and line of the constructor's call."""
    frame = sys._getframe(2)  # noqa: SLF001  as above
    return frame.f_code.co_filename, frame.f_lineno


SITE = "site-packages"


def declared_in() -> Any:  # noqa: ANN401  as `dataclasses.field`
    """Field of a declaration: the modules that declare it."""
    return field(default_factory=_declaring_modules, repr=False, compare=False)


def declared_at() -> Any:  # noqa: ANN401  as `dataclasses.field`
    """Field of a declaration: file and line of it, for messages."""
    return field(default_factory=_declaring_place, repr=False, compare=False)


def _with_params(function: Callable[..., Any], params: Mapping[str, Any]) -> Callable[..., Any]:
    return update_wrapper(partial(function, params=params), function)


@lru_cache
def _contract(function: Callable[..., type[dy.Schema]], params: str) -> type[dy.Schema]:
    """One class for equal parameters, so that it is compiled once for all partitions."""
    return function(params=json.loads(params))


@dataclass(frozen=True, kw_only=True)
class Guards:
    """How much may disappear in one step, and how far in the future a row may lie, until a person has to accept it.

    `ingest` compares a raw table with what it held before, `release` every table with the last release, `publish` the
    keys online with those of the release. What is beyond a bound refuses the step; `headrace accept` lets it pass.

    Attributes:
        max_vanished_share: Share of the partitions of a table, of its rows, or of the keys online that may disappear in
            one step, whatever comes in their place. One or two always may, unless nothing is left.
            1 switches the guard off.
        max_future: How far a row's event time or known time, or the start of a raw partition, may lie beyond the moment
            of the step: of ingest and release the clock, of publish the time of the release. None switches it off.
    """

    max_vanished_share: float = 0.5
    max_future: timedelta | None = timedelta(days=1)

    def __post_init__(self) -> None:
        """Refuse bounds that cannot be meant."""
        if not 0 <= self.max_vanished_share <= 1:
            raise ValueError(f"Guards: expected max_vanished_share from 0 to 1, found {self.max_vanished_share}")
        if self.max_future is not None and self.max_future < timedelta(0):
            raise ValueError(f"Guards: expected max_future of 0 or more, or None, found {self.max_future}")


@dataclass(frozen=True)
class ObjectSource:
    """A source that arrives as objects of a bucket, a container or a folder, one or several for a partition.

    Attributes:
        location: Address of the objects, a folder of them or one: `s3://bucket/orders/`, `gs://bucket/orders/`,
            `az://container/orders/`, `file:data/orders/` relative to the project, `file:///srv/orders/`, or `orders/`
            in the bucket of HEADRACE_BUCKET. It holds no credentials.
        connection: Name of the environment variables with the endpoint and credentials of its server: `partner` stands
            for HEADRACE_CONNECTION_PARTNER_ENDPOINT and others. By default those of the project's own bucket.
        partition: Regular expression over what follows the location in a key, with a group `partition`; without that
            group, all rows are the partition `all`. Several keys may match one partition: its rows are those of all
            these objects, in the order of their keys. A key that does not match is reported, never read.
        suffix: File name ending that the raw partition keeps, for example `.csv.gz`.
        prefix: In place of `location`, what every key begins with; then `partition` is matched with the whole key.
        bucket: With `prefix`, the name of the bucket, or `file:` and the path of a folder that stands in for one.
        marker: File name of an object that says that its folder is complete, for example `_SUCCESS`; empty for none.
            With it, a partition is read once every folder that holds objects of it has a marker. Until then it waits:
            what its raw table has of it stays.
        media: Whether the objects are images, sound or other files of which each is a row. Each object then has an
            entry of its own in the raw table, named after its key, also where it is alone in its partition.
    """

    prefix: str = ""
    partition: str = ".*"
    suffix: str = ""
    bucket: str = ""
    marker: str = ""
    location: str = field(default="", kw_only=True)
    connection: str = field(default="", kw_only=True)
    media: bool = field(default=False, kw_only=True)

    @property
    def parsed_location(self) -> ObjectLocation:
        """The bucket and the keys that it names.

        Raises:
            InvalidLocationError: `location` is no address.
        """
        if self.location:
            return parse_location(self.location)
        return ObjectLocation(self.bucket, self.prefix, is_base=False)


@dataclass(frozen=True)
class TableSource:
    """A source that is a table or a query of a database; all of one database are read in one snapshot.

    Attributes:
        table: Name of a table or view, with its schema where it has one.
        key: Columns that identify a row.
        watermark: Column whose value changes when a row does, of any type; a partition where it has changed is read
            again, and one where it is NULL in a row every time. None if there is no such column: then the database
            hashes every row of every partition, and a partition with other rows is read again.
        partition_by: Date or time column that decides the partition, by default its UTC day; None puts all rows into
            `all`. Other partitions than days are declared with `Source(partitions=…)`.
        database: Name of the environment variable with the SQLAlchemy URL.
        query: In place of `table`: one SELECT whose columns have names, each another. `key`, `watermark` and
            `partition_by` are columns of its result.
        history: Whether every change of a row is recorded, instead of the rows as they are: a slowly changing dimension
            of type 2. Its partitions, by default UTC days, are cut by `known_time`, so there is no `partition_by`.
            See `docs/history.md`.
        initial_known_time: Column of times that say when the rows of the first snapshot were known. By default they
            are known since that snapshot.
    """

    table: str = ""
    key: tuple[str, ...] = ()
    watermark: str | None = None
    partition_by: str | None = None
    database: str = DATABASE_URL
    query: str = field(default="", kw_only=True)
    history: bool = False
    initial_known_time: str = ""

    @property
    def label(self) -> str:
        """What is read, for messages: the name of the table, or the beginning of the query."""
        return self.table or f"the {self.address}"

    @property
    def address(self) -> str:
        """The same with the kind of it: `table orders`."""
        if self.table:
            return f"table {self.table}"
        return f"query `{shorten(self.query, QUERY_LABEL_LENGTH, placeholder=' …')}`"


@dataclass(frozen=True)
class Source:
    """One raw table and the contract of its rows.

    Attributes:
        name: The table's name in `raw/` and `validated/`.
        location: Where it comes from.
        partitions: How it is cut: `Hourly()`, `Daily(timezone=…)`, `Monthly()`, `Yearly()`, `Static(…)` or
            `Unpartitioned()`. By default UTC days, or `Unpartitioned()` where the pattern has no group `partition` or
            the table no `partition_by` and no history. If it is given, a key that names none of these partitions is
            reported and not read, and a row outside of its partition's interval fails `<column>|partition`: the leading
            key column, or else `event_time`, where it holds times.
        read: Raw partition file → frame, columns as they are in the file. Raises `UnreadableError` for bytes that it
            cannot read. With a parameter `request` it also receives what is wanted of the file: a `ReadRequest`.
        contract: The type of each raw column and the checks of each row, as a `dataframely.Schema`: see
            `docs/contracts.md`; `headrace.validate.columns` has more columns and checks. With `params`, it may be a
            function `contract(params=...)` that returns one.
        transform: Accepted rows, typed → the same rows, in the same order, as the validated table has them; times in
            UTC microseconds. With `params`, it also takes `params=...`.
        key: Columns of the validated rows that are unique over the *whole* table; the one that orders it in time
            comes first.
        max_rejected_share: Share of a partition's rows that may be rejected before the partition is refused.
        extra_columns: What happens to a partition with columns that the contract does not name: it is refused
            ("refuse"), or goes on without them ("drop").
        pii_columns: Validated columns with personal data. They are not sent to Label Studio unless `allowed_pii` of
            the labeling task names them.
        batch_size: Most partitions that one query validates. Above 1 this promises that `transform` and the checks look
            at each row by itself, so that a row's result does not depend on the other partitions.
        files: Data files that `read`, the checks or `transform` open, as paths below the project's root.
        params: Parameters that the checks or `transform` receive: names in `params.yaml` below `<dataset>`.
        guards: Bounds of its raw and its validated table; by default those of the dataset.
        modules: Modules that declare it; found automatically.
        place: File and line of the declaration; found automatically.
    """

    name: str
    location: ObjectSource | TableSource
    read: Callable[..., pl.DataFrame]
    contract: type[dy.Schema] | Callable[..., type[dy.Schema]]
    transform: Callable[..., pl.DataFrame]
    key: tuple[str, ...]
    max_rejected_share: float = 0.01
    extra_columns: Literal["refuse", "drop"] = "refuse"
    pii_columns: tuple[str, ...] = ()
    batch_size: int = 1
    files: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    guards: Guards | None = None
    partitions: Partitions | None = None
    modules: tuple[str, ...] = declared_in()
    place: tuple[str, int] = declared_at()

    @property
    def schema(self) -> type[dy.Schema]:
        """The contract; one that is a function of parameters has to have received them (`with_params`)."""
        if not isinstance(self.contract, type):
            raise TypeError(f"the contract of {self.name} is a function of its parameters")
        return self.contract

    def with_params(self, params: Mapping[str, Any]) -> "Source":
        """The same source with these values of its parameters."""
        if not self.params:
            return self
        contract = self.contract if isinstance(self.contract, type) else _contract(self.contract, json.dumps(params))
        return replace(self, contract=contract, transform=_with_params(self.transform, params), params=())

    @property
    def partitioning(self) -> Partitions:
        """Its partitions: as declared, else the default."""
        if self.partitions is not None:
            return self.partitions
        if isinstance(self.location, ObjectSource):
            return Daily() if "(?P<partition>" in self.location.partition else Unpartitioned()
        is_cut = self.is_history or self.location.partition_by is not None
        return Daily() if is_cut else Unpartitioned()

    @property
    def is_history(self) -> bool:
        """Whether its tables record every change of a row."""
        return isinstance(self.location, TableSource) and self.location.history


@dataclass(frozen=True)
class Input:
    """A table that a feature table, a derived table or a labeling task reads.

    Attributes:
        table: State and name below the dataset, for example `validated/flights`. A table of another dataset is named
            with it, `flights:features/carrier_delays`, and read at a release.
        lookback: How far before the partition it is read, too: `timedelta(hours=168)` is elapsed time, `Days(7)` are
            calendar days in the time zone of the table's partitions, and 7 is short for `Days(7)`. Read are all
            partitions whose interval overlaps the partition's own, extended by it. A table that is not cut by time is
            read completely; of a history, all that was known by the end of the partition.
        as_of: "now" says that a database table that is updated in place, without a history, is read as it is now,
            whatever the time of the partition: each change of it rewrites the features of all times.
        release: Of a table of another dataset: a release, `flights/12`, or `latest`. `headrace ingest` resolves it and
            keeps the entries of the table, whose bytes are not copied, as a raw table of this dataset.
        partitions: How a table of another dataset is cut; by default UTC days, or the whole table.
    """

    table: str
    lookback: Lookback = 0
    as_of: Literal["", "now"] = ""
    release: str = ""
    partitions: Partitions | None = None

    @property
    def other_dataset(self) -> str:
        """The other dataset that has the table; empty for the own one."""
        return self.table.partition(":")[0] if ":" in self.table else ""

    @property
    def named_table(self) -> str:
        """State and name of the table in its dataset."""
        return self.table.partition(":")[2] or self.table

    @property
    def local_table(self) -> str:
        """State and name of the table that is read below the own dataset: of another one, where ingest keeps it."""
        return f"raw/{pointer_name(self.table)}" if self.other_dataset else self.table


def pointer_name(table: str) -> str:
    """Name of the raw table of a table of another dataset: `flights__features__delays` of `flights:features/delays`."""
    return table.replace(":", "__").replace("/", "__")


@dataclass(frozen=True)
class ReleaseSource:
    """A table of another dataset, read at a release, as a source of this one. It is not declared: inputs name it.

    Attributes:
        read: The input that names it first.
        place: File and line of the declaration that has the input.
    """

    read: Input
    place: tuple[str, int]

    @property
    def name(self) -> str:
        """Name of its raw table."""
        return pointer_name(self.read.table)

    @property
    def partitioning(self) -> Partitions:
        """How it is cut."""
        return self.read.partitions or Daily()


RawSource = Source | ReleaseSource
"""What a raw table is read from."""


@dataclass(frozen=True)
class FeatureTable:
    """A table of features: one row per key and event time, known from `known_time` on.

    Attributes:
        name: Name of the table in `features/`, and of its Feast view.
        keys: Join keys of the entity, for example `("carrier",)`.
        inputs: Keyword of `transform` → table. The first one decides which partitions there are: its own, or, where
            `partitions` is given, those that overlap one of its own.
        transform: `transform(day=..., <keyword>=LazyFrame, ...)` → LazyFrame with the keys, `event_time`, `known_time`
            and the features: the kernel. A pure function: no clock, no file, no environment.
            In place of `day`, the UTC day as `2013-01-09`, it may take `interval`, an `Interval` with `start` and
            `end`; it has to where the partitions are not UTC days.
        features: Feature → Polars type. Other columns of the kernel's frame are dropped.
        ttl: How old a value may be and still be served or joined, up to `MAX_TTL`; 0 means no limit.
        key_types: Key → Polars type, for keys that are not strings.
        description: What readers of Feast's registry and of Airflow see.
        batch_size: Most consecutive partitions that one call of the kernel computes. Above 1 a kernel that takes `day`
            also takes `end_day`, the last of them; an `interval` spans all of them. The kernel promises that the rows
            of a partition are the same whatever partitions are computed with it.
        files: Data files that the kernel opens, as paths below the project's root.
        params: Parameters that the kernel also takes, as `params={"late_min": 15}`: names in `params.yaml` below
            `<dataset>`.
        partitions: How it is cut; by default as its first input.
        modules: Modules that declare it; found automatically.
        place: File and line of the declaration; found automatically.

    Raises:
        ValueError: The TTL is negative or longer than `MAX_TTL`.
    """

    name: str
    keys: tuple[str, ...]
    inputs: Mapping[str, Input]
    transform: Callable[..., pl.LazyFrame]
    features: Mapping[str, pl.DataType]
    ttl: timedelta
    key_types: Mapping[str, pl.DataType] = field(default_factory=dict)
    description: str = ""
    batch_size: int = 1
    files: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    partitions: Partitions | None = None
    modules: tuple[str, ...] = declared_in()
    place: tuple[str, int] = declared_at()

    state: ClassVar[str] = "features"

    @property
    def row_schema(self) -> dict[str, pl.DataType]:
        """Column → type of its rows, in their order."""
        keys = {name: self.key_types.get(name, pl.String()) for name in self.keys}
        return {**keys, EVENT_TIME: UTC_MICROSECONDS, KNOWN_TIME: UTC_MICROSECONDS, **self.features}

    @property
    def row_key(self) -> tuple[str, ...]:
        """Columns that identify a row."""
        return (*self.keys, EVENT_TIME)

    @property
    def sort_key(self) -> tuple[str, ...]:
        """Columns that rows are sorted by."""
        return (*self.keys, EVENT_TIME, KNOWN_TIME)

    def with_params(self, params: Mapping[str, Any]) -> "FeatureTable":
        """The same feature table with these values of its parameters."""
        if not self.params:
            return self
        return replace(self, transform=_with_params(self.transform, params), params=())

    def __post_init__(self) -> None:
        """Refuse a TTL that times cannot be compared with."""
        if not isinstance(self.ttl, timedelta) or not timedelta(0) <= self.ttl <= MAX_TTL:
            raise ValueError(
                f"the feature table {self.name}: expected a ttl from 0 (no limit) to {MAX_TTL}, found {self.ttl}"
            )


@dataclass(frozen=True)
class DerivedTable:
    """A table that is computed from others, and that is not a feature: other tables and people read it.

    Attributes:
        name: Name of the table in `derived/`.
        key: Columns that identify a row of a partition; rows are sorted by them.
        inputs: As of a `FeatureTable`.
        transform: The kernel, as of a `FeatureTable`. It gives the declared columns.
        columns: Column → Polars type, the key included. If `event_time` is one of them, it is in the partition's
            interval; if `known_time` is, it is not before the known times of the features, labels and derived rows that
            a row is computed from. Both are UTC in microseconds. Other columns of the kernel's frame are dropped.
        description: What it holds, for readers.
        batch_size: As of a `FeatureTable`; above 1, it needs `event_time`, which says to which partition a row belongs.
        files: Data files that the kernel opens, as paths below the project's root.
        params: As of a `FeatureTable`.
        partitions: How it is cut; by default as its first input.
        modules: Modules that declare it; found automatically.
        place: File and line of the declaration; found automatically.
    """

    name: str
    key: tuple[str, ...]
    inputs: Mapping[str, Input]
    transform: Callable[..., pl.LazyFrame]
    columns: Mapping[str, pl.DataType]
    description: str = ""
    batch_size: int = 1
    files: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    partitions: Partitions | None = None
    modules: tuple[str, ...] = declared_in()
    place: tuple[str, int] = declared_at()

    state: ClassVar[str] = "derived"

    @property
    def row_schema(self) -> dict[str, pl.DataType]:
        """Column → type of its rows, in their order."""
        return dict(self.columns)

    @property
    def row_key(self) -> tuple[str, ...]:
        """Columns that identify a row of a partition."""
        return self.key

    @property
    def sort_key(self) -> tuple[str, ...]:
        """Columns that rows are sorted by."""
        return self.key

    def with_params(self, params: Mapping[str, Any]) -> "DerivedTable":
        """The same table with these values of its parameters."""
        if not self.params:
            return self
        return replace(self, transform=_with_params(self.transform, params), params=())


KernelTable = FeatureTable | DerivedTable
"""A table that a kernel computes."""

LabelingFunction = Callable[[Mapping[str, Any]], str | None]
"""A sampled row → the choice it votes for, or None to abstain."""


@dataclass(frozen=True)
class Thresholds:
    """What labels must reach to be released; None sets no threshold.

    Attributes:
        agreement: Krippendorff's alpha of the answers: 1 is perfect, 0 is what chance gives.
        gold: Share of gold items whose label is correct.
    """

    agreement: float | None = None
    gold: float | None = None


@dataclass(frozen=True)
class ItemFeatures:
    """What a model of the items learns from, to weigh annotators against it and to find label issues.

    Attributes:
        table: State and name below the dataset of a table with the labeling task's keys, one row per item.
        featurize: A row of it → numbers, equally many for every row; a pure function.
    """

    table: str
    featurize: Callable[[Mapping[str, Any]], Sequence[float]]


@dataclass(frozen=True)
class LabelingTask:
    """A question that people answer about rows of the dataset in Label Studio.

    Attributes:
        name: The labels table's name in `labels/`.
        title: Project title, 3 to 50 characters.
        config: Label configuration (XML).
        control: Name of the control in it whose choice is the label.
        choices: The labels that it offers.
        inputs: Keyword → table that the sample is drawn from.
        sample: `sample(params=..., <keyword>=LazyFrame, ...)` → frame with `sample_id`, `event_time`,
            `selection_reason`, the keys and the columns that `task` shows; deterministic.
        keys: Columns that join a label to its row.
        key_types: Key → Polars type, for keys that are not strings.
        task: Sampled row → the task's data, as the configuration shows it.
        params: Parameters of the sample, for those that `params.yaml` does not have below `<dataset>.<name>`.
        labeling_functions: Functions that vote for an answer; people see what they suggest before they answer.
        no_suggestion_share: Share of the items shown without a suggestion. They measure the functions, and how far
            people follow suggestions.
        annotators_per_item: How many people annotate each item.
        max_annotators_per_item: Where they do not agree, more are asked, one at a time, up to this many.
        consensus: How answers become a label: by majority vote, or by weighing the annotators against each other
            (`dawid_skene`) or against a model of the items too (`crowdlab`, which needs `item_features`). Weights
            depend on all answers: the labels are then one partition, every new answer recomputes all of them, and they
            are known no earlier than the newest answer.
        item_features: What that model learns from; with it, the report lists labels that the model doubts.
        gold: A table with the keys and the true answer in the column `answer`, for some of the items. It only measures.
        thresholds: What the labels must reach to be released.
        unreviewed: What becomes of answers that no reviewer has accepted (`headrace label accept`): `hold` makes no
            label of them, `accept` lets them count as soon as they are collected. In Label Studio's free edition each
            labeler can change everybody's answers.
        allowed_pii: Columns with personal data that people need to see to answer.
        files: Data files that its functions open, as paths below the project's root.
        modules: Modules that declare it; found automatically.
        place: File and line of the declaration; found automatically.
    """

    name: str
    title: str
    config: str
    control: str
    choices: tuple[str, ...]
    inputs: Mapping[str, Input]
    sample: Callable[..., pl.DataFrame]
    keys: tuple[str, ...]
    task: Callable[[Mapping[str, Any]], dict[str, Any]]
    key_types: Mapping[str, pl.DataType] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    labeling_functions: tuple[LabelingFunction, ...] = ()
    no_suggestion_share: float = 0.2
    annotators_per_item: int = 1
    max_annotators_per_item: int = 1
    consensus: Literal["majority", "dawid_skene", "crowdlab"] = "majority"
    item_features: ItemFeatures | None = None
    gold: Input | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    unreviewed: Literal["hold", "accept"] = "hold"
    allowed_pii: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = declared_in()
    place: tuple[str, int] = declared_at()


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Which releases of a dataset are kept; `headrace prune` removes the others.

    The rules are those of restic and borg, in UTC: of each of the last `keep_daily` days that have a release, the last
    one of the day is kept, and so on. A release that any rule keeps is kept. While a rule has fewer releases than it
    could keep, it also keeps the oldest one.

    Attributes:
        keep_last: Number of the latest releases.
        keep_daily: Number of days.
        keep_weekly: Number of weeks (ISO 8601).
        keep_monthly: Number of months.
        keep_yearly: Number of years.
        pinned: Release → why it is kept, whatever the rules say: `{"flights/3": "figure 2 of the paper"}`.
    """

    keep_last: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    pinned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Everything declared about one dataset.

    Attributes:
        description: What readers of Feast's registry and of Airflow see.
        owner: The team or person responsible for it.
        sources: Where its raw data comes from.
        features: Its feature tables.
        derived: Tables that are computed from others and are not features.
        labels: The questions that people answer about its rows.
        service: Name of the Feast FeatureService that serves all feature tables.
        schedule: When Airflow refreshes it: a cron expression in UTC; empty for never by itself. Airflow reads it, the
            owner, the description and the tags from the text of the declaration, so they are literals.
        tags: Anything else, as tags of the Feast objects and of the DAGs.
        retention: Which releases are kept; without it, all of them.
        guards: How much may disappear in one step, and how far in the future a row may lie.
        name: The name of its folder below `pipelines/`, filled in when it is loaded.
        place: File and line of the declaration; found automatically.
    """

    description: str
    owner: str
    sources: tuple[Source, ...]
    features: tuple[FeatureTable, ...] = ()
    derived: tuple[DerivedTable, ...] = ()
    labels: tuple[LabelingTask, ...] = ()
    service: str = ""
    schedule: str = "0 6 * * *"
    tags: Mapping[str, str] = field(default_factory=dict)
    retention: Retention | None = None
    guards: Guards = field(default_factory=Guards)
    name: str = ""
    place: tuple[str, int] = declared_at()

    def guards_of(self, table: str) -> Guards:
        """The bounds of a table `<state>/<dataset>/<name>`: those of its source, else those of the dataset."""
        state, _, name = table.split("/")
        own = (source.guards for source in self.sources if source.name == name and state in SOURCE_STATES)
        return next(filter(None, own), self.guards)

    @property
    def kernel_tables(self) -> tuple[KernelTable, ...]:
        """The tables that kernels compute."""
        return (*self.derived, *self.features)

    def is_history(self, table: str) -> bool:
        """Whether a table `<state>/<name>` records every change of a row."""
        state, _, name = table.partition("/")
        return state in SOURCE_STATES and any(one.name == name and one.is_history for one in self.sources)

    @property
    def release_sources(self) -> tuple[ReleaseSource, ...]:
        """The tables of other datasets that its tables and labeling tasks read, each once."""
        found: dict[str, ReleaseSource] = {}
        for declared in (*self.kernel_tables, *self.labels):
            reads = declared.inputs.values() if isinstance(declared.inputs, Mapping) else ()
            gold = declared.gold if isinstance(declared, LabelingTask) else None
            for read in (*reads, gold):
                if isinstance(read, Input) and read.other_dataset:
                    found.setdefault(read.table, ReleaseSource(read, declared.place))
        return tuple(found.values())

    @property
    def raw_sources(self) -> tuple[RawSource, ...]:
        """What its raw tables are read from."""
        return (*self.sources, *self.release_sources)

    def partitions_of(self, table: str) -> Partitions:
        """The partitions of a table `<state>/<name>`.

        Annotations have UTC days, and so have labels, unless they depend on all answers: then they are one partition.
        """
        passed = set[str]()
        while table not in passed:
            passed.add(table)
            state, _, name = table.partition("/")
            if state in SOURCE_STATES:
                sources: tuple[RawSource, ...] = self.raw_sources if state == "raw" else self.sources
                return next((source.partitioning for source in sources if source.name == name), Daily())
            if state == "labels":
                task = next((one for one in self.labels if one.name == name), None)
                return Daily() if task is None or task.consensus == "majority" else Unpartitioned()
            found = next((one for one in self.kernel_tables if (one.state, one.name) == (state, name)), None)
            if found is None or not found.inputs:
                break
            if found.partitions is not None:
                return found.partitions
            table = next(iter(found.inputs.values())).local_table
        return Daily()


def raw_table(dataset: str, source: str) -> str:
    """Name of the raw table of a source."""
    return f"raw/{dataset}/{source}"
