"""The dataset `bikes`: an example with made-up rentals; delete this folder when you have a dataset of your own."""

from headrace import Dataset
from pipelines.bikes.features import station_demand
from pipelines.bikes.sources import rentals

DATASET = Dataset(
    description="Rentals of shared bikes, and the demand at each station.",
    owner="@@{name}",
    sources=(rentals.SOURCE,),
    features=(station_demand.TABLE,),
    service="station_demand",
)
