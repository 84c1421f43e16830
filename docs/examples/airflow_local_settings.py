"""Does once what each task of a sync would do at its start, in the process from which Airflow forks tasks."""

import sys

from registry_sync.operators import preloading

if {"scheduler", "worker"} & set(sys.argv[1:3]):  # airflow scheduler, airflow celery worker
    preloading.rehearse()
