"""Trains the model of flights on every release. Airflow loads this file."""

from pathlib import Path

from headrace.airflow.training import training_dag

PROJECT = Path(__file__).resolve().parents[1]

flights_training = training_dag("flights", stage="flights-train", metrics="metrics/flights.json", project=PROJECT)
