"""`headrace demo load`: puts the demo's data into a running stack, so that a person can follow it through every page.

The data of `flights` is day by day what the year 2013 had; `digits` gets its first images. Whatever is there already
stays: only objects whose bytes are others, and rows that are missing, are written.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from hashlib import md5
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError
from psycopg import OperationalError

from headrace.cli import logs
from headrace.cli.output import JsonOption, Progress, error_text, progress, result
from headrace.errors import HeadraceError
from infra.demo import digits
from infra.demo.data import FlightYear, csv_object
from infra.demo.errors import DemoError
from infra.demo.seed_sources import AIRPORTS_KEY, SourceSystems, flights_key

FIRST_DAY, DAYS_IN_YEAR = date(2013, 1, 1), 365
IMAGES = 60
REQUIRED = ("AWS_ENDPOINT_URL", "HEADRACE_BUCKET", "HEADRACE_DATABASE_URL")


@dataclass
class Loaded:
    """What a load did.

    Attributes:
        days: First and last day of the flights.
        flights: Number of flights on these days.
        objects: Prefix in the bucket → how many objects are `new`, `replaced` and `unchanged`.
        rows: Table of the database → how many rows are `new`, and how many were there (`unchanged`).
    """

    days: tuple[str, str]
    flights: int = 0
    objects: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)


def load(sources: SourceSystems, days: int, show: Progress) -> Loaded:
    """Put the first `days` days of 2013 and the first images into the sources.

    Raises:
        DemoError: A server does not answer, or refuses.
    """
    wanted = [FIRST_DAY + timedelta(days=number) for number in range(days)]
    loaded = Loaded((str(wanted[0]), str(wanted[-1])))
    try:
        loaded.rows = sources.create_tables()
        uploads = Uploads(sources)
        uploads.put(AIRPORTS_KEY, sources.year.airports())
        for number, day in enumerate(wanted, 1):
            flights = sources.year.flights[day]
            uploads.put(flights_key(day), csv_object(flights))
            loaded.flights += flights.height
            show("flights", number, len(wanted))
        loaded.rows["weather"] = sources.add_weather(wanted)
        images = digits.digit_images()[:IMAGES]
        for number, (key, content) in enumerate(digits.image_objects(images), 1):
            uploads.put(key, content)
            show("digits", number, len(images) + 1)
        loaded.objects = uploads.counts
    except (BotoCoreError, ClientError, OperationalError) as error:
        raise DemoError(
            f"The demo's data could not be loaded: {str(error).splitlines()[0]}. What is loaded stays.\n"
            "Next: `headrace stack status`, then the same command again."
        ) from error
    return loaded


class Uploads:
    """Writes objects whose bytes are not in the bucket yet, and counts.

    Attributes:
        counts: Prefix → outcome → number of objects.
    """

    def __init__(self, sources: SourceSystems) -> None:
        self.sources = sources
        self.counts: dict[str, dict[str, int]] = {}
        self._listed: dict[str, Mapping[str, str]] = {}

    def put(self, key: str, content: bytes) -> None:
        """Write an object unless it has this content."""
        prefix = key.partition("/")[0]
        if prefix not in self._listed:
            self._listed[prefix] = self.sources.etags(f"{prefix}/")
            self.counts[prefix] = {"new": 0, "replaced": 0, "unchanged": 0}
        etag = self._listed[prefix].get(key)
        is_same = etag == md5(content, usedforsecurity=False).hexdigest()
        if not is_same:
            self.sources.put(key, content)
        self.counts[prefix]["unchanged" if is_same else "replaced" if etag else "new"] += 1


def describe(loaded: Loaded, env: Mapping[str, str]) -> list[str]:
    """Lines for people: what was loaded, and what to look at next."""
    first, last = loaded.days
    objects = [f"{prefix}/: {_outcomes(counts)}" for prefix, counts in loaded.objects.items()]
    rows = [f"table {table}: {_outcomes(counts)} rows" for table, counts in loaded.rows.items()]
    airflow = env.get("HEADRACE_AIRFLOW_URL")
    where = f"in Airflow ({airflow}), trigger flights_refresh and digits_refresh" if airflow else "headrace run flights"
    return [
        f"flights of {first} to {last}: {loaded.flights:,}",
        *(f"  {line}" for line in (*objects, *rows)),
        f"Next: {where}. `headrace stack status` shows every page.",
    ]


def _outcomes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items() if count) or "none"


def main(
    *,
    days: Annotated[int, typer.Option(min=1, max=DAYS_IN_YEAR, help="Days of 2013, from 1 January on.")] = 14,
    as_json: JsonOption = False,
) -> None:
    """Put the demo's data into the stack whose settings the environment has."""
    logs.set_up_logging()
    try:
        if missing := [name for name in REQUIRED if not os.environ.get(name)]:
            raise DemoError(f"{', '.join(missing)} not set.\nNext: `headrace demo load` sets what the stack has.")
        with progress() as show:
            loaded = load(SourceSystems.connect(os.environ, FlightYear.installed()), days, show)
    except HeadraceError as error:
        typer.echo(error_text(error, as_json=as_json), err=True)
        raise typer.Exit(error.exit_code) from None
    result(asdict(loaded), describe(loaded, os.environ), as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
