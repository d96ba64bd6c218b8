"""The job of `transform.py`, hand-written with each library alone, without Headrace.

Days of flights as gzipped CSV → typed rows that meet the contract's main conditions, sorted by key, as Parquet; and the
hourly table of carriers: departures, delays and cancellations known in the last 3 h, 24 h and 7 days. `transform.py`
checks that the results agree.

`polars` and `duckdb` read all days at once and write one file per table; `polars-daily` and `duckdb-daily` read and
write one file per day, and compute each day's features from that day and the nine days before it, as Headrace does.
"""

import sys
from collections.abc import Iterator
from datetime import date, timedelta
from glob import glob
from pathlib import Path
from typing import Any

KEY_COLUMNS = ["scheduled_at", "carrier", "flight", "origin"]
WINDOW_HOURS = {"3h": 3, "24h": 24, "7d": 168}
SUMMED_COLUMNS = ["departed", "late", "delay_min", "cancelled"]
INTEGER_COLUMNS = ["year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "arr_delay", "flight"]
INTEGER_COLUMNS += ["air_time", "distance", "hour", "minute"]
TEXT_COLUMNS = ["carrier", "tailnum", "origin", "dest"]

LOOKBACK_DAYS = 9
"""A window of 7 days, a delay or a day until a cancellation is known, and the hours between New York and UTC."""

FLIGHTS_SQL = """
CREATE OR REPLACE TEMP TABLE typed AS
SELECT *, time_hour + to_minutes(minute) AS scheduled_at, time_hour + to_minutes(minute + dep_delay) AS departed_at
FROM read_csv('{raw}', nullstr='NA', header=true, columns={{
  'year': 'BIGINT', 'month': 'BIGINT', 'day': 'BIGINT', 'dep_time': 'BIGINT', 'sched_dep_time': 'BIGINT',
  'dep_delay': 'BIGINT', 'arr_time': 'BIGINT', 'sched_arr_time': 'BIGINT', 'arr_delay': 'BIGINT',
  'carrier': 'VARCHAR', 'flight': 'BIGINT', 'tailnum': 'VARCHAR', 'origin': 'VARCHAR', 'dest': 'VARCHAR',
  'air_time': 'BIGINT', 'distance': 'BIGINT', 'hour': 'BIGINT', 'minute': 'BIGINT', 'time_hour': 'TIMESTAMPTZ'}});
CREATE OR REPLACE TEMP TABLE good AS
SELECT scheduled_at, carrier, flight, origin, dest, tailnum, departed_at, dep_delay, arr_delay,
  (arr_time // 100 * 60 + arr_time % 100) % 1440 AS arrival_clock_min, air_time, distance,
  dep_time IS NULL AS cancelled
FROM typed
WHERE sched_dep_time = hour * 100 + minute AND (dep_time IS NULL) = (dep_delay IS NULL)
  AND coalesce(dep_delay BETWEEN -120 AND 1439, true) AND distance BETWEEN 1 AND 10000
  AND coalesce(air_time BETWEEN 5 AND 1100, true) AND regexp_full_match(carrier, '[A-Z0-9]{{2}}')
  AND coalesce(regexp_full_match(tailnum, '[A-Z0-9]{{4,7}}'), true) AND regexp_full_match(dest, '[A-Z]{{3}}')
  AND year(time_hour) = year AND month(time_hour) = month AND day(time_hour) = day AND hour(time_hour) = hour
  AND coalesce(hour(departed_at) * 60 + minute(departed_at) = (dep_time // 100 * 60 + dep_time % 100) % 1440, true)
QUALIFY row_number() OVER (PARTITION BY scheduled_at, carrier, flight, origin) = 1;
COPY (SELECT * FROM good ORDER BY scheduled_at, carrier, flight, origin)
  TO '{out}' (FORMAT parquet, COMPRESSION zstd);
"""

CARRIERS_SQL = """
CREATE OR REPLACE TEMP TABLE facts AS
SELECT carrier, departed_at AS known, 1 AS departed, (dep_delay >= 15)::INT AS late, dep_delay AS delay_min,
  0 AS cancelled FROM {flights} WHERE departed_at IS NOT NULL
UNION ALL SELECT carrier, scheduled_at + INTERVAL 24 HOUR, 0, 0, 0, 1 FROM {flights} WHERE cancelled;
CREATE OR REPLACE TEMP TABLE hourly AS
SELECT carrier, date_trunc('hour', known - INTERVAL 1 MICROSECOND) + INTERVAL 1 HOUR AS event_time, sum(departed) AS
  departed, sum(late) AS late, sum(delay_min) AS delay_min, sum(cancelled) AS cancelled, max(known) AS known
FROM facts GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE grid AS
SELECT carrier, event_time FROM (SELECT DISTINCT carrier FROM hourly),
  (SELECT unnest(generate_series((SELECT min(event_time) FROM hourly), TIMESTAMPTZ '{last} 23:00:00+00',
    INTERVAL 1 HOUR)) AS event_time);
COPY (
  SELECT * FROM (
    SELECT carrier, event_time, max(known) OVER w168 AS known_time,
      sum(departed) OVER w3 AS departed_3h, sum(departed) OVER w24 AS departed_24h, sum(departed) OVER w168 AS
      departed_7d, sum(delay_min) OVER w3 / nullif(sum(departed) OVER w3, 0) AS dep_delay_mean_3h_min,
      sum(delay_min) OVER w24 / nullif(sum(departed) OVER w24, 0) AS dep_delay_mean_24h_min,
      sum(delay_min) OVER w168 / nullif(sum(departed) OVER w168, 0) AS dep_delay_mean_7d_min,
      sum(late) OVER w3 / nullif(sum(departed) OVER w3, 0) AS late_share_3h,
      sum(late) OVER w24 / nullif(sum(departed) OVER w24, 0) AS late_share_24h,
      sum(late) OVER w168 / nullif(sum(departed) OVER w168, 0) AS late_share_7d,
      sum(cancelled) OVER w24 / nullif(sum(departed + cancelled) OVER w24, 0) AS cancelled_share_24h,
      sum(cancelled) OVER w168 / nullif(sum(departed + cancelled) OVER w168, 0) AS cancelled_share_7d
    FROM grid LEFT JOIN hourly USING (carrier, event_time)
    WINDOW w3 AS (PARTITION BY carrier ORDER BY event_time ROWS 2 PRECEDING),
      w24 AS (PARTITION BY carrier ORDER BY event_time ROWS 23 PRECEDING),
      w168 AS (PARTITION BY carrier ORDER BY event_time ROWS 167 PRECEDING)
  ) WHERE known_time IS NOT NULL AND event_time >= TIMESTAMPTZ '{first} 00:00:00+00' ORDER BY carrier, event_time
) TO '{out}' (FORMAT parquet, COMPRESSION zstd);
"""


def polars(raw: Path, out: Path, last: str) -> None:
    """One lazy query for the flights, one for the carriers."""
    good = _polars_flights(f"{raw}/*.csv.gz")
    _write_with_polars(good, out / "validated.parquet")
    _write_with_polars(_polars_carriers(good, last), out / "carriers.parquet")


def polars_daily(raw: Path, out: Path, _last: str) -> None:
    """The same two queries for each day."""
    import polars as pl  # noqa: PLC0415

    for day, path, window in _daily(raw, out):
        _write_with_polars(_polars_flights(str(path)), window[-1])
        rows = _polars_carriers(pl.read_parquet(window), str(day))
        start = pl.datetime(day.year, day.month, day.day, time_zone="UTC")
        _write_with_polars(rows.filter(pl.col("event_time") >= start), out / f"carriers/{day}.parquet")


def _daily(raw: Path, out: Path) -> Iterator[tuple[date, Path, list[Path]]]:
    """Each day, its raw file, and the validated files of the days that its features are computed from, its own last."""
    for name in ("validated", "carriers"):
        (out / name).mkdir()
    for path in sorted(raw.glob("*.csv.gz")):
        day = date.fromisoformat(path.name.partition(".")[0])
        names = (day - timedelta(days=back) for back in range(LOOKBACK_DAYS, 0, -1))
        before = (out / f"validated/{name}.parquet" for name in names)
        yield day, path, [*filter(Path.exists, before), out / f"validated/{day}.parquet"]


def _write_with_polars(rows: Any, path: Path) -> None:  # noqa: ANN401
    rows.write_parquet(path, compression="zstd", compression_level=1)


def _polars_flights(raw: str) -> Any:  # noqa: ANN401
    import polars as pl  # noqa: PLC0415

    kinds = {**dict.fromkeys([*INTEGER_COLUMNS, "sched_arr_time"], pl.Int64), **dict.fromkeys(TEXT_COLUMNS, pl.String)}
    hour, clock = pl.col("time_hour"), pl.col("departed_at").dt.convert_time_zone("America/New_York")
    local = hour.dt.convert_time_zone("America/New_York")
    shown = pl.col("dep_time") // 100 * 60 + pl.col("dep_time") % 100
    return (
        pl.scan_csv(raw, null_values="NA", schema_overrides={**kinds, "time_hour": pl.String})
        .with_columns(hour.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC"))
        .with_columns(
            scheduled_at=hour + pl.duration(minutes="minute"),
            departed_at=hour + pl.duration(minutes=pl.col("minute") + pl.col("dep_delay")),
        )
        .filter(
            pl.col("sched_dep_time") == pl.col("hour") * 100 + pl.col("minute"),
            pl.col("dep_time").is_null() == pl.col("dep_delay").is_null(),
            pl.col("dep_delay").is_between(-120, 1439).fill_null(value=True),
            pl.col("distance").is_between(1, 10000),
            pl.col("air_time").is_between(5, 1100).fill_null(value=True),
            pl.col("carrier").str.contains("^[A-Z0-9]{2}$"),
            pl.col("tailnum").str.contains("^[A-Z0-9]{4,7}$").fill_null(value=True),
            pl.col("dest").str.contains("^[A-Z]{3}$"),
            local.dt.year() == pl.col("year"),
            local.dt.month() == pl.col("month"),
            local.dt.day() == pl.col("day"),
            local.dt.hour() == pl.col("hour"),
            (clock.dt.hour().cast(pl.Int64) * 60 + clock.dt.minute() == shown % 1440).fill_null(value=True),
        )
        .select(
            *KEY_COLUMNS, "dest", "tailnum", "departed_at", "dep_delay", "arr_delay", "air_time", "distance",
            arrival_clock_min=(pl.col("arr_time") // 100 * 60 + pl.col("arr_time") % 100) % 1440,
            cancelled=pl.col("dep_time").is_null(),
        )
        .unique(KEY_COLUMNS)
        .sort(KEY_COLUMNS)
        .collect()
    )  # fmt: skip


def _polars_carriers(good: Any, last: str) -> Any:  # noqa: ANN401
    import polars as pl  # noqa: PLC0415

    one, none = pl.lit(1, pl.Int64), pl.lit(0, pl.Int64)
    left = good.lazy().filter(pl.col("departed_at").is_not_null())
    left = left.select("carrier", "dep_delay", known="departed_at", departed=one, cancelled=none)
    never = good.lazy().filter("cancelled")
    never = never.select(
        "carrier", known=pl.col("scheduled_at") + pl.duration(hours=24), dep_delay=none, departed=none, cancelled=one
    )
    facts = pl.concat([left, never], how="diagonal").with_columns(
        late=((pl.col("dep_delay") >= 15) & (pl.col("departed") == 1)).cast(pl.Int64),  # noqa: PLR2004
        delay_min=pl.col("dep_delay"),
        event_time=(pl.col("known") - pl.duration(microseconds=1)).dt.truncate("1h") + pl.duration(hours=1),
    )
    hourly = facts.group_by("carrier", "event_time").agg(pl.col(SUMMED_COLUMNS).sum(), pl.col("known").max()).collect()
    first: Any = hourly["event_time"].min()
    end = pl.Series([f"{last}T23:00:00Z"]).str.to_datetime(time_unit="us", time_zone="UTC")[0]
    times = pl.datetime_range(first, end, "1h", time_unit="us", eager=True).alias("event_time").to_frame()
    grid = hourly.select("carrier").unique().join(times, how="cross").join(hourly, ["carrier", "event_time"], "left")
    grid = grid.sort("carrier", "event_time").with_columns(pl.col(SUMMED_COLUMNS).fill_null(0))
    sums = [
        pl.col(name).rolling_sum(rows, min_samples=1).over("carrier").alias(f"{name}_{period}")
        for period, rows in WINDOW_HOURS.items()
        for name in SUMMED_COLUMNS
    ]
    latest = pl.col("known").dt.epoch("us").rolling_max(168, min_samples=1).over("carrier")
    rows = grid.lazy().with_columns(*sums, known_time=latest.cast(pl.Datetime("us", "UTC")))
    rows = rows.filter(pl.col("known_time").is_not_null())

    def share(part: str, whole: pl.Expr) -> pl.Expr:
        return pl.when(whole > 0).then(pl.col(part) / whole)

    ended = {p: pl.col(f"departed_{p}") + pl.col(f"cancelled_{p}") for p in WINDOW_HOURS}
    return rows.select(
        "carrier",
        "event_time",
        "known_time",
        *(f"departed_{p}" for p in WINDOW_HOURS),
        *(share(f"delay_min_{p}", pl.col(f"departed_{p}")).alias(f"dep_delay_mean_{p}_min") for p in WINDOW_HOURS),
        *(share(f"late_{p}", pl.col(f"departed_{p}")).alias(f"late_share_{p}") for p in WINDOW_HOURS),
        *(share(f"cancelled_{p}", ended[p]).alias(f"cancelled_share_{p}") for p in ("24h", "7d")),
    ).collect()


def duckdb(raw: Path, out: Path, last: str) -> None:
    """One script of SQL."""
    connection = _duckdb_connection(out)
    connection.execute(FLIGHTS_SQL.format(raw=f"{raw}/*.csv.gz", out=out / "validated.parquet"))
    facts = {"flights": "good", "first": "1900-01-01", "last": last}
    connection.execute(CARRIERS_SQL.format(**facts, out=out / "carriers.parquet"))


def duckdb_daily(raw: Path, out: Path, _last: str) -> None:
    """The same script for each day."""
    connection = _duckdb_connection(out)
    for day, path, window in _daily(raw, out):
        connection.execute(FLIGHTS_SQL.format(raw=path, out=window[-1]))
        flights = f"read_parquet({list(map(str, window))})"
        facts = {"flights": flights, "first": day, "last": day}
        connection.execute(CARRIERS_SQL.format(**facts, out=out / f"carriers/{day}.parquet"))


def _duckdb_connection(out: Path) -> Any:  # noqa: ANN401
    import duckdb as library  # noqa: PLC0415

    connection = library.connect(str(out / "scratch.db"))
    connection.execute("SET TimeZone = 'America/New_York'")
    return connection


def pandas(raw: Path, out: Path, last: str) -> None:
    """All days in one frame."""
    import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415

    files = sorted(glob(f"{raw}/*.csv.gz"))  # noqa: PTH207
    good = _clean(pd.concat([_read(pd, path) for path in files], ignore_index=True))
    good = good.drop_duplicates(KEY_COLUMNS).sort_values(KEY_COLUMNS)
    good.to_parquet(out / "validated.parquet", compression="zstd", index=False)
    _carrier_features(_hourly_totals(good), last).to_parquet(out / "carriers.parquet", compression="zstd", index=False)


def dask(raw: Path, out: Path, last: str) -> None:
    """A Dask DataFrame on threads, one partition per day, sorted per day: a global sort would shuffle all rows."""
    import dask.dataframe as dd  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    files = sorted(glob(f"{raw}/*.csv.gz"))  # noqa: PTH207

    def one(path: str) -> Any:  # noqa: ANN401
        return _clean(_read(pd, path)).drop_duplicates(KEY_COLUMNS).sort_values(KEY_COLUMNS)

    good = dd.from_map(one, files).persist(scheduler="threads")
    good.to_parquet(out / "validated", compression="zstd", write_index=False)
    kinds = dict.fromkeys(SUMMED_COLUMNS, "sum") | {"known": "max"}
    parts = good.map_partitions(_hourly_totals, meta=_hourly_totals(one(files[0])).head(0))
    hourly = parts.groupby(["carrier", "event_time"]).agg(kinds).compute(scheduler="threads")
    rows = _carrier_features(hourly.reset_index(), last)
    rows.to_parquet(out / "carriers.parquet", compression="zstd", index=False)


def _read(library: Any, path: str) -> Any:  # noqa: ANN401  pandas has no types here
    kinds = {**dict.fromkeys(INTEGER_COLUMNS, "Int64"), **dict.fromkeys(TEXT_COLUMNS, "string[pyarrow]")}
    return library.read_csv(path, dtype=kinds, parse_dates=["time_hour"], keep_default_na=False, na_values=["NA"])


def _clean(rows: Any) -> Any:  # noqa: ANN401
    import pandas as pd  # noqa: PLC0415

    hour = rows["time_hour"]
    rows["scheduled_at"] = hour + pd.to_timedelta(rows["minute"], "min")
    rows["departed_at"] = hour + pd.to_timedelta(rows["minute"] + rows["dep_delay"], "min")
    local, clock = hour.dt.tz_convert("America/New_York"), rows["departed_at"].dt.tz_convert("America/New_York")
    shown = (rows["dep_time"] // 100 * 60 + rows["dep_time"] % 100) % 1440
    rows["arrival_clock_min"] = (rows["arr_time"] // 100 * 60 + rows["arr_time"] % 100) % 1440
    rows["cancelled"] = rows["dep_time"].isna()
    good = (
        (rows["sched_dep_time"] == rows["hour"] * 100 + rows["minute"])
        & (rows["dep_time"].isna() == rows["dep_delay"].isna())
        & rows["dep_delay"].between(-120, 1439).fillna(value=True)
        & rows["distance"].between(1, 10000)
        & rows["air_time"].between(5, 1100).fillna(value=True)
        & rows["carrier"].str.fullmatch("[A-Z0-9]{2}")
        & rows["tailnum"].str.fullmatch("[A-Z0-9]{4,7}").fillna(value=True)
        & rows["dest"].str.fullmatch("[A-Z]{3}")
        & (local.dt.year == rows["year"])
        & (local.dt.month == rows["month"])
        & (local.dt.day == rows["day"])
        & (local.dt.hour == rows["hour"])
        & ((clock.dt.hour * 60 + clock.dt.minute == shown) | shown.isna())
    )
    kept = [*KEY_COLUMNS, "dest", "tailnum", "departed_at", "dep_delay", "arr_delay", "arrival_clock_min", "air_time"]
    return rows.loc[good.fillna(value=False).astype(bool), [*kept, "distance", "cancelled"]]


def _hourly_totals(good: Any) -> Any:  # noqa: ANN401
    import pandas as pd  # noqa: PLC0415

    left, never = good[good["departed_at"].notna()], good[good["cancelled"]]
    facts = pd.concat([
        pd.DataFrame({
            "carrier": left["carrier"], "known": left["departed_at"], "departed": 1,
            "late": (left["dep_delay"] >= 15).astype("int64"),  # noqa: PLR2004
            "delay_min": left["dep_delay"].astype("int64"), "cancelled": 0,
        }),
        pd.DataFrame({
            "carrier": never["carrier"], "known": never["scheduled_at"] + pd.Timedelta(hours=24), "departed": 0,
            "late": 0, "delay_min": 0, "cancelled": 1,
        }),
    ])  # fmt: skip
    facts["event_time"] = facts["known"].dt.ceil("h")
    kinds = dict.fromkeys(SUMMED_COLUMNS, "sum") | {"known": "max"}
    return facts.groupby(["carrier", "event_time"]).agg(kinds).reset_index()


def _carrier_features(hourly: Any, last: str) -> Any:  # noqa: ANN401
    import pandas as pd  # noqa: PLC0415

    times = pd.date_range(hourly["event_time"].min(), f"{last}T23:00:00Z", freq="h")
    grid = pd.MultiIndex.from_product([sorted(hourly["carrier"].unique()), times], names=["carrier", "event_time"])
    rows = hourly.set_index(["carrier", "event_time"]).reindex(grid)
    rows["known"] = rows["known"].astype("int64").where(rows["known"].notna()).astype("float64")
    rows[SUMMED_COLUMNS] = rows[SUMMED_COLUMNS].fillna(0)
    found = {}
    for period, hours in WINDOW_HOURS.items():
        sums = (
            rows.groupby(level="carrier", sort=False)[SUMMED_COLUMNS].rolling(hours, min_periods=1).sum().droplevel(0)
        )
        found[f"departed_{period}"] = sums["departed"].astype("int64")
        found[f"dep_delay_mean_{period}_min"] = sums["delay_min"] / sums["departed"]
        found[f"late_share_{period}"] = sums["late"] / sums["departed"]
        if hours > 3:  # noqa: PLR2004
            found[f"cancelled_share_{period}"] = sums["cancelled"] / (sums["departed"] + sums["cancelled"])
    known = rows.groupby(level="carrier", sort=False)["known"].rolling(168, min_periods=1).max().droplevel(0)
    found["known_time"] = pd.to_datetime(known, unit="ns", utc=True)
    return pd.DataFrame(found).loc[known.notna()].reset_index()


if __name__ == "__main__":
    function = globals()[sys.argv[1].replace("-", "_")]
    function(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
