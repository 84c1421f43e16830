"""What is served inside Airflow's API server. Imported only there: FastAPI is heavy and tasks do not need it."""
