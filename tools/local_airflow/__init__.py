"""A local Airflow for one checkout: started, monitored, used for syncs, stopped. Standard library only.

It keeps everything in one folder, listens on loopback only, and opens one port: the API server's. It is for a
developer's machine and for tests; ``docker-compose.yaml`` is a deployment for real use.
"""
