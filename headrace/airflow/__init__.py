"""Airflow: operators and DAG factories, over which the files in `dags/` are a few lines. No data library is loaded."""
