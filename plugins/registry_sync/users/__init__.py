"""Airflow's users: their names and passwords, checked by Airflow, and how often that may fail."""
