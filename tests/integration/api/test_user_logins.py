"""Users of a real Airflow log in at the pull server, under SimpleAuthManager."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from registry_sync.domain.serving import User
from registry_sync.serve.airflow_logins import AirflowLogins
from support.rest_api import ROLES, ApiServer


def test_airflow_says_who_a_user_is_and_whether_they_read(api_server: ApiServer) -> None:
    passwords = json.loads(Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
    logins = AirflowLogins(api_server.url)
    for role in ROLES:
        assert asyncio.run(logins(role, passwords[role])) == User(role, is_reader=True)
        assert asyncio.run(logins(role, passwords[role] + "x")) is None
    assert asyncio.run(logins("nobody", passwords["admin"])) is None
