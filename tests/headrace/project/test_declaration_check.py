"""A declaration that can only fail is refused when it is loaded, with file and line, before any data is read."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import minimal_dataset
import polars as pl
import pytest

from headrace.dataset import (
    UTC_MICROSECONDS,
    Dataset,
    DerivedTable,
    FeatureTable,
    Input,
    ItemFeatures,
    LabelingTask,
    ObjectSource,
    TableSource,
)
from headrace.feast.types import KINDS
from headrace.project import feature_check, graph
from headrace.project.declaration_check import check_declaration
from headrace.project.loading import dataset_names, import_dataset, project_root
from headrace.project.params import with_param_values
from headrace.project.schema_check import schema_faults
from headrace.validate.column_history import evolving
from headrace.validate.columns import TimeBounds, utc_time

ROOT = Path(minimal_dataset.__file__).resolve().parents[2]
CONFIG = """<View>
  <Text name="shown" value="$text"/>
  <Choices name="kind" toName="shown" choice="single">
    <Choice value="good"/><Choice value="bad" alias="poor"/>
  </Choices>
</View>"""


def sample(*, params: Mapping[str, Any], sales: pl.LazyFrame) -> pl.DataFrame:
    return sales.head(params["sample"]).collect()


def task(row: Mapping[str, Any]) -> dict[str, Any]:
    return dict(row)


LABELING = LabelingTask(
    name="kind",
    title="Which kind?",
    config=CONFIG,
    control="kind",
    choices=("good", "poor"),
    inputs={"sales": Input("validated/sales")},
    sample=sample,
    keys=("shop",),
    task=task,
)


def dataset(**fields: Any) -> Dataset:  # noqa: ANN401  any argument
    return replace(minimal_dataset.DATASET, **fields)


def with_source(**fields: Any) -> Dataset:  # noqa: ANN401  any argument
    return dataset(sources=(replace(minimal_dataset.SALES, **fields),))


def with_objects(**fields: Any) -> Dataset:  # noqa: ANN401  any argument
    return with_source(location=replace(minimal_dataset.SALES.location, **fields))


def with_location(location: str, **fields: Any) -> Dataset:  # noqa: ANN401  any argument
    declared = {"partition": r"(?P<partition>.+)\.csv", "suffix": ".csv", **fields}
    return with_source(location=ObjectSource(location=location, **declared))


def with_table(**fields: Any) -> Dataset:  # noqa: ANN401  any argument
    location = {"table": "sales", "key": ("id",), "watermark": "updated_at", **fields}
    return with_source(location=TableSource(**location))


def with_features(**fields: Any) -> Dataset:  # noqa: ANN401  any argument
    return dataset(features=(replace(minimal_dataset.FEATURES, **fields),))


def with_labels(**fields: Any) -> Dataset:  # noqa: ANN401  any argument
    return dataset(labels=(replace(LABELING, **fields),))


def problems(declared: Dataset, level: str = "error") -> list[str]:
    return [found.problem for found in check_declaration(declared, ROOT) if found.level == level]


def test_a_sound_declaration_has_no_findings() -> None:
    assert check_declaration(dataset(labels=(LABELING,)), ROOT) == []


@pytest.mark.parametrize("name", dataset_names())
def test_the_datasets_of_this_project_have_no_findings(name: str) -> None:
    declared = import_dataset(name)

    assert check_declaration(declared, project_root()) == []
    assert list(schema_faults(with_param_values(declared, project_root()))) == []


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (dataset(sources=minimal_dataset.SALES), "expected a tuple, found one Source: write `sources=(…,)`"),
        (
            dataset(features=(minimal_dataset.FEATURES, minimal_dataset.FEATURES)),
            "the feature table totals is named twice: once is enough",
        ),
        (dataset(features=[None]), "expected a tuple of FeatureTable, found None in it"),
        (with_source(name="Sales"), "expected a name of lower-case letters"),
        (with_source(key="at"), "expected a tuple of texts, found the text 'at': write ('at',)"),
        (with_source(key=()), "expected at least one column that identifies a row"),
        (with_source(key=("at", "at")), "'at' is named more than once"),
        (with_source(max_rejected_share=5), "expected a number from 0 to 1, found 5"),
        (with_source(max_rejected_share=float("nan")), "expected a number from 0 to 1, found nan"),
        (with_source(batch_size=0), "expected a whole number of 1 or more, found 0"),
        (with_source(batch_size=True), "expected a whole number of 1 or more, found True"),
        (with_source(extra_columns="ignore"), "expected extra_columns 'refuse' or 'drop', found 'ignore'"),
        (dataset(guards=0.5), "expected `Guards(…)`, found 0.5"),
        (dataset(retention=7), "expected `Retention(…)`, found 7"),
        (with_source(guards=0.5), "expected `Guards(…)`, found 0.5"),
        (with_source(read="read"), "expected a function, found 'read'"),
        (with_source(location="sales/"), "expected an ObjectSource or a TableSource, found 'sales/'"),
        (with_source(contract=dict), "expected a contract that is a subclass of dataframely.Schema"),
        (with_objects(partition=r"sales/(?P<partition>.+\.csv"), "is not a regular expression: missing )"),
        (with_objects(partition=r"sales/(?P<partition>[a-\d]+)"), "is not a regular expression: bad character range"),
        (with_objects(partition=r"sales/(?P<day>.+)\.csv"), "has no group named `partition`, found the groups day"),
        (with_objects(partition=r"sale/(?P<partition>.+)\.csv"), "no key below 'sales/' begins with 'sale/'"),
        (with_objects(partition=r"(?P<partition>.+"), "is not a regular expression"),
        (with_objects(partition=None), "expected a text, found None"),
        (with_objects(suffix="csv"), "expected a file name ending such as '.csv.gz', found 'csv'"),
        (with_objects(bucket="s3://raw/sales"), "give the place as a `location`"),
        (with_location("https://raw/sales/"), "found one that begins with 'https:': correct it"),
        (with_location("s3://AKIA:canary@raw/sales/"), "without credentials, found one that may hold some, which is"),
        (with_location("s3://raw/sales/", prefix="sales/"), "expected a `location`, or a `prefix` and its `bucket`"),
        (with_location("s3://raw/sales/", connection="Partner: x"), "such as 'partner', which stands for HEADRACE_"),
        (with_location("file:sales/", connection="partner"), "a bucket that the location names, found a folder"),
        (with_location("sales/", connection="partner"), "names, found the bucket of HEADRACE_BUCKET"),
        (with_table(watermark=7), "expected the column whose value changes when a row does, found 7"),
        (with_table(watermark=""), "expected the column whose value changes when a row does, found ''"),
        (with_table(key="id"), "expected a tuple of columns, found the text 'id': write ('id',)"),
        (with_table(key=()), "expected the columns that identify a row, found ()"),
        (with_table(partition_by=7), "expected a column of dates or times or None, found 7"),
        (with_table(table=""), "expected the name of a table or a `query`, and not both, found ''"),
        (with_table(query="SELECT 1 AS id"), "expected the name of a table or a `query`, and not both, found both"),
        (with_table(table="", query=7), "expected the name of a table or a `query`, and not both, found 7"),
        (with_table(table="", query="DELETE FROM sales"), "begins with SELECT or WITH, found 'DELETE': correct"),
    ],
)
def test_a_source_that_can_only_fail_is_named(declared: Dataset, problem: str) -> None:
    assert problem in "\n".join(problems(declared))


def test_an_address_in_place_of_a_variable_is_not_shown() -> None:
    (found,) = problems(with_table(database="postgresql://me:secret@db/sales"))

    assert "expected the name of an environment variable" in found
    assert "secret" not in found


def test_a_pattern_with_a_group_that_names_nothing_is_a_warning() -> None:
    (found,) = problems(with_objects(partition=r"sales/(\d+)\.csv"), "warning")

    assert "has no group named `partition`, so every object would belong to the partition `all`" in found


def test_a_pattern_that_repeats_the_location_is_a_warning() -> None:
    (found,) = problems(with_location("sales/", partition=r"sales/(?P<partition>.+)\.csv"), "warning")

    assert "is matched with what follows the location in a key, and begins with 'sales/' once more" in found


@pytest.mark.parametrize("location", ["sales/", "sales"])
def test_sources_of_the_same_objects_are_a_warning_however_their_place_is_stated(location: str) -> None:
    first, again = minimal_dataset.SALES, with_location(location).sources[0]

    (found,) = problems(dataset(sources=(first, replace(again, name="again"))), "warning")

    assert found.startswith("source again: it reads the same objects as sales")


def test_sources_of_the_same_table_are_a_warning() -> None:
    first = with_table().sources[0]

    found = problems(dataset(sources=(first, replace(first, name="again"))), "warning")

    assert "source again: it reads the same rows as sales: if that is not meant, correct the location." in found


@pytest.mark.parametrize(
    "pattern",
    [
        r"sales/(?P<partition>.+)\.csv",
        r"(?P<partition>.+)",
        r".*/(?P<partition>.+)\.csv",
        r"sales/latest\.csv",
        r"sales?/(?P<partition>.+)",
        r"sales/eu/(?P<partition>.+)",
        r"other|sales/(?P<partition>.+)",
        r"sales/(?P<partition>\d{4}-\d{2}-\d{2})\.(?:csv|txt)",
    ],
)
def test_a_pattern_that_can_match_keys_below_the_prefix_is_taken(pattern: str) -> None:
    assert check_declaration(with_objects(partition=pattern), ROOT) == []


class NamedRow(dy.Schema):
    at = utc_time()
    shop = dy.String()
    _row = dy.Int64(alias="_row")


class BadExpression(dy.Schema):
    at = utc_time()
    shop = dy.String(regex="(")


class FromTheDay(dy.Schema):
    at = utc_time(within=TimeBounds(timedelta(0), timedelta(days=1)))
    shop = dy.String()


@pytest.mark.parametrize(
    ("declared", "problem", "line"),
    [
        (with_source(contract=NamedRow), "column '_row': the name is reserved", "_row = dy"),
        (with_source(contract=BadExpression), "check 'shop|regex': regex", "shop = dy.String(regex"),
        (
            with_source(contract=FromTheDay, location=ObjectSource("sales/", r"sales/all\.csv", ".csv")),
            "its bounds count from the start of the partition, and the source is not cut by time (whole table)",
            "at = utc_time(within",
        ),
    ],
)
def test_a_contract_that_can_only_fail_is_named_with_its_line(declared: Dataset, problem: str, line: str) -> None:
    (found,) = check_declaration(declared, ROOT)

    assert problem in found.problem
    assert found.file == Path(__file__).relative_to(ROOT).as_posix()
    assert line in Path(__file__).read_text().splitlines()[found.line - 1]


def kernel_of_more(day: str, sales: pl.LazyFrame, weather: pl.LazyFrame) -> pl.LazyFrame:
    return sales.join(weather, on=day)


def kernel_without_day(sales: pl.LazyFrame) -> pl.LazyFrame:
    return sales


def kernel_of_anything(**frames: pl.LazyFrame) -> pl.LazyFrame:
    return frames["sales"]


def foreign(name: str, **fields: Any) -> Dataset:  # noqa: ANN401  of an input
    return with_features(inputs={"sales": Input(name, **fields)})


def test_a_table_is_read_at_one_release_and_where_no_source_is() -> None:
    inputs = {"sales": Input("shops:features/sales", release="latest")}
    pinned = {"sales": Input("shops:features/sales", release="shops/1")}
    tables = (
        replace(minimal_dataset.FEATURES, inputs=inputs),
        replace(minimal_dataset.FEATURES, name="b", inputs=pinned),
    )
    source = replace(minimal_dataset.SALES, name="shops__features__sales")

    (twice,) = problems(dataset(features=tables))
    (taken,) = problems(dataset(features=tables[:1], sources=(source,)))

    assert "another input reads 'shops:features/sales' at release='latest'" in twice
    assert "a source is named 'shops__features__sales', which is where 'shops:features/sales' is kept" in taken


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (with_features(keys=()), "expected at least one key, found none"),
        (with_features(keys="shop"), "found the text 'shop': write ('shop',)"),
        (with_features(keys=("event_time",)), "the key 'event_time' has the name of the time of each row"),
        (with_features(keys=("known_time",)), "the key 'known_time' has the name of the time from which"),
        (with_features(keys=("event_timestamp",)), "the key 'event_timestamp' has the name of the time of a request"),
        (with_features(keys=("entity_key",)), "the key 'entity_key' has the name of the online store's column"),
        (with_features(features={"event_time": pl.Int64()}), "the feature 'event_time' has the name"),
        (with_features(features={"known_time": pl.Int64()}), "the feature 'known_time' has the name of the time from"),
        (with_features(features={"event_timestamp": pl.Int64()}), "the feature 'event_timestamp' has the name of"),
        (with_features(features={"entity_key": pl.Int64()}), "the feature 'entity_key' has the name of"),
        (with_features(features={"shop": pl.Int64()}), "'shop' is both a key and a feature"),
        (with_features(features={}), "expected at least one feature, found none"),
        (with_features(features={"amount": "Int64"}), "expected a Polars type such as pl.Float64(), found 'Int64'"),
        (with_features(features={"amount": int}), "expected a Polars type such as pl.Float64(), found <class 'int'>"),
        (with_features(features={"amount": pl.Float16()}), "the feature 'amount': Parquet does not keep Float16"),
        (with_features(features={"amount": pl.Duration("us")}), "Parquet does not keep Duration"),
        (with_features(features={"amount": pl.Array(pl.Int64, 2)}), "Parquet does not keep Array"),
        (with_features(features={"amount": pl.Null()}), "Parquet does not keep Null"),
        (with_features(features={"amount": pl.Object()}), "Parquet does not keep Object"),
        (with_features(features=("amount",)), "expected feature → Polars type, found ('amount',)"),
        (with_features(key_types={"shop": pl.Float64()}), "the key 'shop' is declared as Float64"),
        (with_features(key_types={"shop": pl.Float32}), "the key 'shop' is declared as Float32"),
        (with_features(key_types={"shop": pl.Boolean()}), "the key 'shop' is declared as Boolean"),
        (with_features(key_types={"shop": pl.Date()}), "the key 'shop' is declared as Date"),
        (with_features(key_types={"shop": pl.List(pl.String)}), "the key 'shop' is declared as List(String)"),
        (with_features(key_types={"shop": str}), "the key 'shop' is declared as <class 'str'>"),
        (with_features(key_types={"shops": pl.Int64()}), "it types 'shops', which is none of the keys shop"),
        (with_features(batch_size=0), "expected a whole number of 1 or more, found 0"),
        (with_features(transform=kernel_of_more), "needs weather, which it is not called with"),
        (with_features(transform=kernel_without_day), "is called with day=, but takes sales"),
        (with_features(batch_size=3), "is called with end_day=, but takes day, sales"),
        (with_features(inputs={}), "expected keyword of minimal_dataset.totals → `Input`, found {}"),
        (with_features(inputs={"sales": "validated/sales"}), "expected an `Input`, found 'validated/sales'"),
        (with_features(inputs={"sales": Input("validated/salez")}), "(did you mean 'validated/sales'?)"),
        (with_features(inputs={"sales": Input("sales")}), "there is no table 'sales'"),
        (with_features(inputs={"sales": Input("raw/sales")}), "holds the source's files as they came"),
        (with_features(inputs={"sales": Input("validated/tiny/sales")}), "named without the dataset"),
        (with_features(inputs={"sales": Input("validated/shops/sales")}), "is a table of another dataset"),
        (foreign("shops:features/sales"), "one such as `release=\"shops/12\"`, found ''"),
        (foreign("shops:features/sales", release="trips/1"), "found 'trips/1'"),
        (foreign("shops:raw/sales", release="latest"), "of validated, rejected, derived, features, labels, found"),
        (foreign("shops:sales", release="latest"), "table of another dataset as 'flights:features/delays'"),
        (foreign("tiny:validated/sales", release="latest"), "is a table of this dataset: name it 'validated/sales'"),
        (foreign("validated/sales", release="latest"), "`release` and `partitions` are of tables of other datasets"),
        (foreign("shops:features/sales", release="latest", partitions="day"), "expected partitions such as Daily()"),
        (with_features(inputs={"sales": Input("validated/sales", -1)}), "expected a lookback of 0 to 36,525"),
        (with_features(inputs={"sales": Input("validated/sales", True)}), "found True"),
        (with_features(inputs={"sales": Input("features/totals")}), "it reads itself, 'features/totals'"),
    ],
)  # fmt: skip
def test_a_feature_table_that_can_only_fail_is_named(declared: Dataset, problem: str) -> None:
    assert problem in "\n".join(problems(declared))


def test_a_kernel_may_take_any_keyword() -> None:
    assert check_declaration(with_features(transform=kernel_of_anything), ROOT) == []


def test_two_inputs_of_one_table_are_named() -> None:
    inputs = {"sales": Input("validated/sales"), "longer": Input("validated/sales", 7)}

    (found,) = problems(with_features(inputs=inputs, transform=kernel_of_anything))

    assert "the inputs 'sales' and 'longer' read one table, 'validated/sales': read it once" in found


def table(name: str, *reads: str) -> FeatureTable:
    inputs = {f"input_{number}": Input(read) for number, read in enumerate(reads)}
    return replace(minimal_dataset.FEATURES, name=name, inputs=inputs, transform=kernel_of_anything)


def derived(name: str, *reads: str, columns: Mapping[str, Any] | None = None, **fields: Any) -> DerivedTable:  # noqa: ANN401
    inputs = {f"input_{number}": Input(read) for number, read in enumerate(reads)}
    columns = {"shop": pl.String(), "known_time": UTC_MICROSECONDS} if columns is None else columns
    return replace(DerivedTable(name, ("shop",), inputs, kernel_of_anything, columns), **fields)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"key": ()}, "expected the columns that identify a row, found none"),
        ({"key": ("town",)}, "the key 'town' is none of its columns shop, known_time"),
        ({"columns": {}}, "expected column → Polars type, found {}"),
        ({"columns": {"shop": pl.Object()}}, "the column 'shop': Parquet does not keep Object"),
        ({"columns": {"shop": "text"}}, "the column 'shop': expected a Polars type"),
        ({"columns": {"shop": pl.String(), "event_time": pl.Date()}}, "declare it as `UTC_MICROSECONDS`, or rename it"),
        ({"batch_size": 3}, "no column 'event_time' says to which one a row belongs"),
        ({"name": "Totals"}, "expected a name of lower-case letters"),
        ({"name": "totals"}, "a derived table is named 'totals', too, and `headrace transform --table` would mean"),
        ({"inputs": {"sales": Input("derived/hours")}}, "it reads itself, 'derived/hours'"),
        ({"params": ("factor",)}, "there is no parameter tiny.factor in params.yaml"),
    ],
)
def test_a_derived_table_that_can_only_fail_is_named(fields: dict[str, Any], problem: str) -> None:
    fields = {"name": "hours", **fields}
    assert problem in "\n".join(problems(dataset(derived=(replace(derived("hours", "validated/sales"), **fields),))))


def test_a_derived_table_that_hides_when_labels_were_known_is_named_where_features_read_it() -> None:
    hidden = derived("a", "labels/kind", columns={"shop": pl.String()})
    declared = dataset(derived=(hidden,), features=(table("b", "derived/a"),), labels=(LABELING,))

    (found,) = problems(declared)

    assert "'derived/a' is computed from labels/kind and has no column 'known_time'" in found
    assert problems(replace(declared, features=())) == []


def test_tables_that_read_each_other_are_named_with_the_cycle() -> None:
    tables = (table("a", "features/b"), table("b", "features/c"), table("c", "validated/sales", "features/a"))

    (found,) = check_declaration(dataset(features=tables), ROOT)

    assert "features/a → features/b → features/c → features/a: break the cycle" in found.problem
    assert found.file == Path(minimal_dataset.__file__).relative_to(ROOT).as_posix()  # `replace` keeps the place
    assert found.line > 1


def test_a_cycle_by_way_of_derived_tables_and_labels_is_named() -> None:
    labeling = replace(LABELING, consensus="crowdlab", item_features=ItemFeatures("features/b", lambda _row: (0.0,)))
    tables = (table("b", "derived/a"),)

    (found,) = problems(dataset(derived=(derived("a", "labels/kind"),), features=tables, labels=(labeling,)))

    assert "derived/a → labels/kind → features/b → derived/a: break the cycle" in found


def test_a_sample_may_be_drawn_from_features_of_the_labels() -> None:
    """People stand in between: what they answer is a history, which nothing computes."""
    labeling = replace(LABELING, inputs={"sales": Input("features/a")})

    assert check_declaration(dataset(features=(table("a", "labels/kind"),), labels=(labeling,)), ROOT) == []


def test_a_table_may_be_declared_before_what_it_reads() -> None:
    tables = (table("a", "features/b"), table("b", "derived/c", "labels/kind"))
    declared = dataset(derived=(derived("c", "validated/sales"),), features=tables, labels=(LABELING,))

    assert check_declaration(declared, ROOT) == []
    names = [f"{stage.verb} {stage.name}" for stage in graph.dataset_stages(declared)]
    assert names == ["validate sales", "transform c", "label kind", "transform b", "transform a"]


@pytest.mark.parametrize("read", ["rejected/sales", "annotations/kind", "validated/sales", "labels/kind"])
def test_every_table_of_the_dataset_can_be_read(read: str) -> None:
    assert check_declaration(dataset(features=(table("a", read),), labels=(LABELING,)), ROOT) == []


def test_two_tables_of_one_name_are_named() -> None:
    twice = (minimal_dataset.FEATURES, minimal_dataset.FEATURES)
    alike = replace(minimal_dataset.FEATURES, name="kind")

    assert (
        "a feature table is named 'totals', too"
        in problems(dataset(features=(table("totals", "validated/sales"), *twice[1:])))[0]
    )
    assert "would mean both" in problems(dataset(features=(alike,), labels=(LABELING,)))[0]
    assert "their rejected rows" in problems(with_labels(name="sales"))[0]


@pytest.mark.parametrize("kind", [pl.Date(), pl.Int8(), pl.List(pl.Int64()), UTC_MICROSECONDS])
def test_a_feature_that_cannot_be_published_is_a_warning(kind: pl.DataType) -> None:
    (found,) = problems(with_features(features={"amount": kind}), "warning")

    assert "`headrace publish` refuses it" in found


def test_the_types_that_are_published_are_those_of_the_online_store() -> None:
    assert set(feature_check.ONLINE_TYPES) == set(KINDS)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (with_labels(choices=("x", "y")), "its label configuration does not offer 'x', 'y'"),
        (with_labels(choices=("good", "por")), "'por' (did you mean 'poor'?)"),
        (with_labels(choices=("good",)), "offers 'poor', and such an answer would be set aside"),
        (with_labels(choices=("good", "bad")), "does not offer 'bad'"),
        (with_labels(choices=()), "expected at least one of `choices`, found none"),
        (with_labels(choices="good"), "found the text 'good': write ('good',)"),
        (with_labels(config=CONFIG.replace('"single"', '"multiple"')), 'choice="multiple" lets people pick several'),
        (with_labels(config=CONFIG.replace("</View>", "")), "its label configuration is not XML"),
        (with_labels(config=CONFIG.replace('toName="shown"', 'toName="show"')), "is about show, which no tag is named"),
        (with_labels(config=CONFIG.replace(' toName="shown"', "")), "has no toName"),
        (with_labels(config=CONFIG.replace('"bad" alias="poor"', '"good"')), "offers 'good' more than once"),
        (with_labels(config=None), "expected texts as `title`, `config` and `control`"),
        (with_labels(control="kin"), "has no tag named 'kin' (did you mean 'kind'?)"),
        (with_labels(control="shown"), "expected the name of a `Choices` tag, found <Text name='shown'>"),
        (with_labels(title="?"), "expected a title of 3 to 50 characters, found 1"),
        (with_labels(title="x" * 51), "expected a title of 3 to 50 characters, found 51"),
        (with_labels(keys=("sample_id",)), "the key 'sample_id' has the name of the sample's own id"),
        (with_labels(keys=("label",)), "the key 'label' has the name of the label"),
        (with_labels(key_types={"shop": pl.Float64()}), "the key 'shop' is declared as Float64"),
        (with_labels(key_types={"shop": pl.Datetime("ms")}), "times are UTC in microseconds"),
        (with_labels(inputs={"sales": Input("validated/sale")}), "(did you mean 'validated/sales'?)"),
        (with_labels(gold=Input("validated/gold")), "there is no table 'validated/gold'"),
        (with_labels(no_suggestion_share=20), "expected a number from 0 to 1, found 20"),
        (with_labels(annotators_per_item=0), "expected a whole number of 1 or more, found 0"),
        (with_labels(consensus="majorty"), "expected a consensus of majority, dawid_skene, crowdlab, found 'majorty'"),
        (with_labels(consensus="crowdlab"), "the consensus `crowdlab` needs `item_features`"),
        (with_labels(sample=task), "is called with params=, sales="),
    ],
)
def test_a_labeling_task_that_can_only_fail_is_named(declared: Dataset, problem: str) -> None:
    assert problem in "\n".join(problems(declared))


def test_choices_that_each_task_brings_are_not_compared() -> None:
    config = CONFIG.replace('choice="single"', 'choice="single" value="$options"')

    assert check_declaration(with_labels(config=config, choices=("any",)), ROOT) == []


def contract_without_params() -> None:
    """A function that cannot receive them."""


def test_a_parameter_that_params_yaml_lacks_is_named_with_one_that_is_like_it(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("tiny:\n  factor: 2\n")
    wrong = dataset(
        sources=(replace(minimal_dataset.SALES, params=("factr",)),),
        features=(replace(minimal_dataset.FEATURES, params=("factor",)),),
    )

    problems = [finding.problem for finding in check_declaration(wrong, tmp_path)]

    unknown, kernel = problems
    assert kernel.startswith(
        "feature table totals: minimal_dataset.totals is called with params=, but takes day, sales:"
    )
    assert unknown.startswith("source sales: there is no parameter tiny.factr in params.yaml (did you mean 'factor'?):")


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (with_source(params="factor"), "expected a tuple of texts, found the text 'factor'"),
        (with_features(params=("factor", "factor")), "'factor' is named more than once"),
        (with_source(params=("factor",)), "keep_rows is called with params=, but takes nothing"),
        (
            with_source(params=("factor",), contract=contract_without_params),
            "contract_without_params raised TypeError",
        ),
        (with_source(contract=contract_without_params), "expected a contract that is a subclass of dataframely.Schema"),
    ],
)
def test_a_declaration_that_cannot_receive_its_parameters_is_named(
    declared: Dataset, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text("tiny:\n  factor: 2\n")

    assert problem in "\n".join(finding.problem for finding in check_declaration(declared, tmp_path))


MODULE = """
from dataclasses import replace
import minimal_dataset as it
from headrace.dataset import Dataset, FeatureTable, Input, Source, ObjectSource

KEYS = (
    "shop",
    "event_time",
)
INPUTS = {
    "sales": Input("validated/sales"),
    "more": Input("validated/seles"),
}
SALES = Source(
    name="sales",
    location=ObjectSource(
        prefix="sales/",
        partition="sales/(",
        suffix=".csv",
    ),
    read=it.read,
    contract=it.Sales,
    transform=it.keep_rows,
    key=("at", "shop"),
    batch_size=0,
)
TOTALS = FeatureTable(
    name="totals",
    keys=KEYS,
    inputs=INPUTS,
    transform=lambda day, params, sales, more: sales,
    params=(
        "factor",
    ),
    features={"amount": it.pl.Int64(),
              "text": "str"},
    ttl=it.timedelta(1),
)
DATASET = Dataset(description="Sales.", owner="tests", sources=(SALES,), features=(TOTALS,))
"""


@pytest.fixture
def declared_in_a_file(tmp_path: Path) -> Iterator[Dataset]:
    file = tmp_path / "declared_module.py"
    file.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("declared_module", file)
    assert spec
    assert spec.loader
    module = sys.modules["declared_module"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.DATASET
    del sys.modules["declared_module"]


def test_each_finding_has_the_line_of_what_it_is_about(declared_in_a_file: Dataset, tmp_path: Path) -> None:
    lines = MODULE.splitlines()

    found = {
        lines[finding.line - 1].strip(): (finding.file, finding.problem)
        for finding in check_declaration(declared_in_a_file, tmp_path)
    }

    assert set(found) == {
        '"event_time",',
        '"more": Input("validated/seles"),',
        'partition="sales/(",',
        "batch_size=0,",
        '"text": "str"},',
        '"factor",',
    }
    assert {file for file, _ in found.values()} == {"declared_module.py"}


def kernel_of_another_type(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    return minimal_dataset.totals(day, sales).with_columns(shop=pl.lit(1, pl.Int64), amount=pl.lit(1.5))


def kernel_that_misspells(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    return minimal_dataset.totals(day, sales.select("at", "shop", amount="amuont"))


def kernel_that_lacks_a_time(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    return minimal_dataset.totals(day, sales).drop("known_time")


def kernel_that_needs_rows(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    first = sales.collect().row(0)
    return minimal_dataset.totals(day, sales.head(len(first)))


@pytest.mark.parametrize(
    ("transform", "level", "expected"),
    [
        (kernel_of_another_type, "error", ["gives 'shop' as Int64, declared is String", "gives 'amount' as Float64"]),
        (kernel_that_misspells, "error", ['ColumnNotFoundError: unable to find column "amuont"']),
        (kernel_that_lacks_a_time, "error", ["gives no column 'known_time'"]),
        (kernel_that_needs_rows, "warning", ["OutOfBoundsError"]),
    ],
)
def test_a_kernel_whose_columns_are_not_the_declared_ones_is_named_before_there_is_data(
    transform: Callable[..., pl.LazyFrame], level: str, expected: list[str]
) -> None:
    found = list(schema_faults(with_features(transform=transform)))

    assert [fault.level for fault in found] == [level] * len(expected)
    assert all(text in fault.text for text, fault in zip(expected, found, strict=True))


class Renamed(minimal_dataset.Sales):
    """The contract after a column was renamed."""

    amount = dy.Int64(nullable=True)
    total = evolving(dy.Int64(), renamed_from="sum")


def kernel_that_reads_the_former_name(day: str, sales: pl.LazyFrame) -> pl.LazyFrame:
    return minimal_dataset.totals(day, sales.with_columns(amount="sum"))


def sample_of_the_former_name(*, params: Mapping[str, Any], sales: pl.LazyFrame) -> pl.DataFrame:
    return sales.sort("sum").head(params["sample"]).collect()


def test_who_reads_a_column_by_its_former_name_is_told_the_new_one() -> None:
    features = (replace(minimal_dataset.FEATURES, transform=kernel_that_reads_the_former_name),)
    labels = (replace(LABELING, sample=sample_of_the_former_name, params={"sample": 1}),)

    found = list(schema_faults(replace(with_source(contract=Renamed), features=features, labels=labels)))

    assert [(fault.declared, fault.level) for fault in found] == [(features[0], "error"), (labels[0], "error")]
    assert all("(sum of sales is called total now)" in fault.text for fault in found)


def give_another_name(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.rename({"total": "sum"})


def test_a_transform_without_a_column_that_changed_is_named() -> None:
    """Readers of all partitions would find a column that holds nothing but its default."""
    (found,) = schema_faults(replace(with_source(contract=Renamed, transform=give_another_name), features=()))

    assert (found.level, "gives no column 'total'" in found.text) == ("warning", True)


def drop_key(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop("shop")


def test_a_transform_without_the_key_and_an_unknown_pii_column_are_named() -> None:
    (first,) = schema_faults(with_source(transform=drop_key))
    (second,) = schema_faults(with_source(pii_columns=("shops",)))

    assert "no column 'shop', which the key names" in first.text
    assert "no column 'shops' (did you mean 'shop'?)" in second.text


def test_nothing_of_a_declaration_is_found_on_another_machine_s_path() -> None:
    """Files are named relative to the project."""
    found = check_declaration(with_source(batch_size=0), ROOT)

    assert [finding.file for finding in found] == ["tests/support/minimal_dataset.py"]
    assert os.sep not in found[0].file[:1]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"service": "a/b"}, "found 'a/b': rename it"),
        ({"service": None}, "found None: rename it"),
        ({"owner": None}, "expected a text that is not empty, found None"),
        ({"owner": " "}, "expected a text that is not empty, found ' '"),
        ({"description": 7}, "expected a text that is not empty, found 7"),
        ({"schedule": None}, "expected a cron expression, or '' for none, found None"),
        ({"tags": {"team": 7}}, "expected name → text, found {'team': 7}"),
    ],
)
def test_options_of_a_dataset_that_are_of_no_use_are_named(changes: dict[str, Any], problem: str) -> None:
    (finding,) = check_declaration(replace(minimal_dataset.DATASET, **changes), ROOT)

    assert problem in str(finding)


@pytest.mark.parametrize(("value", "gives"), [(None, "nothing: is a `return` missing?"), ([], "a list"), (7, "a int")])
def test_a_kernel_that_returns_no_frame_is_an_error(value: Any, gives: str) -> None:  # noqa: ANN401  no frame, on purpose
    table = replace(minimal_dataset.FEATURES, transform=lambda **_inputs: value)

    (fault,) = schema_faults(replace(minimal_dataset.DATASET, features=(table,)))

    assert (fault.level, fault.path) == ("error", ("transform",))
    assert fault.text.startswith("expected a polars LazyFrame")
    assert fault.text.endswith(gives)


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), ([], "list")])
def test_a_transform_that_returns_no_frame_is_an_error(value: Any, kind: str) -> None:  # noqa: ANN401  no frame, on purpose
    source = replace(minimal_dataset.DATASET.sources[0], transform=lambda _rows: value)

    (fault,) = schema_faults(replace(minimal_dataset.DATASET, sources=(source,), features=()))

    assert fault.level == "error"
    assert f"expected a polars DataFrame, but `transform` ({__name__}) returned {kind}" in fault.text
