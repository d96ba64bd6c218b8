"""The oracle of the feature tables of `flights`: plain loops over the flights, slow and easy to check."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import real_flights
from real_flights import validate_partition

from headrace.dataset import UNPARTITIONED
from headrace.project.loading import load_dataset

LATE_MIN = 15
TABLES = {table.name: table.with_params({"late_min": LATE_MIN}) for table in load_dataset("flights").features}
HOUR = timedelta(hours=1)
PERIODS = {"3h": 3 * HOUR, "24h": 24 * HOUR, "7d": timedelta(days=7)}
Row = dict[str, Any]


def lookback_flights(name: str, day: str) -> pl.DataFrame:
    """The flights that a feature table reads for a day."""
    return real_flights.validated_rows(
        "flights", day, real_flights.lookback_days(TABLES[name].inputs["flights"])
    ).collect()


def hours_in_day(day: str) -> list[datetime]:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return [start + hour * HOUR for hour in range(24)]


def mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def departures_by_known_time(flights: Iterable[Row], key: str) -> dict[str, list[tuple[datetime, int | None]]]:
    """Key → (known time, delay) of each departure, and (known time, None) of each cancellation."""
    facts: dict[str, list[tuple[datetime, int | None]]] = defaultdict(list)
    for flight in flights:
        if flight["cancelled"]:
            facts[flight[key]].append((flight["scheduled_at"] + 24 * HOUR, None))
        else:
            facts[flight[key]].append((flight["departed_at"], flight["dep_delay_min"]))
    return facts


def expected_carrier_delays(day: str) -> list[Row]:
    """By loops: what was known of each carrier at each hour."""
    facts = departures_by_known_time(lookback_flights("carrier_delays", day).rows(named=True), "carrier")
    rows = []
    for carrier, known in facts.items():
        for hour in hours_in_day(day):
            within = {p: [f for f in known if hour - period < f[0] <= hour] for p, period in PERIODS.items()}
            if not within["7d"]:
                continue
            row: Row = {"carrier": carrier, "event_time": hour, "known_time": max(time for time, _ in within["7d"])}
            for period, seen in within.items():
                delays = [delay for _, delay in seen if delay is not None]
                row[f"departed_{period}"] = len(delays)
                row[f"dep_delay_mean_{period}_min"] = mean(delays)
                row[f"late_share_{period}"] = share(sum(delay >= LATE_MIN for delay in delays), len(delays))
                row[f"cancelled_share_{period}"] = share(len(seen) - len(delays), len(seen))
            rows.append(row)
    return rows


def expected_origin_traffic(day: str) -> list[Row]:
    """By loops: what was known of each airport at each hour."""
    flights = lookback_flights("origin_traffic", day).rows(named=True)
    rows = []
    for origin, known in departures_by_known_time(flights, "origin").items():
        here = [flight for flight in flights if flight["origin"] == origin]
        for hour in hours_in_day(day):
            row: Row = {"origin": origin, "event_time": hour}
            for period in ("3h", "24h"):
                start = hour - PERIODS[period]
                times = [time for time, _ in known if start < time <= hour]
                delays = [delay for time, delay in known if start < time <= hour and delay is not None]
                scheduled = [f["scheduled_at"] for f in here if start < f["scheduled_at"] <= hour]
                row |= {
                    f"scheduled_{period}": len(scheduled),
                    f"departed_{period}": len(delays),
                    f"dep_delay_mean_{period}_min": mean(delays),
                    f"late_share_{period}": share(sum(delay >= LATE_MIN for delay in delays), len(delays)),
                    f"cancelled_{period}": len(times) - len(delays),
                    "known_time": max([*times, *scheduled], default=None),
                }
            gone = [(f["scheduled_at"], f["departed_at"] or f["scheduled_at"] + 24 * HOUR) for f in here]
            row["waiting"] = sum(due <= hour < left for due, left in gone)
            if row["known_time"]:
                rows.append(row)
    return rows


def expected_origin_weather(day: str) -> list[Row]:
    """By loops: the weather of each hour that was observed."""
    observed = real_flights.validated_rows("weather", day, 1).collect().rows(named=True)
    rows = []
    for now in observed:
        if f"{now['time_hour']:%Y-%m-%d}" != day:
            continue
        row: Row = {name: now[name] for name in now if name not in {"time_hour", "updated_at"}}
        row["event_time"] = now["time_hour"]
        for period in ("3h", "24h"):
            start = now["time_hour"] - PERIODS[period]
            seen = [w for w in observed if w["origin"] == now["origin"] and start < w["time_hour"] <= now["time_hour"]]
            hundredths = sum(round(w["precipitation_in"] * 100) for w in seen)
            row[f"precipitation_sum_{period}_in"] = hundredths * 100 / 10_000
            row[f"visibility_min_{period}_miles"] = min(w["visibility_miles"] for w in seen)
            row[f"wind_speed_max_{period}_mph"] = max(
                (w["wind_speed_mph"] for w in seen if w["wind_speed_mph"] is not None), default=None
            )
            row[f"observed_{period}"] = len(seen)
            row["known_time"] = max(max(w["time_hour"], w["updated_at"]) for w in seen)
        rows.append(row)
    return rows


def arrival_known_time(flight: Row, zones: Mapping[str, str | None]) -> datetime:
    """When the destination's clock first showed the arrival, or the latest it can have been."""
    zone = zones.get(flight["dest"])
    latest: datetime = flight["departed_at"] + timedelta(minutes=flight["air_time_min"] + 300)
    if zone is None:
        return latest
    landed: datetime = flight["departed_at"] + timedelta(minutes=flight["air_time_min"])
    for minutes in range(301):
        moment = landed + timedelta(minutes=minutes)
        local = moment.astimezone(ZoneInfo(zone))
        if local.hour * 60 + local.minute == flight["arrival_clock_min"]:
            return moment
    return latest


def entry_known_by(entries: Iterable[Row], now: datetime) -> Row:
    """What the register had of an aircraft at a time: the latest of the entries that had been made; or nothing."""
    known: Row = {}
    for entry in entries:
        if entry["updated_at"] <= now and (not known or entry["updated_at"] > known["updated_at"]):
            known = entry
    return known


def noon(day: str) -> datetime:
    """The middle of New York's day, roughly: as many flights before as after."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC) + 16 * HOUR


def changing_register(moment: datetime) -> pl.DataFrame:
    """The register with entries before, at and after a moment: of some aircraft two, of others only a later one."""
    planes = []
    for number, entry in enumerate(
        validate_partition("planes", UNPARTITIONED).accepted.sort("tailnum").rows(named=True)
    ):
        match number % 4:
            case 0:
                planes.append(entry)
            case 1:
                planes.append({**entry, "updated_at": moment})
            case 2:
                planes.append({**entry, "updated_at": moment + 2 * HOUR})
            case _:
                planes += [{**entry, "seats": entry["seats"] + 1, "updated_at": moment + HOUR}, entry]
    return pl.DataFrame(planes, schema=validate_partition("planes", UNPARTITIONED).accepted.schema)


def expected_aircraft_history(day: str) -> list[Row]:
    """By loops: what was known of each aircraft each time it left or arrived, with a register that changes at noon."""
    zones = dict(validate_partition("airports", UNPARTITIONED).accepted.select("airport", "zone").iter_rows())
    entries: dict[str, list[Row]] = defaultdict(list)
    for entry in changing_register(noon(day)).rows(named=True):
        entries[entry["tailnum"]].append(entry)
    left: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    arrived: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for flight in lookback_flights("aircraft_history", day).rows(named=True):
        if flight["tailnum"] and not flight["cancelled"]:
            left[flight["tailnum"]].append((flight["departed_at"], flight["dep_delay_min"]))
            if flight["arr_delay_min"] is not None:
                arrived[flight["tailnum"]].append((arrival_known_time(flight, zones), flight["arr_delay_min"]))
    rows = []
    for tailnum, departures in left.items():
        for now in sorted({time for time, _ in (*departures, *arrived[tailnum]) if f"{time:%Y-%m-%d}" == day}):
            plane = entry_known_by(entries[tailnum], now)
            row: Row = {"tailnum": tailnum, "event_time": now, "known_time": now}
            row |= {name: plane.get(name) for name in ("built_year", "seats", "engines", "manufacturer", "engine")}
            for word, short, facts in (("departed", "dep", departures), ("arrived", "arr", arrived[tailnum])):
                for period in ("24h", "7d"):
                    seen = sorted(fact for fact in facts if now - PERIODS[period] < fact[0] <= now)
                    row[f"{word}_{period}"] = len(seen)
                    row[f"{short}_delay_mean_{period}_min"] = mean([delay for _, delay in seen])
                    row[f"last_{short}_delay_min"] = seen[-1][1] if seen else None
            rows.append(row)
    return rows


EXPECTED: dict[str, Callable[[str], list[Row]]] = {
    "carrier_delays": expected_carrier_delays,
    "origin_traffic": expected_origin_traffic,
    "origin_weather": expected_origin_weather,
    "aircraft_history": expected_aircraft_history,
}
