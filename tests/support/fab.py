"""The FAB auth manager for an Airflow on PostgreSQL, with one user for each of FAB's roles."""

from __future__ import annotations

import json

import psycopg
from werkzeug.security import generate_password_hash

from local_airflow.layout import Layout
from local_airflow.settings import load_secrets, write_private

ROLES = ("Viewer", "User", "Op", "Admin", "Public")
PASSWORD = "a password for tests"
#: FAB makes its roles when the API server starts.
SETTINGS = {
    "core": {"auth_manager": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"},
    "fab": {"update_fab_perms": "True"},
}
_ADD_USER = """
WITH added AS (
    INSERT INTO ab_user (id, first_name, last_name, username, password, active, email)
    VALUES (nextval('ab_user_id_seq'), %(role)s, 'Test', %(name)s, %(hash)s, true, %(email)s)
    RETURNING id
)
INSERT INTO ab_user_role (id, user_id, role_id)
SELECT nextval('ab_user_role_id_seq'), added.id, ab_role.id FROM added, ab_role WHERE ab_role.name = %(role)s
"""


def choose_password(layout: Layout) -> None:
    """What an instance knows as the password of ``admin`` is that of its user of FAB; before its start."""
    write_private(layout.secrets, json.dumps({**load_secrets(layout), "admin_password": PASSWORD}))


def add_users(conninfo: str) -> None:
    """Adds the users, named as their roles, to Airflow's database, once FAB's roles are there."""
    stored = generate_password_hash(PASSWORD)
    with psycopg.connect(conninfo) as connection:
        for role in ROLES:
            name = role.lower()
            values = {"role": role, "name": name, "hash": stored, "email": f"{name}@airflow.example"}
            assert connection.execute(_ADD_USER, values).rowcount == 1, role
