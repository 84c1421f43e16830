"""Mirrors declared in files: read, checked, and compiled once for each content.

Nothing here knows Airflow, a database or a network; :mod:`registry_sync.operators.mirror_dags` makes DAGs of mirrors.
"""
