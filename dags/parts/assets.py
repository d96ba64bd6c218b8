"""What the DAGs tell each other about, and a person sees in the UI with its facts."""

from airflow.sdk import Asset

FLIGHTS_RELEASE = Asset("flights_release", uri="headrace://flights/release", group="flights")
"""A version of all tables of `flights`. Its events carry the release, and per table what changed.

An event says "look", no more: a run that finds the same release has nothing to do, and one event that is lost or late
is made good by the next.
"""

FLIGHTS_ONLINE = Asset("flights_online", uri="headrace://flights/online", group="flights")
"""The release that the online store answers from."""

FLIGHTS_MODEL = Asset("flights_model", uri="headrace://flights/model", group="flights")
"""The baseline model; its events carry the metrics."""
