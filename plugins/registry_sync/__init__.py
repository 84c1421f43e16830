"""registry-sync: container repositories, mirrored by Airflow as versioned content."""

__version__ = "0.2.0.dev0"
