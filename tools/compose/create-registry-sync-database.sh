#!/bin/sh
# Run once by PostgreSQL's image, on an empty data folder: a database for registry-sync with a role of its own,
# which cannot read Airflow's.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$REGISTRY_SYNC_DB_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
REVOKE CONNECT ON DATABASE airflow FROM PUBLIC;
CREATE ROLE registry_sync LOGIN PASSWORD :'password';
CREATE DATABASE registry_sync OWNER registry_sync;
REVOKE CONNECT ON DATABASE registry_sync FROM PUBLIC;
SQL
