"""The tables and trips that ingest reads."""

from trips import trips
from weather import postgresql_weather, sqlite_weather, weather, weather_database

__all__ = ["postgresql_weather", "sqlite_weather", "trips", "weather", "weather_database"]
