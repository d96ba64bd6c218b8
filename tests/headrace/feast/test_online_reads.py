"""Our online stores answer by a way of their own, and promise that nobody can tell: the answer is Feast's, bit by bit.

Real servers. Every request is answered twice from the same store, by our way and by Feast's own, and what came of it is
compared: every byte of the response and what Python code makes of it, or the error.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import feature_workspace
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import psycopg
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, ValueType, metrics
from feast.errors import VersionedOnlineReadNotSupported
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.online_store import OnlineStore as FeastsOnlineStore
from feast.on_demand_feature_view import on_demand_feature_view
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.types import Float64
from feature_workspace import (
    AIRCRAFT,
    AIRCRAFT_ROWS,
    HOUR,
    LARGE_INT,
    NOON,
    WEATHER,
    open_workspace_store,
    publish_release,
    write_all_tables,
    write_table,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from online_stores import STORE_TYPES, OnlineStore, new_store, redis_port

from headrace.feast.data_source import FeatureTableSource
from headrace.feast.online_stores.response_builder import FastOnlineResponse
from headrace.storage.table_store import TableStore

__all__ = ["new_store", "redis_port"]

pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental:RuntimeWarning")

LITTLE, ROLES, DEMAND, NOBODY, PREPARED, NAMED = (
    "little_service",
    "roles",
    "on_demand",
    "of_nobody",
    "prepared",
    "named",
)
"""Published; a view in two roles; with an on-demand view; with a view of no entity; with vectors that nobody made; with
a view of an entity that is called otherwise than its key."""

KEYS: dict[str, list[Any]] = {
    "origin": ["EWR", "nowhere", "JFK", "EWR"],
    "tailnum": ["N2", "N3", "ä\x00 \U0001f6eb", "N2"],
    "carrier_id": [LARGE_INT, 0, -1, LARGE_INT],
    "to": ["JFK", "EWR", "JFK", "EWR"],
}
AWKWARD: list[dict[str, Any]] = [
    {"origin": "EWR", "event_time": NOON, "temp_c": float("nan"), "gusts": LARGE_INT, "humidity": 0.1, "sky": ""},
    {"origin": "JFK", "event_time": NOON - HOUR / 7, "temp_c": -0.0, "gusts": -(2**63), "sky": "ä\x00" * 300},
    {"origin": "LGA", "event_time": NOON - HOUR, "humidity": float("-inf"), "sky": "x" * 127, "frozen": True},
]


@dataclass(frozen=True)
class Request:
    """What `get_online_features` is given; features are the name of a service, or references."""

    features: str | tuple[str, ...]
    keys: Any
    full_names: bool = True
    versions: bool = False


@dataclass(frozen=True)
class Reads:
    """A store that was published to, and the ways to read it."""

    feast: FeatureStore
    loop: asyncio.AbstractEventLoop

    def ours(self, request: Request) -> OnlineResponse:
        """As serving code asks."""
        features = self._features(request)
        return self.feast.get_online_features(features, request.keys, request.full_names, request.versions)

    def feasts(self, request: Request) -> OnlineResponse:
        """Past our way."""
        return FeastsOnlineStore.get_online_features(self.feast.provider.online_store, *self._given(request))

    def ours_async(self, request: Request) -> OnlineResponse:
        """As `feast serve` asks."""
        features = self._features(request)
        asked = self.feast.get_online_features_async(features, request.keys, request.full_names, request.versions)
        return self.loop.run_until_complete(asked)

    def feasts_async(self, request: Request) -> OnlineResponse:
        """Past our way."""
        online = self.feast.provider.online_store
        return self.loop.run_until_complete(FeastsOnlineStore.get_online_features_async(online, *self._given(request)))

    def _given(self, request: Request) -> tuple[Any, ...]:
        feast, features = self.feast, self._features(request)
        known = feast.registry, feast.project
        return feast.config, features, request.keys, *known, request.full_names, request.versions

    def _features(self, request: Request) -> FeatureService | list[str]:
        if isinstance(request.features, str):
            return self.feast.get_feature_service(request.features, allow_cache=True)
        return list(request.features)


@pytest.fixture(params=STORE_TYPES)
def reads(request: pytest.FixtureRequest, new_store: Callable[[str], OnlineStore], tmp_path: Path) -> Iterator[Reads]:
    """Awkward values are live, one feature of one key is missing, and there are services of many kinds."""
    table_store = feature_workspace.create_workspace(tmp_path / "workspace")
    store = new_store(request.param)
    store.configure(table_store.root)
    write_all_tables(table_store)
    write_table(table_store, AIRCRAFT, AIRCRAFT_ROWS)
    write_table(table_store, WEATHER, AWKWARD)
    assert publish_release(table_store).slot == "b"
    feast = open_workspace_store(table_store)
    delete_value(feast, store, table_store)
    weather, delays = (feast.get_feature_view(f"{table.name}__b") for table in (WEATHER, AIRCRAFT))
    nobodys = FeatureView(
        name="nobodys",
        entities=[],
        schema=[Field(name="size", dtype=Float64)],
        source=FeatureTableSource(name="nobodys", table="features/little/nobodys"),
    )
    plane = Entity(name="plane", join_keys=["tailnum"], value_type=ValueType.STRING)
    schema = [Field(name="seats", dtype=Float64)]
    source = FeatureTableSource(name="planes", table="features/little/planes")
    planes = FeatureView(name="planes", entities=[plane], schema=schema, source=source)
    feast.apply([nobodys, plane, planes, felt_temperature(weather)])
    roles = [weather.with_name("departure"), weather.with_name("arrival").with_join_key_map({"origin": "to"})]
    on_demand = feast.get_on_demand_feature_view("felt")
    feast.apply(
        [
            FeatureService(name=ROLES, features=[*roles, delays]),
            FeatureService(name=DEMAND, features=[delays[["delay_min"]], on_demand]),
            FeatureService(name=NOBODY, features=[nobodys, delays]),
            FeatureService(name=NAMED, features=[planes]),
            FeatureService(name=PREPARED, features=[delays], precompute_online=True),
        ]
    )
    feast.refresh_registry()
    with closing(asyncio.new_event_loop()) as loop:
        yield Reads(feast, loop)
        client: Any = getattr(feast.provider.online_store, "_client_async", None)
        if client is not None:
            loop.run_until_complete(client.aclose())
    feature_workspace.close_all()


def felt_temperature(weather: FeatureView) -> Any:  # noqa: ANN401  Feast's decorator
    """An on-demand view over the weather."""

    def twice(weather: pd.DataFrame) -> pd.DataFrame:
        return (weather[["temp_c"]] * 2).rename(columns={"temp_c": "felt_c"})

    schema = [Field(name="felt_c", dtype=Float64)]
    return on_demand_feature_view(name="felt", sources=[weather], schema=schema)(twice)


def delete_value(feast: FeatureStore, store: OnlineStore, table_store: TableStore) -> None:
    """Leave one value out, as where a feature is new and its values are not there yet; with the store's own client."""
    key = serialize_entity_key(EntityKey(join_keys=["tailnum"], entity_values=[Value(string_val="N3")]), 3)
    if store.kind == "redis":
        client: Any = getattr(feast.provider.online_store, "_get_client")(feast.config.online_store)  # noqa: B009
        assert client.hdel(key + feast.project.encode(), _mmh3("aircraft_history__b:flights_7d")) == 1
        return
    table = f'"{feast.project}_aircraft_history__b"'
    update = f"UPDATE {table} SET flights_7d = NULL WHERE entity_key = "  # noqa: S608
    if store.kind == "sqlite":
        feature_workspace.execute_on_sqlite(table_store, f"{update} X'{key.hex()}'")
        return
    where = {"dbname" if name == "database" else name: value for name, value in store.options.items()}
    with psycopg.connect(**where, autocommit=True) as connection:
        assert connection.execute(f"{update} decode('{key.hex()}', 'hex')").rowcount == 1


def outcome(way: Callable[[Request], OnlineResponse], request: Request) -> object:
    """All that a caller can see of an answer, or of an error."""
    try:
        answer = way(request)
        plain = [repr(answer.to_dict(timed)) for timed in (False, True)]
        made = answer.proto.SerializeToString(deterministic=True)
        return made, plain, answer._feature_types, repr(answer.to_df()), repr(answer.to_arrow())  # noqa: SLF001
    except Exception as error:  # noqa: BLE001  any that Feast raises
        return type(error), str(error)


# --- any request ---

SERVICES = {
    LITTLE: ["origin", "tailnum", "carrier_id"],
    ROLES: ["origin", "to", "tailnum"],
    DEMAND: ["origin", "tailnum"],
    NOBODY: ["tailnum"],
    PREPARED: ["tailnum"],
    NAMED: ["plane", "tailnum"],
}
"""Service → the columns that it needs."""

REFERENCES = [
    *("origin_weather__b:temp_c", "origin_weather__b:sky", "origin_weather__a:gusts", "route_traffic__b:temp_c"),
    *("origin_weather__b:humidity", "origin_weather__b:frozen", "origin_weather__b:gusts", "felt:felt_c"),
    *("nobodys:size", "nowhere:temp_c", "origin_weather__b:nothing", "origin_weather__b@v1:sky", "no reference"),
]
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "origin": st.sampled_from(["EWR", "JFK", "LGA", "nowhere", "ä\x00 \U0001f6eb", "5"]),
    "tailnum": st.sampled_from(["N2", "N3", "N9"]),
    "carrier_id": st.sampled_from([LARGE_INT, 0, 1, -1, 2**63 - 1, -(2**63)]),
    "to": st.sampled_from(["EWR", "nowhere"]),
    "plane": st.sampled_from(["N2", "N3"]),
    "unknown": st.just(1),
}
UNUSUAL: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(
            "",
            None,
            5,
            "5",
            "N2",
            1.0,
            True,
            2**63,
            -(2**70),
            b"EWR",
            float("nan"),
            np.int64(LARGE_INT),
            np.str_("EWR"),
        ),
        *(["EWR"], {}, "\ud800", Value(string_val="EWR"), Value(int64_val=LARGE_INT), Value()),
    ]
)
SELDOM = st.integers(0, 7).map(lambda drawn: drawn == 5)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Mostly what serving code asks; sometimes a value, a row, a column or the whole is not as it should be."""
    features: Any = draw(st.sampled_from([LITTLE, ROLES, ()] * 3 + [*SERVICES]))
    names: list[str] = SERVICES.get(features, ["origin", "carrier_id"])
    if not features:
        some = REFERENCES if draw(SELDOM) else REFERENCES[:3]
        features = tuple(draw(st.lists(st.sampled_from(some), max_size=5, unique=not draw(SELDOM))))
    if draw(SELDOM):
        names = draw(st.lists(st.sampled_from([*USUAL]), max_size=5, unique=True))
    keys = draw(forms(draw(st.permutations(names)), draw(st.integers(0 if draw(SELDOM) else 1, 6))))
    return Request(features, keys, not draw(SELDOM), draw(SELDOM))


@st.composite
def forms(draw: st.DrawFn, names: list[Any], count: int) -> Any:  # noqa: ANN401
    """So many keys as rows, or as columns."""
    columns = {name: draw(st.lists(USUAL[name], min_size=count, max_size=count)) for name in names}
    if count > 0 and len(names) > 0 and draw(SELDOM):
        columns[draw(st.sampled_from(names))][draw(st.integers(0, count - 1))] = draw(UNUSUAL)
    rows: list[Any] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if len(rows) > 0 and draw(SELDOM):
        first, *others = rows[-1].items()
        rows[-1] = draw(st.sampled_from([{**rows[-1], "more": 1}, dict(others), {}, 5, None, dict([*others, first])]))
    if draw(SELDOM):
        values = [Value(string_val="EWR")] * count
        odd = [["EWR"], "EWR", ("EWR",) * count, values, RepeatedValue(val=values), np.array(["EWR"] * count), None]
        return draw(st.sampled_from([*({**columns, "origin": one} for one in odd), tuple(rows), None]))
    return draw(st.sampled_from([rows, columns]))


@pytest.mark.slow
def test_any_request_is_answered_or_refused_as_feasts_own_way_does(reads: Reads) -> None:
    direct = 0

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(requests())
    def same(request: Request) -> None:
        nonlocal direct
        answered = outcome(reads.ours, request)
        assert answered == outcome(reads.feasts, request)
        assert outcome(reads.ours_async, request) == outcome(reads.feasts_async, request)
        direct += not isinstance(answered[0], type) and isinstance(reads.ours(request), FastOnlineResponse)  # type: ignore[index]

    same()
    assert direct > 40, "hardly a request was answered our way"


# --- requests as serving code makes them ---


@pytest.mark.slow
@pytest.mark.parametrize("service", [LITTLE, ROLES])
@pytest.mark.parametrize("rows", [True, False])
def test_requests_as_serving_code_makes_them_are_answered_our_way(reads: Reads, service: str, rows: bool) -> None:
    columns = {name: KEYS[name] for name in SERVICES[service]}
    some = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    request = Request(service, some if rows else columns)

    answer = reads.ours(request)

    assert isinstance(answer, FastOnlineResponse)
    assert outcome(reads.ours, request) == outcome(reads.feasts, request)


def test_a_thousand_keys_of_every_size_are_answered_as_feasts_own_way_does(reads: Reads) -> None:
    tailnums = ["N" * (1 + number * 7 % 400) + str(number % 10) for number in range(1000)]
    request = Request(("aircraft_history__b:delay_min",), {"tailnum": [*tailnums, "N2"]})

    answer = reads.ours(request)

    assert isinstance(answer, FastOnlineResponse)
    assert answer.to_dict()["aircraft_history__b__delay_min"][-1] == -4.0
    assert outcome(reads.ours, request) == outcome(reads.feasts, request)


def test_a_version_of_a_view_is_refused_as_feast_refuses_it(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads.feast.registry, "enable_online_versioning", True)
    request = Request(("aircraft_history__b@v0:delay_min",), {"tailnum": ["N2"]})

    with pytest.raises(VersionedOnlineReadNotSupported):
        reads.ours(request)
    assert outcome(reads.ours, request) == outcome(reads.feasts, request)


def test_a_server_that_counts_what_it_reads_still_counts(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int, int]] = []
    monkeypatch.setattr(metrics, "_config", metrics._MetricsFlags(enabled=True, online_features=True))  # noqa: SLF001
    monkeypatch.setattr(metrics, "track_feature_statuses", lambda *told: seen.append(told))

    request = Request(("aircraft_history__b:delay_min",), {"tailnum": ["N2", "nobody"]})

    reads.ours(request)

    ours = [seen.pop() for _ in range(len(seen))]
    reads.feasts(request)
    assert ours == seen != []
