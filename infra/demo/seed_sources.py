"""Puts raw data where a pipeline finds it: objects into a bucket, rows into a database, day by day as it happened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import boto3
import polars as pl
import psycopg
from botocore.config import Config
from psycopg import sql

from infra.demo.data import FlightYear, csv_object, with_correction

WEATHER = {
    "origin": "text", "year": "bigint", "month": "bigint", "day": "bigint", "hour": "bigint",
    "temp": "double precision", "dewp": "double precision", "humid": "double precision",
    "wind_dir": "double precision", "wind_speed": "double precision", "wind_gust": "double precision",
    "precip": "double precision", "pressure": "double precision", "visib": "double precision",
    "time_hour": "timestamptz", "updated_at": "timestamptz",
}  # fmt: skip
PLANES = {
    "tailnum": "text", "year": "bigint", "type": "text", "manufacturer": "text", "model": "text",
    "engines": "bigint", "seats": "bigint", "speed": "bigint", "engine": "text", "updated_at": "timestamptz",
}  # fmt: skip


AIRPORTS_KEY = "airports/airports.csv"

RowCounts = dict[str, int]
"""Outcome → number of rows."""


def stack_s3(env: Mapping[str, str]) -> Any:  # noqa: ANN401  a client that boto3 makes
    """The S3 client of a running stack, by its `stack.env`."""
    return boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_DEFAULT_REGION"],
        config=Config(request_checksum_calculation="when_required", response_checksum_validation="when_required"),
    )


@dataclass(frozen=True)
class SourceSystems:
    """The bucket and the database in which the raw data of `flights` is."""

    year: FlightYear
    bucket: str
    s3: Any
    database: str

    @classmethod
    def connect(cls, env: Mapping[str, str], year: FlightYear) -> "SourceSystems":
        """Those of a running stack, by its `stack.env`."""
        return cls(year, env["HEADRACE_BUCKET"], stack_s3(env), env["HEADRACE_DATABASE_URL"].replace("+psycopg", "", 1))

    def create(self) -> dict[str, RowCounts]:
        """What exists before the first flight: airports, aircraft, an empty table of weather; what was inserted."""
        self.put(AIRPORTS_KEY, self.year.airports())
        return self.create_tables()

    def create_tables(self) -> dict[str, RowCounts]:
        """The tables, with the aircraft; what was inserted."""
        with psycopg.connect(self.database) as connection:
            create_table(connection, "weather", WEATHER, ("origin", "time_hour"))
            create_table(connection, "planes", PLANES, ("tailnum",))
            return {"planes": _insert_rows(connection, "planes", PLANES, self.year.planes)}

    def add_days(self, days: Sequence[date]) -> int:
        """Add flights and weather of `days`; the number of flights."""
        for day in days:
            self.put(flights_key(day), csv_object(self.year.flights[day]))
        self.add_weather(days)
        return sum(self.year.flights[day].height for day in days)

    def add_weather(self, days: Sequence[date]) -> RowCounts:
        """Add the weather of `days`; what was inserted."""
        with psycopg.connect(self.database) as connection:
            return _insert_rows(connection, "weather", WEATHER, self.year.weather_on(days))

    def correct_day(self, day: date) -> None:
        """Replace the object of a day by a late correction."""
        self.put(flights_key(day), csv_object(with_correction(self.year.flights[day])))

    def delete_day(self, day: date) -> None:
        """Delete the object of a day."""
        self.s3.delete_object(Bucket=self.bucket, Key=flights_key(day))

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)

    def etags(self, prefix: str) -> dict[str, str]:
        """Key → ETag, which is the md5 here, of the objects below a prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return {item["Key"]: item["ETag"].strip('"') for page in pages for item in page.get("Contents", ())}


def flights_key(day: date) -> str:
    """Key of the object with the flights of a day."""
    return f"flights/{day:%Y-%m-%d}.csv.gz"


def create_table(
    connection: "psycopg.Connection[Any]", table: str, columns: Mapping[str, str], key: Sequence[str]
) -> None:
    """Create a table unless it exists."""
    declared = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()]
    names = sql.SQL(", ").join(map(sql.Identifier, key))
    content = sql.SQL(", ").join([*declared, sql.SQL("PRIMARY KEY ({})").format(names)])
    connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(sql.Identifier(table), content))


def _insert_rows(
    connection: "psycopg.Connection[Any]",
    table: str,
    columns: Mapping[str, str],
    rows: pl.DataFrame,
) -> RowCounts:
    """Insert the rows whose keys do not exist yet; how many were `new` and how many `unchanged`."""
    values = sql.SQL(", ").join(
        sql.SQL("{}::{}").format(sql.Placeholder(name), sql.SQL(kind)) for name, kind in columns.items()
    )
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        sql.Identifier(table), names, values
    )
    with connection.cursor() as cursor:
        cursor.executemany(statement, rows.to_dicts())
        return {"new": cursor.rowcount, "unchanged": rows.height - cursor.rowcount}
