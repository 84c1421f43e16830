"""Who may do what: the dependencies that every route has one of, by Airflow's own users and auth manager.

Reading and syncing are held to what a user may do with the sync DAG and its runs, changes to what they may do with
connections. Of Airflow's checks these are the ones that mean the same under SimpleAuthManager and FAB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_connection, requires_access_dag
from fastapi import Depends, Request

from registry_sync.api.threads import run
from registry_sync.hooks.settings import load_settings

Method = Literal["GET", "POST", "PUT", "DELETE"]
#: The user who asks; nobody gets here without signing in.
SignedIn = GetUserDep


class AccessCheck:
    """A dependency that refuses with 401 who is not signed in, and with 403 who may not."""

    __call__: Callable[..., Any]


class SignedInCheck(AccessCheck):
    """Anybody who is signed in."""

    async def __call__(self, user: SignedIn) -> BaseUser:
        return user


class DagCheck(AccessCheck):
    """Who may do ``method`` with the sync DAG, or with its runs."""

    def __init__(self, method: Method, entity: DagAccessEntity | None = None) -> None:
        self._method: Method = method
        self._entity = entity

    async def __call__(self, request: Request, user: SignedIn) -> None:
        await run(self._check, request, user)

    def _check(self, request: Request, user: BaseUser) -> None:
        requires_access_dag(self._method, self._entity, load_settings().sync_dag_id)(request, user)


class ConnectionCheck(AccessCheck):
    """Who may do ``method`` with connections."""

    def __init__(self, method: Method) -> None:
        self._check = requires_access_connection(method)

    async def __call__(self, request: Request, user: SignedIn) -> None:
        await self._check(request, user)


def may_use_connection(user: BaseUser, conn_id: str) -> bool:
    """Whether a user may see that connection, and so have a remote use what is in it."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
    from airflow.models import Connection

    details = ConnectionDetails(conn_id=conn_id, team_name=Connection.get_team_name(conn_id))
    return get_auth_manager().is_authorized_connection(method="GET", details=details, user=user)


def may_change_repositories(user: BaseUser) -> bool:
    """Whether a user may change repositories and remotes, as :data:`CHANGE` finds it out."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails

    return get_auth_manager().is_authorized_connection(method="PUT", details=ConnectionDetails(), user=user)


def _dependency(check: AccessCheck) -> list[Any]:
    return [Depends(check)]


SIGNED_IN = _dependency(SignedInCheck())
READ = _dependency(DagCheck("GET"))
READ_TASKS = _dependency(DagCheck("GET", DagAccessEntity.RUN))
SYNC = _dependency(DagCheck("POST", DagAccessEntity.RUN))
CHANGE_RUN = _dependency(DagCheck("PUT", DagAccessEntity.RUN))
CREATE = _dependency(ConnectionCheck("POST"))
CHANGE = _dependency(ConnectionCheck("PUT"))
DELETE = _dependency(ConnectionCheck("DELETE"))
