"""Users of a real Airflow log in at the pull server and by HTTP Basic, under SimpleAuthManager."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from registry_sync.domain.serving import User
from registry_sync.users.airflow_logins import AirflowLogins
from support.rest_api import ROLES, ApiServer, RestClient


def test_airflow_says_who_a_user_is_and_whether_they_read(api_server: ApiServer) -> None:
    passwords = json.loads(Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
    logins = AirflowLogins(api_server.url)
    for role in ROLES:
        assert asyncio.run(logins(role, passwords[role])) == User(role, is_reader=True)
        assert asyncio.run(logins(role, passwords[role] + "x")) is None
    assert asyncio.run(logins("nobody", passwords["admin"])) is None


def test_basic_over_rest_is_the_user_with_their_rights(api_server: ApiServer, synced: dict[str, str]) -> None:
    passwords = json.loads(Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
    nobody = api_server.client(None)
    read, change = ("GET", synced["repository"], None), ("PATCH", synced["repository"], {"pulp_labels": {"a": "b"}})
    for role, changes in zip(ROLES, (403, 403, 200, 200), strict=True):
        login = (role, passwords[role])
        assert nobody.ask(*read, auth=login).status_code == 200
        assert nobody.ask(*change, auth=login).status_code == changes
    for login in ((ROLES[0], "wrong"), ("nobody", "wrong")):
        response = nobody.ask(*read, auth=login)
        assert (response.status_code, response.json()) == (401, {"detail": "Wrong name or password."})
        assert response.headers["www-authenticate"].startswith("Bearer, Basic realm=")


def test_a_path_is_by_the_book(api_server: ApiServer, synced: dict[str, str]) -> None:
    admin = api_server.client()
    for path in (synced["repository"], "repositories/docker/docker/", "docs/"):
        got, head = admin.ask("GET", path), admin.ask("HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors" in got.headers["content-security-policy"]
    refused = admin.ask("PUT", "repositories/docker/docker/")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    options = admin.ask("OPTIONS", synced["repository"])
    assert (options.status_code, options.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT")
    forged = RestClient(api_server.url, f"{api_server.tokens['admin'][:-4]}AAAA")
    assert forged.ask("GET", synced["repository"]).status_code == 401
