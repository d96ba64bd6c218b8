"""Puts the data where a pipeline would find it: objects in a bucket, rows in a database, day by day as it happened."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import boto3
import psycopg
from botocore.config import Config
from psycopg import sql

from infra.demo.data import Year

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


@dataclass(frozen=True)
class Sources:
    """The two systems that the raw data of `flights` lives in."""

    year: Year
    bucket: str
    storage: Any
    database: str

    @classmethod
    def of(cls, env: Mapping[str, str], year: Year) -> "Sources":
        """Those of a running stack, by its `stack.env`."""
        storage = boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
            config=Config(request_checksum_calculation="when_required", response_checksum_validation="when_required"),
        )
        return cls(year, env["HEADRACE_BUCKET"], storage, env["HEADRACE_DATABASE_URL"].replace("+psycopg", "", 1))

    def open(self) -> None:
        """What was there before the first flight: airports, aircraft, an empty table of weather."""
        self._put("airports/airports.csv", self.year.airports())
        with psycopg.connect(self.database) as connection:
            _create(connection, "weather", WEATHER, ("origin", "time_hour"))
            _create(connection, "planes", PLANES, ("tailnum",))
            _insert(connection, "planes", PLANES, self.year.planes())

    def arrive(self, days: Sequence[date]) -> int:
        """The flights and the weather of `days`; how many flights."""
        found = {day: self.year.day(day) for day in days}
        for day, flights in found.items():
            self._put(key_of(day), flights.to_bytes())
        with psycopg.connect(self.database) as connection:
            _insert(connection, "weather", WEATHER, self.year.weather(frozenset(days)))
        return sum(len(flights.rows) for flights in found.values())

    def correct(self, day: date) -> None:
        """A late correction: the object of that day is replaced."""
        self._put(key_of(day), self.year.day(day).corrected().to_bytes())

    def delete(self, day: date) -> None:
        """The object of that day is taken back."""
        self.storage.delete_object(Bucket=self.bucket, Key=key_of(day))

    def _put(self, key: str, content: bytes) -> None:
        self.storage.put_object(Bucket=self.bucket, Key=key, Body=content)


def key_of(day: date) -> str:
    """Where the flights of a day lie."""
    return f"flights/{day:%Y-%m-%d}.csv.gz"


def _create(connection: "psycopg.Connection[Any]", table: str, columns: Mapping[str, str], key: Sequence[str]) -> None:
    declared = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()]
    names = sql.SQL(", ").join(map(sql.Identifier, key))
    content = sql.SQL(", ").join([*declared, sql.SQL("PRIMARY KEY ({})").format(names)])
    connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(sql.Identifier(table), content))


def _insert(
    connection: "psycopg.Connection[Any]",
    table: str,
    columns: Mapping[str, str],
    rows: Iterable[Mapping[str, str | None]],
) -> None:
    """Add what is not there yet."""
    values = sql.SQL(", ").join(
        sql.SQL("{}::{}").format(sql.Placeholder(name), sql.SQL(kind)) for name, kind in columns.items()
    )
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        sql.Identifier(table), names, values
    )
    with connection.cursor() as cursor:
        cursor.executemany(statement, list(rows))
