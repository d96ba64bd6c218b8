#!/bin/sh
# Run once by the PostgreSQL image, on an empty data folder: one database for each system that keeps its state there.
set -eu

for database in airflow feast labelstudio source; do
    createdb --username "$POSTGRES_USER" "$database"
done
