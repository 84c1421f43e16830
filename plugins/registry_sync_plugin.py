"""Hands the plugin to Airflow when this folder is its plugins folder.

Where the distribution is installed as well, its entry point registers the plugin, and once is enough.
"""

from importlib.metadata import entry_points

if not any(entry.name == "registry_sync" for entry in entry_points(group="airflow.plugins")):
    from registry_sync.plugin import RegistrySyncPlugin  # noqa: F401  Airflow looks for the class in this module
