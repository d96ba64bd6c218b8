"""Trains the model of flights on every release. Airflow loads this file."""

from headrace.airflow.training import training_dag

flights_training = training_dag("flights", stage="flights-train", metrics="metrics/flights.json")
