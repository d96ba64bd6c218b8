"""One DAG per labeling task of this project: send, wait, collect, accept, release. Airflow loads this file."""

from pathlib import Path

from headrace.airflow.labels import label_dags

globals().update(label_dags(Path(__file__).resolve().parents[1]))
