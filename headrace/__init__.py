"""Headrace carries raw data and labels to versioned releases, features and training tables.

This package is the public API; `docs/api.md` lists it. Names are imported when they are first used, so
`import headrace` loads none of the libraries behind them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from headrace.as_known import as_known, join_as_known
    from headrace.catalog.errors import EmptyTableError, NoSuchTableError, NotParquetError
    from headrace.catalog.open import UnknownDatasetError, load_dataset, open_feature_store
    from headrace.catalog.open import open_dataset as open  # noqa: A004
    from headrace.catalog.tables import DatasetTable, DatasetTables
    from headrace.dataset import (
        EVENT_TIME,
        KNOWN_TIME,
        UNPARTITIONED,
        UTC_MICROSECONDS,
        Dataset,
        DerivedTable,
        FeatureTable,
        Guards,
        Input,
        ItemFeatures,
        LabelingFunction,
        LabelingTask,
        ObjectSource,
        Retention,
        Source,
        TableSource,
        Thresholds,
    )
    from headrace.errors import HeadraceError, TransientError
    from headrace.extras import MissingExtraError
    from headrace.label.sampling import (
        DriftSampling,
        GoldSampling,
        StratifiedSampling,
        UncertaintySampling,
        UniformSampling,
        sample_rows,
    )
    from headrace.label.shown_media import show_media
    from headrace.partitions import Daily, Days, Hourly, Interval, Monthly, Static, Unpartitioned, Yearly
    from headrace.retrieve.errors import FeatureStoreError, InvalidRequestError, UnknownReleaseError
    from headrace.retrieve.loaders import LoaderError, ParquetBatches, to_dask, to_hugging_face, to_torch
    from headrace.retrieve.result import RetrievalResult
    from headrace.retrieve.splits import InvalidSplitError, KeySplit, SplitLeakage, TimeSplit, measure_leakage
    from headrace.storage.pruned_releases import PrunedReleaseError
    from headrace.validate.column_history import EarlierType, evolving
    from headrace.validate.columns import TimeBounds, boolean, one_of, utc_time
    from headrace.validate.csv_dialect import CsvDialect
    from headrace.validate.csv_reader import read_csv
    from headrace.validate.excel_reader import ExcelDialect, read_excel
    from headrace.validate.json_reader import JsonDialect, read_json
    from headrace.validate.media import read_media
    from headrace.validate.parquet_reader import read_parquet
    from headrace.validate.read_request import ReadRequest
    from headrace.validate.unreadable import UnreadableError

__all__ = [
    "EVENT_TIME",
    "KNOWN_TIME",
    "UNPARTITIONED",
    "UTC_MICROSECONDS",
    "CsvDialect",
    "Daily",
    "Dataset",
    "DatasetTable",
    "DatasetTables",
    "Days",
    "DerivedTable",
    "DriftSampling",
    "EarlierType",
    "EmptyTableError",
    "ExcelDialect",
    "FeatureStoreError",
    "FeatureTable",
    "GoldSampling",
    "Guards",
    "HeadraceError",
    "Hourly",
    "Input",
    "Interval",
    "InvalidRequestError",
    "InvalidSplitError",
    "ItemFeatures",
    "JsonDialect",
    "KeySplit",
    "LabelingFunction",
    "LabelingTask",
    "LoaderError",
    "MissingExtraError",
    "Monthly",
    "NoSuchTableError",
    "NotParquetError",
    "ObjectSource",
    "ParquetBatches",
    "PrunedReleaseError",
    "ReadRequest",
    "Retention",
    "RetrievalResult",
    "Source",
    "SplitLeakage",
    "Static",
    "StratifiedSampling",
    "TableSource",
    "Thresholds",
    "TimeBounds",
    "TimeSplit",
    "TransientError",
    "UncertaintySampling",
    "UniformSampling",
    "UnknownDatasetError",
    "UnknownReleaseError",
    "Unpartitioned",
    "UnreadableError",
    "Yearly",
    "__version__",
    "as_known",
    "boolean",
    "evolving",
    "join_as_known",
    "load_dataset",
    "measure_leakage",
    "one_of",
    "open",
    "open_feature_store",
    "read_csv",
    "read_excel",
    "read_json",
    "read_media",
    "read_parquet",
    "sample_rows",
    "show_media",
    "to_dask",
    "to_hugging_face",
    "to_torch",
    "utc_time",
]

_MODULES = {
    "headrace.as_known": ("as_known", "join_as_known"),
    "headrace.catalog.errors": ("EmptyTableError", "NoSuchTableError", "NotParquetError"),
    "headrace.catalog.open": ("UnknownDatasetError", "load_dataset", "open_feature_store"),
    "headrace.catalog.tables": ("DatasetTable", "DatasetTables"),
    "headrace.dataset": (
        "EVENT_TIME",
        "KNOWN_TIME",
        "UNPARTITIONED",
        "UTC_MICROSECONDS",
        "Dataset",
        "DerivedTable",
        "FeatureTable",
        "Guards",
        "Input",
        "ItemFeatures",
        "LabelingFunction",
        "LabelingTask",
        "ObjectSource",
        "Retention",
        "Source",
        "TableSource",
        "Thresholds",
    ),
    "headrace.errors": ("HeadraceError", "TransientError"),
    "headrace.extras": ("MissingExtraError",),
    "headrace.label.sampling": (
        "DriftSampling",
        "GoldSampling",
        "StratifiedSampling",
        "UncertaintySampling",
        "UniformSampling",
        "sample_rows",
        "show_media",
    ),
    "headrace.partitions": (
        "Daily",
        "Days",
        "Hourly",
        "Interval",
        "Monthly",
        "Static",
        "Unpartitioned",
        "Yearly",
    ),
    "headrace.retrieve.errors": ("FeatureStoreError", "InvalidRequestError", "UnknownReleaseError"),
    "headrace.retrieve.loaders": ("LoaderError", "ParquetBatches", "to_dask", "to_hugging_face", "to_torch"),
    "headrace.retrieve.result": ("RetrievalResult",),
    "headrace.retrieve.splits": ("InvalidSplitError", "KeySplit", "SplitLeakage", "TimeSplit", "measure_leakage"),
    "headrace.storage.pruned_releases": ("PrunedReleaseError",),
    "headrace.validate.column_history": ("EarlierType", "evolving"),
    "headrace.validate.columns": ("TimeBounds", "boolean", "one_of", "utc_time"),
    "headrace.validate.csv_dialect": ("CsvDialect",),
    "headrace.validate.csv_reader": ("read_csv",),
    "headrace.validate.excel_reader": ("ExcelDialect", "read_excel"),
    "headrace.validate.json_reader": ("JsonDialect", "read_json"),
    "headrace.label.shown_media": ("show_media",),
    "headrace.validate.media": ("read_media",),
    "headrace.validate.parquet_reader": ("read_parquet",),
    "headrace.validate.read_request": ("ReadRequest",),
    "headrace.validate.unreadable": ("UnreadableError",),
}
"""Module → the public names that it defines."""

_SOURCES = {name: (module, name) for module, names in _MODULES.items() for name in names} | {
    "open": ("headrace.catalog.open", "open_dataset")
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  whatever is exported
    """Import a public name when it is first used (PEP 562)."""
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _SOURCES[name]
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    """The public names, and what every module has."""
    return sorted({*globals(), *__all__})
