"""One DAG per dataset of this project: ingest, validate, transform, release, publish. Airflow loads this file."""

from pathlib import Path

from headrace.airflow.refresh import refresh_dags

globals().update(refresh_dags(Path(__file__).resolve().parents[1]))
