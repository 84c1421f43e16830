"""The stages of a sync as plain functions over a client, a blob store and a database. No Airflow here."""
