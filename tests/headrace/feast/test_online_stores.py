"""Publish promises the same of every online store: SQLite, PostgreSQL and Redis; and every seeded fault is caught.

Real servers. What readers see is read with Feast's own call; faults are made with the store's own client.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import feature_workspace
import polars as pl
import pytest
from feast import FeatureView
from feature_workspace import (
    AIRCRAFT,
    AIRCRAFT_CHANGES,
    AIRCRAFT_ROWS,
    DATASET,
    HOUR,
    LARGE_INT,
    NOON,
    WEATHER,
    offline_delays,
    online_delays,
    open_workspace_store,
    publish_release,
    write_all_tables,
    write_table,
)
from online_stores import STORE_TYPES, OnlineStore, StoreImage, new_store, redis_port

from headrace import failpoints
from headrace.dataset import FeatureTable
from headrace.feast.definitions import DeploymentState, SlotState, feature_view
from headrace.feast.encoding import encode
from headrace.feast.online_stores.writer import OnlineTable
from headrace.feast.publish_log import PublisherFencedError
from headrace.feast.types import KEY, STAMP
from headrace.publish.blue_green import Sides
from headrace.publish.publish import PublishOptions, publish
from headrace.publish.snapshot import Snapshot
from headrace.retrieve.errors import FeatureStoreError, FeatureStoreUnavailableError, VerificationFailedError
from headrace.storage.table_store import TableStore

pytestmark = pytest.mark.slow

__all__ = ["new_store", "redis_port"]


State = Callable[[TableStore], object]
"""Brings a workspace that has published nothing into a state."""


@dataclass(frozen=True)
class Prepared:
    """A workspace in some state, and what its online store held then."""

    root: Path
    image: StoreImage


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with tables and a release; nothing is published."""
    table_store = feature_workspace.create_workspace(tmp_path_factory.mktemp("template"))
    write_all_tables(table_store)
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS)
    feature_workspace.tag_release(table_store, 1)
    return table_store.root


@pytest.fixture(params=STORE_TYPES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def prepared() -> dict[tuple[str, State], Prepared]:
    """Kind of store and state → the workspace, made by the first test that begins there."""
    return {}


@pytest.fixture
def begin(
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    new_store: Callable[[str], OnlineStore],
    prepared: dict[tuple[str, State], Prepared],
) -> Iterator[Callable[[State], tuple[TableStore, OnlineStore]]]:
    """A workspace of the test's own in that state, and its online store; whatever the test opens is closed."""

    def copy(root: Path, store: OnlineStore) -> TableStore:
        copied = shutil.copytree(root, tmp_path_factory.mktemp(kind) / "workspace")
        store.configure(copied)
        return TableStore.at(copied)

    def start(state: State) -> tuple[TableStore, OnlineStore]:
        if (kind, state) not in prepared:
            store = new_store(kind)
            table_store = copy(template, store)
            state(table_store)
            feature_workspace.close_all()
            prepared[kind, state] = Prepared(table_store.root, StoreImage.take(store))
        found = prepared[kind, state]
        store = found.image.copy()
        return copy(found.root, store), store

    yield start
    feature_workspace.close_all()


def release_1_is_live(table_store: TableStore) -> None:
    """On slot `b`."""
    publish_release(table_store, "little/1")


def release_2_is_live(table_store: TableStore) -> None:
    """It has one aircraft, N7; release 1 is on standby, on slot `b`."""
    release_1_is_live(table_store)
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "tailnum": "N7"}])
    publish_release(table_store, feature_workspace.tag_release(table_store, 2))


MANY = [{"tailnum": f"M{number:05}", "event_time": NOON - 26 * HOUR, "delay_min": 1.0} for number in range(2500)]
"""More aircraft than are sampled; no release changes them."""


def release_3_of_many_is_live(table_store: TableStore) -> None:
    """Release 2, with `MANY` more keys, is on standby; release 3 has another value of N2, release 4 yet another."""
    release_1_is_live(table_store)
    write_table(table_store, AIRCRAFT, [*AIRCRAFT_ROWS, *MANY])
    publish_release(table_store, feature_workspace.tag_release(table_store, 2))
    publish_release(table_store, "little/1")
    publish_release(table_store, "little/2")
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 5.0}, AIRCRAFT_ROWS[1], *MANY])
    publish_release(table_store, feature_workspace.tag_release(table_store, 3))
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 6.0}, AIRCRAFT_ROWS[1], *MANY])
    feature_workspace.tag_release(table_store, 4)


@pytest.fixture
def live(begin: Callable[[State], tuple[TableStore, OnlineStore]]) -> tuple[TableStore, OnlineStore]:
    """A workspace with release 1 live, and its online store."""
    return begin(release_1_is_live)


@pytest.fixture
def table_store(live: tuple[TableStore, OnlineStore]) -> TableStore:
    return live[0]


@pytest.fixture
def replaced(begin: Callable[[State], tuple[TableStore, OnlineStore]]) -> TableStore:
    """A workspace with release 2 live and release 1 on standby."""
    return begin(release_2_is_live)[0]


@pytest.fixture
def large(begin: Callable[[State], tuple[TableStore, OnlineStore]]) -> TableStore:
    """A workspace with many keys, release 3 live and release 2 on standby."""
    return begin(release_3_of_many_is_live)[0]


def online_table(table_store: TableStore, side: str) -> OnlineTable:
    return OnlineTable.open(open_workspace_store(table_store), DATASET, AIRCRAFT, side)


def standby_of(table_store: TableStore) -> str:
    return DeploymentState.read(open_workspace_store(table_store), DATASET).standby.side


def write_as_other_client(
    table_store: TableStore, side: str, rows: Sequence[dict[str, object]], delete: Sequence[str] = ()
) -> None:
    """Write and delete as somebody else would, whoever holds the lead."""
    found = online_table(table_store, side)
    full = [{"known_time": row["event_time"], "flights_7d": None, **row} for row in rows]
    types = {"tailnum": pl.String(), "event_time": pl.Datetime("us", "UTC"), **AIRCRAFT.features}
    write = found.stamped(encode(pl.DataFrame(full, schema=types), AIRCRAFT))
    gone = pl.DataFrame({"tailnum": list(delete), "event_time": [NOON] * len(delete)}, schema_overrides=types)
    keys = encode(gone.with_columns(delay_min=pl.lit(None, pl.Float64), flights_7d=pl.lit(None, pl.Int32)), AIRCRAFT)
    found.online.change(found.view, write, keys[KEY], found.online.generation())


# --- what is online ---


def test_the_latest_value_of_each_key_is_online_in_its_own_type(table_store: TableStore) -> None:
    feast = open_workspace_store(table_store)
    keys = [{"origin": origin, "tailnum": "N2", "carrier_id": LARGE_INT} for origin in ("EWR", "JFK", "LGA")]

    answer = feast.get_online_features(
        feast.get_feature_service(DATASET.service), keys, full_feature_names=True
    ).to_dict()

    assert answer["origin_weather__temp_c"] == [2.5, 0.1 + 0.2, None]
    assert answer["origin_weather__gusts"] == [None, LARGE_INT, None]
    assert answer["origin_weather__frozen"] == [False, True, None]
    assert answer["origin_weather__sky"] == ["clear", None, None]
    assert answer["route_traffic__temp_c"] == [7.0, None, None]


AWKWARD: list[dict[str, object]] = [
    {"temp_c": float("nan"), "gusts": LARGE_INT, "humidity": 0.1, "sky": "", "frozen": False},
    {"temp_c": -0.0, "gusts": None, "humidity": float("nan"), "sky": None, "frozen": None},
    {"temp_c": float("-inf"), "gusts": -(2**63), "humidity": 1e-45, "sky": "ä\x00 \U0001f6eb", "frozen": True},
    {"temp_c": None, "gusts": 0, "humidity": None, "sky": "x" * 300, "frozen": None},
]
STAMPS = [NOON, NOON - timedelta(microseconds=1), NOON - timedelta(seconds=1), NOON - timedelta(microseconds=999_999)]


def test_awkward_values_and_stamps_are_online_what_they_are_offline_bit_by_bit(table_store: TableStore) -> None:
    origins = ["A", "B", "C", "D"]
    moments = [{"origin": origin, "event_time": time} for origin, time in zip(origins, STAMPS, strict=True)]
    write_table(table_store, WEATHER, [{**moment, **values} for moment, values in zip(moments, AWKWARD, strict=True)])
    done = publish_release(table_store, feature_workspace.tag_release(table_store, 2))
    feast = open_workspace_store(table_store)
    asked = feature_workspace.weather_requests(origins, [done.as_of] * 4)
    names = [f"origin_weather__{done.slot}:{name}" for name in WEATHER.features]

    answer = feast.get_online_features(names, [{"origin": origin} for origin in origins])

    online, history = answer.to_dict(), feature_workspace.retrieval_job(feast, asked, *names).to_polars()
    assert [history.schema[name] for name in WEATHER.features] == [*WEATHER.features.values()]
    for name in WEATHER.features:
        assert [*map(repr, online[name])] == [*map(repr, history[name].to_list())], name
    times = answer.proto.results[-1].event_timestamps
    assert [time.ToMicroseconds() for time in times] == [round(stamp.timestamp() * 1_000_000) for stamp in STAMPS]


@pytest.mark.parametrize(
    "change", sorted(AIRCRAFT_CHANGES.keys() - {"older than its TTL", "late, and older than what was there"})
)
def test_a_release_goes_online_by_the_difference_and_comes_back_the_same_way(
    table_store: TableStore, change: str
) -> None:
    rows, expected = AIRCRAFT_CHANGES[change]
    write_table(table_store, AIRCRAFT, rows)
    publish_release(table_store, feature_workspace.tag_release(table_store, 2))
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "tailnum": "N7"}])
    publish_release(table_store, feature_workspace.tag_release(table_store, 3))

    again = publish_release(table_store, "little/2")
    assert online_delays(table_store, ["N2", "N3"]) == offline_delays(table_store, ["N2", "N3"], again) == expected
    back = publish_release(table_store, "little/1")
    assert online_delays(table_store, ["N2", "N3"]) == offline_delays(table_store, ["N2", "N3"], back) == [-4.0, 3.0]
    assert online_delays(table_store, ["N7"]) == [None]


def test_what_has_not_changed_is_neither_read_nor_written(large: TableStore) -> None:
    done = publish_release(large, "little/4")

    load = done.loads["aircraft_history"]
    proof = done.verifications[1]
    assert (load.written, load.deleted, load.unchanged) == (1, 0, 0)
    assert (proof.is_complete, proof.changed_keys, proof.key_checksum.count) == (False, 1, 2502)
    assert 1000 <= proof.compared_keys <= 1001
    assert online_delays(large, ["N2"]) == [6.0]


def test_a_value_that_grows_too_old_leaves_although_no_row_of_it_changed(table_store: TableStore) -> None:
    old = {"tailnum": "N8", "event_time": NOON - timedelta(days=6, hours=23), "delay_min": 8.0}
    write_table(table_store, AIRCRAFT, [*AIRCRAFT_ROWS, old])
    publish_release(table_store, feature_workspace.tag_release(table_store, 2))
    publish_release(table_store, "little/1")
    publish_release(table_store, "little/2")
    assert online_delays(table_store, ["N8"]) == [8.0]

    write_table(table_store, WEATHER, [{"origin": "EWR", "event_time": NOON + 6 * HOUR, "temp_c": 1.0}])
    publish_release(table_store, feature_workspace.tag_release(table_store, 3))
    write_table(table_store, WEATHER, [{"origin": "EWR", "event_time": NOON + 7 * HOUR, "temp_c": 2.0}])
    second = publish_release(table_store, feature_workspace.tag_release(table_store, 4))

    assert online_delays(table_store, ["N8"]) == offline_delays(table_store, ["N8"], second) == [None]
    assert second.loads["aircraft_history"].deleted == 1


def test_a_release_on_standby_is_put_back_by_the_switch_alone(table_store: TableStore) -> None:
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[1], "delay_min": 6.0}])
    publish_release(table_store, feature_workspace.tag_release(table_store, 2))
    generation = online_table(table_store, "a").online.generation()

    done = publish_release(table_store, "little/1")

    assert done.switched
    assert {load.written + load.deleted for load in done.loads.values()} == {0}
    assert online_table(table_store, "a").online.generation() == generation
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]


# --- seeded faults: what the proof must catch ---

WRONG_ROW = {**AIRCRAFT_ROWS[0], "delay_min": 50.0}
FAULTS = {
    "late: an older row was left": ([{**AIRCRAFT_ROWS[1], "event_time": NOON - 3 * HOUR, "delay_min": 1.0}], []),
    "corrected: the value of before was left": ([{**AIRCRAFT_ROWS[1], "delay_min": 4.5}], []),
    "deleted: the key is missing": ([], ["N3"]),
    "duplicate: a second key with the same value": ([{**AIRCRAFT_ROWS[1], "tailnum": "n3"}], []),
    "future-stamped: the value is right and its time is not": (
        [{**AIRCRAFT_ROWS[0], "event_time": NOON + 900 * HOUR}],
        [],
    ),
    "half-written: one feature of a key is null": ([{**AIRCRAFT_ROWS[0], "delay_min": None}], []),
    "a delete plus an add": ([{**AIRCRAFT_ROWS[1], "tailnum": "N9"}], ["N3"]),
    "another value": ([WRONG_ROW], []),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_what_is_put_back_refuses_the_switch_and_the_next_publish_repairs_it(
    replaced: TableStore, fault: str
) -> None:
    write, delete = FAULTS[fault]
    write_as_other_client(replaced, "b", write, delete)

    with pytest.raises(
        VerificationFailedError, match=r"aircraft_history__b tailnum=[Nn]\d.* in the online store.*not switched"
    ):
        publish_release(replaced, "little/1")

    assert online_delays(replaced, ["N7"]) == [-4.0]
    done = publish(
        DATASET, replaced, feature_workspace.settings(replaced.root), "little/1", PublishOptions(verify_all=True)
    )
    assert done.switched
    assert online_delays(replaced, ["N2", "N3", "N7"]) == [-4.0, 3.0, None]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_what_is_live_is_found_by_publishing_again_and_repaired(table_store: TableStore, fault: str) -> None:
    write, delete = FAULTS[fault]
    write_as_other_client(table_store, "b", write, delete)

    done = publish_release(table_store, "little/1")

    assert (done.switched, done.slot) == (True, "a")
    assert online_delays(table_store, ["N2", "N3", "N9", "n3"]) == [-4.0, 3.0, None, None]


def test_bytes_of_the_wrong_type_are_caught(replaced: TableStore) -> None:
    found = online_table(replaced, "b")
    rows = found.online.rows(found.view)
    texts = rows.with_columns(delay_min=pl.lit(b"\x12\x03ten"))
    found.online.change(found.view, texts, rows[KEY].clear(), found.online.generation())

    with pytest.raises(VerificationFailedError, match=r"tailnum=N[23]: delay_min is 'ten' in the online store"):
        publish_release(replaced, "little/1")


FOREIGN_WRITES = {
    "a key deleted": ([], ["M01234"], r"tailnum=M01234 is 'missing' in the online store, 'there' offline"),
    "a key added": ([{**MANY[0], "tailnum": "X1"}], [], r"tailnum=X1 is 'there' in the online store"),
    "a delete plus an add": ([{**MANY[0], "tailnum": "X1"}], ["M01234"], r"tailnum=M01234 is 'missing'"),
    "two keys that swapped their places with two others": (
        [{**MANY[0], "tailnum": "X1"}, {**MANY[0], "tailnum": "X2"}],
        ["M00001", "M02499"],
        r"tailnum=M0\d+ is 'missing'",
    ),
}


@pytest.mark.parametrize("fault", FOREIGN_WRITES)
def test_keys_that_no_release_changed_and_somebody_else_did_refuse_the_switch(large: TableStore, fault: str) -> None:
    write, delete, named = FOREIGN_WRITES[fault]
    write_as_other_client(large, standby_of(large), write, delete)

    with pytest.raises(VerificationFailedError, match=rf"{named}.*not switched"):
        publish_release(large, "little/4")

    assert online_delays(large, ["N2"]) == [5.0]
    done = publish(DATASET, large, feature_workspace.settings(large.root), "little/4", PublishOptions(verify_all=True))
    assert (done.switched, online_delays(large, ["N2", "M01234", "X1"])) == (True, [6.0, 1.0, None])


def test_a_key_that_somebody_deleted_and_the_release_writes_anew_is_no_fault(large: TableStore) -> None:
    write_as_other_client(large, standby_of(large), [], ["N2"])

    done = publish_release(large, "little/4")

    assert (done.switched, done.verifications[1].is_complete) == (True, True)
    assert online_delays(large, ["N2"]) == [6.0]


def test_a_value_that_no_release_changed_is_caught_by_comparing_everything(large: TableStore) -> None:
    write_as_other_client(large, standby_of(large), [{**MANY[1234], "delay_min": 2.0}])

    done = publish(DATASET, large, feature_workspace.settings(large.root), "little/4", PublishOptions(verify_all=True))

    assert done.loads["aircraft_history"].written == 2
    assert online_delays(large, ["N2", "M01234"]) == [6.0, 1.0]


# --- who may write ---


def test_a_publisher_that_was_overtaken_writes_nothing_any_more(table_store: TableStore) -> None:
    snapshot = Snapshot.read(DATASET, table_store, "little/1")
    late = Sides.open(snapshot, table_store.root / "feature_repo", feature_workspace.settings(table_store.root))
    attempt = late.attempt()
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}])
    publish_release(table_store, feature_workspace.tag_release(table_store, 2))
    held = online_table(table_store, "b")
    wanted = encode(snapshot.latest[AIRCRAFT.name], AIRCRAFT).with_columns(pl.col(STAMP) + 1_000_000)

    with pytest.raises(PublisherFencedError, match=r"publish \d+ was fenced off .* by the later publish \d+"):
        held.load(wanted, attempt.generation)
    with pytest.raises(PublisherFencedError, match="holds the lead"):
        attempt.switch({}, {})

    late.close()
    assert online_delays(table_store, ["N2"]) == [10.0]


def test_a_registry_that_was_lost_does_not_lock_publishers_out(table_store: TableStore) -> None:
    publish_release(table_store, "little/1")
    for path in (table_store.root / "feast").glob("registry.db*"):
        path.unlink()

    done = publish_release(table_store, "little/1")

    assert done.switched
    assert online_delays(table_store, ["N2"]) == [-4.0]


def test_a_feature_of_another_type_is_written_anew_on_both_sides(table_store: TableStore) -> None:
    whole = replace(AIRCRAFT, features={"delay_min": pl.Int64()})
    changed = replace(DATASET, features=(WEATHER, whole, DATASET.features[2]))
    write_table(table_store, whole, [{**AIRCRAFT_ROWS[0], "delay_min": 7}])
    settings = feature_workspace.settings(table_store.root)

    publish(changed, table_store, settings, how=PublishOptions(allow_breaking_changes=True))
    write_table(table_store, whole, [{**AIRCRAFT_ROWS[0], "delay_min": 8}])
    done = publish(changed, table_store, settings)

    found = OnlineTable.open(open_workspace_store(table_store), DATASET, whole, done.slot)
    assert online_delays(table_store, ["N2"]) == [8]
    assert found.online.rows(found.view).columns == [KEY, STAMP, "delay_min"]


@pytest.mark.parametrize("kind", ["postgres", "redis"], indirect=True)
def test_a_store_that_is_gone_is_named_and_what_was_live_stays(live: tuple[TableStore, OnlineStore]) -> None:
    table_store, store = live
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])
    wrong = {"connection_string": "127.0.0.1:1"} if store.kind == "redis" else {"port": 1}
    OnlineStore(store.kind, {**store.options, **wrong}).configure(table_store.root)

    with pytest.raises(FeatureStoreUnavailableError, match=r"The online store.*publish again"):
        publish_release(table_store)

    store.configure(table_store.root)
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]


@pytest.mark.parametrize("kind", ["postgres", "redis"], indirect=True)
def test_a_store_that_refuses_the_password_is_not_taken_for_one_that_is_gone(
    live: tuple[TableStore, OnlineStore],
) -> None:
    table_store, store = live
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS[:1])
    address = f"{store.options.get('connection_string')},password=wrong"
    wrong = {"connection_string": address} if store.kind == "redis" else {"password": "wrong"}
    OnlineStore(store.kind, {**store.options, **wrong}).configure(table_store.root)

    with pytest.raises(FeatureStoreError, match=r"The online store.*publish again") as refused:
        publish_release(table_store)

    assert not refused.value.is_transient


@pytest.mark.parametrize(("kind", "most"), [("sqlite", 1998), ("postgres", 1598)], indirect=["kind"])
def test_a_table_of_more_features_than_the_store_has_columns_is_refused_before_anything_is_changed(
    table_store: TableStore, most: int
) -> None:
    with pytest.raises(FeatureStoreError, match=rf"wide has {most + 1:,} features.*at most {most:,} per table.*Divide"):
        publish_wide_table(table_store, most + 1)

    feast = open_workspace_store(table_store)
    feast.provider.online_store.update(feast.config, [], [wide_view(most)], [], [], partial=False)
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]


@pytest.mark.parametrize("kind", ["postgres"], indirect=True)
def test_a_row_that_is_larger_than_a_page_of_postgresql_is_refused_with_what_to_do(table_store: TableStore) -> None:
    with pytest.raises(FeatureStoreError, match=r"row is too big.*Divide the feature table") as refused:
        publish_wide_table(table_store, 850)

    assert not refused.value.is_transient
    assert online_delays(table_store, ["N2", "N3"]) == [-4.0, 3.0]


def wide_table(features: int) -> FeatureTable:
    return replace(AIRCRAFT, name="wide", features={f"f{number}": pl.Float64() for number in range(features)})


def wide_view(features: int) -> FeatureView:
    return feature_view(DATASET, wide_table(features), SlotState("a"))


def publish_wide_table(table_store: TableStore, features: int) -> None:
    """Publish a table with one row of as many floats, besides the others."""
    wide = wide_table(features)
    write_table(table_store, wide, [{**AIRCRAFT_ROWS[0], **dict.fromkeys(wide.features, 0.1)}])
    dataset = replace(DATASET, features=(*DATASET.features, wide))
    publish(dataset, table_store, feature_workspace.settings(table_store.root))


def test_points_are_passed_in_the_order_of_the_promise(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[str] = []

    def point(name: str, _half: object = None) -> AbstractContextManager[None]:
        passed.append(name)
        return nullcontext()

    monkeypatch.setattr(failpoints, "failpoint", point)
    write_table(table_store, AIRCRAFT, [{**AIRCRAFT_ROWS[0], "delay_min": 10.0}])

    publish_release(table_store, feature_workspace.tag_release(table_store, 2))

    order = ["claim of the standby", "online values", "tags of the proved side", "switch of the service"]
    assert [passed.index(name) for name in order] == sorted(passed.index(name) for name in order)
