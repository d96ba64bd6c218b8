#!/bin/sh
# Run once by the PostgreSQL image, on an empty data folder: one database for each who keeps state in it.
set -eu

for database in airflow feast labelstudio source; do
    createdb --username "$POSTGRES_USER" "$database"
done
