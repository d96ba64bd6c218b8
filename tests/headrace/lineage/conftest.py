"""Two releases to compare, and a database whose rows are looked up."""

from two_releases import two_releases
from weather import sqlite_weather

__all__ = ["sqlite_weather", "two_releases"]
