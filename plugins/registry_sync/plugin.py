"""The Airflow plugin. Loaded in every task of a deployment, so nothing heavy is imported and nothing is opened here."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class RegistrySyncPlugin(AirflowPlugin):
    """Registers registry-sync with Airflow."""

    name = "registry_sync"
