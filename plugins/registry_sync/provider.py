"""What Airflow learns of registry-sync as a provider: connection type, settings, commands. Imports nothing."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider information, as ``apache_airflow_provider`` entry points give it."""
    return {
        "package-name": "registry-sync",
        "name": "registry-sync",
        "description": "Container repositories, mirrored by Airflow as versioned content.",
        "connection-types": [
            {"hook-class-name": "registry_sync.hooks.registry.RegistryHook", "connection-type": "registry"}
        ],
        "config": {
            "registry_sync": {
                "description": "Settings of registry-sync.",
                "options": {
                    "sql_alchemy_conn": {
                        "description": "URL of the metadata database. Empty for SQLite below AIRFLOW_HOME.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "sensitive": True,
                        "example": "postgresql+psycopg://user:password@host/registry_sync",
                        "default": "",
                    },
                    "blob_store": {
                        "description": "Where blobs are kept: an fsspec URL. Empty for files below AIRFLOW_HOME.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://bucket/registry-sync",
                        "default": "",
                    },
                    "max_shards": {
                        "description": "The most mapped tasks of one stage of a sync.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "4",
                    },
                },
            }
        },
    }
