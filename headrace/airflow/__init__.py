"""Airflow: operators and DAG factories, over which the files in `dags/` are a few lines. No data library is loaded."""

from headrace.extras import require_extra

require_extra("airflow", "headrace.airflow")  # every module below imports Airflow
