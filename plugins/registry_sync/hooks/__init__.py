"""Airflow connections and settings turned into a client, a blob store and a database."""
