"""Retrieval without requests gives every moment at which a feature changed; a saved dataset, what was saved."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import feature_workspace
import polars as pl
import pytest
from feast import FeatureStore
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feature_workspace import (
    AIRCRAFT,
    DATASET,
    HOUR,
    NOON,
    WEATHER,
    open_workspace_store,
    retrieval_job,
    weather_requests,
    write_all_tables,
    write_table,
)

from headrace.feast.definitions import DeploymentState, SlotState, dataset_objects
from headrace.feast.retrieval_job import HeadraceRetrievalJob
from headrace.retrieve.errors import FeatureStoreError, InvalidRequestError
from headrace.storage.table_store import TableStore


@pytest.fixture
def table_store(tmp_path: Path) -> Iterator[TableStore]:
    made = feature_workspace.create_workspace(tmp_path / "workspace")
    write_all_tables(made)
    yield made
    feature_workspace.close_all()


@pytest.fixture
def store(table_store: TableStore) -> FeatureStore:
    made = open_workspace_store(table_store)
    made.apply([*dataset_objects(DATASET, DeploymentState(SlotState("a"), SlotState("b")))])
    return made


def between(store: FeatureStore, start: datetime | None, end: datetime | None, *names: str) -> pl.DataFrame:
    job = store.get_historical_features(features=list(names), start_date=start, end_date=end)
    assert isinstance(job, HeadraceRetrievalJob)
    return job.to_polars()


# --- between two times ---


def test_every_row_between_two_times_is_there_with_both_ends(store: FeatureStore) -> None:
    rows = between(store, NOON - 2 * HOUR, NOON, "origin_weather__a:temp_c")

    assert rows.rows() == [
        ("EWR", NOON - HOUR, 1.5),
        ("EWR", NOON, 2.5),
        ("JFK", NOON - 2 * HOUR, 0.1 + 0.2),
    ]


def test_a_correction_is_a_row_of_its_own_at_the_time_it_was_known(
    table_store: TableStore, store: FeatureStore
) -> None:
    corrected = {"tailnum": "N2", "event_time": NOON - HOUR, "known_time": NOON + HOUR, "delay_min": 50.0}
    write_table(table_store, AIRCRAFT, [{"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 5.0}, corrected])

    rows = between(store, NOON - 3 * HOUR, NOON + 3 * HOUR, "aircraft_history__a:delay_min")

    assert rows.rows() == [("N2", NOON - HOUR, 5.0), ("N2", NOON + HOUR, 50.0)]


def test_a_row_known_after_the_end_is_not_there(table_store: TableStore, store: FeatureStore) -> None:
    late = {"tailnum": "N2", "event_time": NOON - HOUR, "known_time": NOON + HOUR, "delay_min": 50.0}
    write_table(table_store, AIRCRAFT, [late])

    assert between(store, NOON - 3 * HOUR, NOON, "aircraft_history__a:delay_min").is_empty()


def test_views_whose_keys_are_among_anothers_are_joined_to_its_rows(store: FeatureStore) -> None:
    refs = ["route_traffic__a:temp_c", "origin_weather__a:sky"]

    rows = between(store, NOON - 3 * HOUR, NOON, *refs)

    assert rows["origin"].to_list() == ["EWR"]
    assert rows["event_timestamp"].to_list() == [NOON - HOUR]
    assert rows["temp_c"].to_list() == [7.0]


def test_views_without_a_common_key_are_refused_with_what_to_do(store: FeatureStore) -> None:
    with pytest.raises(InvalidRequestError, match=r"joined by .*other keys.*give requests that name the keys"):
        between(store, NOON, NOON, "origin_weather__a:sky", "aircraft_history__a:delay_min")


@pytest.mark.parametrize(("start", "end"), [(None, NOON), (NOON, None), (NOON.replace(tzinfo=None), NOON)])
def test_two_times_with_a_zone_are_needed(store: FeatureStore, start: datetime | None, end: datetime | None) -> None:
    with pytest.raises(InvalidRequestError, match="expected start_date and end_date with a zone"):
        between(store, start, end, "origin_weather__a:sky")


def test_a_time_with_nothing_in_it_has_no_rows_and_every_column(store: FeatureStore) -> None:
    rows = between(store, NOON + timedelta(days=400), NOON + timedelta(days=401), "origin_weather__a:gusts")

    assert rows.columns == ["origin", "event_timestamp", "gusts"]
    assert rows.is_empty()


# --- saved datasets ---


@pytest.mark.filterwarnings("ignore:.*experimental feature:RuntimeWarning")
def test_a_saved_dataset_gives_back_every_row_and_column_that_was_saved(store: FeatureStore) -> None:
    asked = weather_requests(["EWR", "JFK", "XXX"], [NOON] * 3).with_columns(late=pl.Series([True, False, None]))
    names = [f"origin_weather__a:{name}" for name in WEATHER.features]
    job = retrieval_job(store, asked, *names)

    store.create_saved_dataset(job, "january", SavedDatasetFileStorage("saved/january.parquet"))
    saved = store.get_saved_dataset("january")

    assert isinstance(saved._retrieval_job, HeadraceRetrievalJob)  # noqa: SLF001  Feast offers pandas alone
    assert saved._retrieval_job.to_polars().equals(job.to_polars())  # noqa: SLF001
    assert "late" in saved.to_df()


@pytest.mark.filterwarnings("ignore:.*experimental feature:RuntimeWarning")
def test_a_saved_dataset_whose_file_is_gone_is_refused_by_path(table_store: TableStore, store: FeatureStore) -> None:
    job = retrieval_job(store, weather_requests(["EWR"], [NOON]), "origin_weather__a:sky")
    store.create_saved_dataset(job, "january", SavedDatasetFileStorage("january.parquet"))
    (table_store.root / "feature_repo" / "january.parquet").unlink()

    with pytest.raises(FeatureStoreError, match=r"Expected the saved dataset in .*january\.parquet"):
        store.get_saved_dataset("january").to_df()
