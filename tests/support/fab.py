"""An Airflow under the FAB auth manager, with one user for each of FAB's roles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from local_airflow.instance import Instance
from local_airflow.layout import Layout
from local_airflow.settings import write_settings

ROLES = ("Viewer", "User", "Op", "Admin", "Public")
PASSWORD = "a password for tests"
SETTINGS = {
    "core": {
        "auth_manager": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "parallelism": "2",  # FAB's sessions and many starting tasks can stop each other for as long as SQLite waits
    },
    "fab": {"update_fab_perms": "True"},
    "registry_sync": {
        "trust_triggers": "False",  # here people have roles, unlike at the owner of a `make up`
        "pull_in_api_server": "True",
    },
}
_PREPARE = f"""
from airflow.settings import Session
from airflow.providers.fab.auth_manager.models.db import FABDBManager
FABDBManager(Session()).upgradedb()
from airflow.providers.fab.www.app import create_app
app = create_app(enable_plugins=False)
with app.app_context():
    security = app.appbuilder.sm
    for role in {ROLES!r}:
        made = security.add_user(role.lower(), role, "Test", role.lower() + "@airflow.example",
                                 role=security.find_role(role), password={PASSWORD!r})
        assert made, role
"""


def make_fab_database(airflow_database: Path, folder: Path) -> Path:
    """A copy of a migrated database of Airflow with FAB's tables, roles and users; users are named as their roles."""
    layout = Layout(folder=folder)
    layout.home.mkdir(parents=True)
    for file in (layout.database, layout.migrated):
        shutil.copy(airflow_database / file.name, file)
    instance = Instance(layout, overrides=SETTINGS)
    write_settings(layout, instance.settings(port=0), instance.password())
    command = [str(layout.python), "-c", _PREPARE]
    done = subprocess.run(command, env=instance.environment(port=0), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return layout.home
