"""The dataset `flights`: departures from New York's three airports in 2013, as they became known."""

from headrace.dataset import Dataset, Retention
from pipelines.flights.features import aircraft_history, carrier_delays, origin_traffic, origin_weather
from pipelines.flights.labels import delay_cause
from pipelines.flights.sources import airports, flights, planes, weather

DATASET = Dataset(
    description="Departures from EWR, JFK and LGA in 2013, with the weather there and the aircraft that flew.",
    owner="data-platform",
    sources=(flights.SOURCE, airports.SOURCE, weather.SOURCE, planes.SOURCE),
    features=(carrier_delays.TABLE, origin_traffic.TABLE, origin_weather.TABLE, aircraft_history.TABLE),
    labels=(delay_cause.LABELING,),
    service="departure_delay",
    tags={"licence": "CC0", "period": "2013"},
    retention=Retention(keep_last=7, keep_daily=30, keep_weekly=12, keep_monthly=24),
)
