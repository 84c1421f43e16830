"""The stages of a sync, and operations on versions, as Airflow operators.

Importing one imports neither requests nor SQLAlchemy.
"""
