"""The ``[registry_sync]`` section of Airflow's configuration, read in one place, defaults included.

Reading opens nothing; :mod:`registry_sync.hooks.stores` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry_sync.errors import ConfigurationError

SECTION = "registry_sync"
DEFAULT_MAX_SHARDS = 4
DEFAULT_SYNC_DAG_ID = "registry_sync"


@dataclass(frozen=True)
class Settings:
    """``sql_alchemy_conn`` and ``blob_store`` are URLs; ``max_shards`` bounds the mapped tasks of one stage.

    ``sync_dag_id`` is the DAG that a sync over REST runs, and whose access rules hold for reading over REST.
    """

    sql_alchemy_conn: str
    blob_store: str
    max_shards: int
    sync_dag_id: str = DEFAULT_SYNC_DAG_ID


def load_settings() -> Settings:
    """The settings in force. Empty ones are the embedded defaults below ``$AIRFLOW_HOME/registry_sync``.

    Raises :class:`ConfigurationError` when a value cannot be used.
    """
    from airflow.configuration import AIRFLOW_HOME, conf

    home = Path(AIRFLOW_HOME).expanduser().resolve() / "registry_sync"
    shards = conf.get(SECTION, "max_shards", fallback="") or str(DEFAULT_MAX_SHARDS)
    if not shards.isdigit() or int(shards) < 1:
        raise ConfigurationError(f"[registry_sync] max_shards = {shards!r}: give a whole number, 1 or more")
    return Settings(
        sql_alchemy_conn=conf.get(SECTION, "sql_alchemy_conn", fallback="") or f"sqlite:///{home / 'registry_sync.db'}",
        blob_store=conf.get(SECTION, "blob_store", fallback="") or (home / "blobs").as_uri(),
        max_shards=int(shards),
        sync_dag_id=conf.get(SECTION, "sync_dag_id", fallback="") or DEFAULT_SYNC_DAG_ID,
    )
