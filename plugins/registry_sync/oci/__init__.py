"""The client of the registry API (OCI distribution specification): requests, authentication, limits. No Airflow."""
