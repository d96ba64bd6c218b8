"""The dataset `flights`: departures from New York's three airports in 2013, as they became known."""

from pipelines.dataset import Dataset
from pipelines.datasets.flights.features import (
    aircraft_history,
    carrier_delays,
    origin_traffic,
    origin_weather,
)
from pipelines.datasets.flights.labels import delay_cause
from pipelines.datasets.flights.sources import airports, flights, planes, weather

DATASET = Dataset(
    name="flights",
    description="Departures from EWR, JFK and LGA in 2013, with the weather there and the aircraft that flew.",
    owner="data-platform",
    sources=(flights.SOURCE, airports.SOURCE, weather.SOURCE, planes.SOURCE),
    features=(carrier_delays.TABLE, origin_traffic.TABLE, origin_weather.TABLE, aircraft_history.TABLE),
    labels=(delay_cause.LABELING,),
    service="departure_delay",
    tags={"licence": "CC0", "period": "2013"},
)
