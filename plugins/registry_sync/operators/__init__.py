"""The stages of a sync as Airflow operators. Importing one imports neither requests nor SQLAlchemy."""
