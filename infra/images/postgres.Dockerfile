# PostgreSQL with one database for each system that keeps its state there.
FROM postgres:18.4-bookworm

COPY infra/images/create-databases.sh /docker-entrypoint-initdb.d/create-databases.sh

# The user `postgres` of the image.
USER 999:999
