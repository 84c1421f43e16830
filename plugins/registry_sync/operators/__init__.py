"""The stages of a sync, and what is done with versions afterwards, as Airflow operators.

Importing one imports neither requests nor SQLAlchemy.
"""
