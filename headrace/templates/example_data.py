"""The made-up rentals of the example dataset, one CSV file per day: computed, so that the wheel carries no data."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta

FIRST_DAY = date(2026, 1, 1)
DAYS = 5
STATIONS = ("harbour", "market", "museum")
RENTALS_PER_DAY = 24
CLOCK_FAULT = 59
"""Number of the rental that ends before it begins, so that the example has a rejected row."""


def rental_files() -> dict[str, str]:
    """File name → content."""
    return {f"{FIRST_DAY + timedelta(day)}.csv": "".join(_lines(day)) for day in range(DAYS)}


def _lines(day: int) -> Iterator[str]:
    yield "rental_id,station,started_at,minutes,member\n"
    midnight = datetime.combine(FIRST_DAY + timedelta(day), datetime.min.time())
    for number in range(day * RENTALS_PER_DAY, (day + 1) * RENTALS_PER_DAY):
        minute_of_day = 300 + 47 * (number % RENTALS_PER_DAY) + 7 * number % 31  # from 5:00 on, at uneven distances
        station = STATIONS[number * number % 7 % len(STATIONS)]
        minutes = -4 if number == CLOCK_FAULT else 4 + 11 * number % 53
        started_at = f"{midnight + timedelta(minutes=minute_of_day):%Y-%m-%dT%H:%M:%SZ}"
        yield f"R{number:04},{station},{started_at},{minutes},{'true' if number % 3 else 'false'}\n"
