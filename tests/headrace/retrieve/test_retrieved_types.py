"""What a retrieval gives back: every type as it is declared, every column under its name, in any form."""

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest
from applied import applied, store, table_store
from feast import FeatureService, FeatureStore, FeatureView, Field
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
from feature_workspace import (
    DATASET,
    HOUR,
    LARGE_INT,
    NOON,
    WEATHER,
    requests_with_all_keys,
    retrieval_job,
    weather_requests,
    write_table,
)

from headrace.feast.definitions import SlotState, feature_view
from headrace.feast.retrieval_job import HeadraceRetrievalJob
from headrace.retrieve.errors import InvalidRequestError, UnsupportedTypeError
from headrace.storage.table_store import TableStore

__all__ = ["applied", "store", "table_store"]


def test_whole_numbers_beside_nulls_are_exact_in_polars_arrow_and_pandas(store: FeatureStore) -> None:
    names = [f"origin_weather__a:{name}" for name in WEATHER.features]
    job = retrieval_job(store, weather_requests(["EWR", "XXX", "JFK"], [NOON - HOUR, NOON, NOON]), *names)

    rows, frame = job.to_polars(), job.to_df()

    assert {name: rows.schema[name] for name in WEATHER.features} == dict(WEATHER.features)
    assert rows["gusts"].to_list() == [LARGE_INT, None, LARGE_INT]
    assert job.to_arrow()["gusts"].to_pylist() == [LARGE_INT, None, LARGE_INT]
    assert frame["gusts"].tolist() == [LARGE_INT, pd.NA, LARGE_INT]
    assert str(frame["frozen"].dtype) == "boolean"


def test_a_pandas_request_comes_back_as_it_was_with_the_features_beside_it(store: FeatureStore) -> None:
    given = pd.DataFrame(
        {
            "carrier_id": pd.array([LARGE_INT, None], dtype="Int64"),
            "origin": ["EWR", "EWR"],
            "event_timestamp": pd.to_datetime([NOON, NOON]),
            "late": [True, False],
        },
        index=[7, 7],
    )

    answer = retrieval_job(store, given, "route_traffic__a:temp_c").to_df()

    pd.testing.assert_frame_equal(answer[given.columns], given.reset_index(drop=True))
    assert answer["temp_c"].tolist()[0] == 7.0
    assert pd.isna(answer["temp_c"].tolist()[1])


def test_views_with_the_same_feature_and_other_keys_are_joined_under_full_names(store: FeatureStore) -> None:
    refs = ["origin_weather__a:temp_c", "route_traffic__a:temp_c", "aircraft_history__a:delay_min"]

    answer = retrieval_job(store, requests_with_all_keys([NOON]), *refs, full_feature_names=True).to_polars()

    assert answer.row(0)[-3:] == (2.5, 7.0, -4.0)
    assert answer.columns[-3:] == [ref.replace(":", "__") for ref in refs]


def test_a_request_column_named_like_a_feature_is_refused(store: FeatureStore) -> None:
    frame = weather_requests(["EWR"], [NOON]).with_columns(temp_c=pl.lit(0.0))

    with pytest.raises(InvalidRequestError, match=r"two columns temp_c.*full_feature_names=True"):
        retrieval_job(store, frame, "origin_weather__a:temp_c").to_polars()


def test_one_view_can_be_joined_twice_under_other_keys(store: FeatureStore) -> None:
    physical = feature_view(DATASET, WEATHER, SlotState("a"))
    here = physical.with_name("here").with_join_key_map({"origin": "from"})
    there = physical.with_name("there").with_join_key_map({"origin": "to"})
    store.apply([FeatureService(name="both_ends", features=[here[["temp_c"]], there[["temp_c"]]])])
    frame = pl.DataFrame({"from": ["EWR"], "to": ["JFK"], "event_timestamp": [NOON]})

    job = store.get_historical_features(
        frame,
        store.get_feature_service("both_ends"),
        full_feature_names=True,
    )

    assert isinstance(job, HeadraceRetrievalJob)
    assert job.to_polars().select("here__temp_c", "there__temp_c").row(0) == (2.5, 0.1 + 0.2)


def test_views_that_feast_computes_on_demand_get_their_inputs(store: FeatureStore) -> None:
    physical: FeatureView = feature_view(DATASET, WEATHER, SlotState("a"))

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[physical], schema=[Field(name="temp_f", dtype=Float64)], mode="pandas"
    )
    def fahrenheit(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"temp_f": inputs["temp_c"] * 9 / 5 + 32})

    with pytest.warns(RuntimeWarning, match="On demand feature view"):
        store.apply([fahrenheit])
    refs = ["origin_weather__a:temp_c", "fahrenheit:temp_f"]

    assert retrieval_job(store, weather_requests(["EWR"], [NOON]), *refs).to_df()["temp_f"].tolist() == [36.5]


def test_arrow_batches_a_file_and_pandas_hold_what_polars_holds(store: FeatureStore, tmp_path: Path) -> None:
    job = retrieval_job(store, requests_with_all_keys([NOON] * 5), "origin_weather__a:gusts", "route_traffic__a:temp_c")
    rows = job.to_polars()

    batches = list(job.to_batches(2))

    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    assert pl.DataFrame(pa.Table.from_batches(batches)).equals(rows)
    assert pl.read_parquet(job.to_parquet(tmp_path / "rows.parquet")).equals(rows)
    assert pl.from_pandas(job.to_df()).cast(rows.schema).equals(rows)


def test_requests_in_a_file_are_answered_without_being_read_whole(store: FeatureStore, tmp_path: Path) -> None:
    given = requests_with_all_keys([NOON + timedelta(seconds=second) for second in range(50)])
    given.write_parquet(tmp_path / "requests.parquet", row_group_size=7)

    answer = retrieval_job(store, tmp_path / "requests.parquet", "origin_weather__a:gusts").to_polars()

    assert answer.equals(retrieval_job(store, given, "origin_weather__a:gusts").to_polars())


def test_not_a_number_stays_apart_from_null_and_float32_as_narrow_as_declared(
    table_store: TableStore, store: FeatureStore
) -> None:
    hour = {"origin": "EWR", "event_time": NOON}
    write_table(table_store, WEATHER, [{**hour, "temp_c": math.nan, "humidity": 0.1}, {**hour, "origin": "JFK"}])

    answer = retrieval_job(
        store, weather_requests(["EWR", "JFK"], [NOON] * 2), "origin_weather__a:temp_c", "origin_weather__a:humidity"
    )

    rows = answer.to_polars()
    assert rows["temp_c"].is_nan().to_list() == [True, None]
    assert rows["humidity"].to_list() == [np.float32(0.1), None]
    assert rows.schema["humidity"] == pl.Float32


@pytest.mark.parametrize(
    "kind", [pl.Datetime("us", "UTC"), pl.Datetime("ns"), pl.Date(), pl.UInt64(), pl.Decimal(9, 2)]
)
def test_a_type_that_would_change_on_its_way_online_is_refused_when_it_is_defined(kind: pl.DataType) -> None:
    table = replace(WEATHER, features={"stamp": kind})

    with pytest.raises(UnsupportedTypeError, match=r"stamp is declared as .*online store would change"):
        feature_view(DATASET, table, SlotState("a"))


def test_a_retrieval_can_be_kept_as_a_file(store: FeatureStore, tmp_path: Path) -> None:
    job = retrieval_job(store, weather_requests(["EWR"], [NOON]), "origin_weather__a:gusts")

    job.persist(SavedDatasetFileStorage(str(tmp_path / "kept.parquet")))

    assert pl.read_parquet(tmp_path / "kept.parquet").equals(job.to_polars())
