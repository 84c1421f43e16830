"""Access checks by Airflow's users and auth manager.

Reading and syncing require a user's rights on the sync DAG and its runs, changes require their rights on connections.
Of Airflow's checks these are the ones with the same meaning under SimpleAuthManager and FAB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import (
    bearer_scheme,
    get_user,
    oauth2_scheme,
    requires_access_connection,
    requires_access_dag,
)
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from registry_sync.api.dependencies import run
from registry_sync.hooks.settings import load_settings

Method = Literal["GET", "POST", "PUT", "DELETE"]


async def signed_in_user(
    request: Request,
    token: Annotated[str | None, Depends(oauth2_scheme)] = None,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer_scheme)] = None,
) -> BaseUser:
    """The user of a request, by Airflow. What Airflow accepts not is 401, whatever is wrong with it."""
    try:
        return await get_user(request, token, bearer)
    except HTTPException as problem:
        raise HTTPException(401, str(problem.detail)) from None


#: The authenticated user of a request.
SignedIn = Annotated[BaseUser, Depends(signed_in_user)]


class AccessCheck:
    """A dependency that refuses a user without authentication with 401, and one without the right with 403."""

    __call__: Callable[..., Any]


class SignedInCheck(AccessCheck):
    """Any authenticated user."""

    async def __call__(self, user: SignedIn) -> BaseUser:
        return user


class DagCheck(AccessCheck):
    """A user who may do ``method`` with a DAG, or with its runs; ``dag_id`` None for the sync DAG."""

    def __init__(self, method: Method, entity: DagAccessEntity | None = None, dag_id: str | None = None) -> None:
        self._method: Method = method
        self._entity = entity
        self.dag_id = dag_id

    async def __call__(self, request: Request, user: SignedIn) -> None:
        await run(self._check, request, user)

    def _check(self, request: Request, user: BaseUser) -> None:
        requires_access_dag(self._method, self._entity, self.dag_id or load_settings().sync_dag_id)(request, user)


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
    """Whether a user may change repositories and remotes, by the check of :data:`CHANGE`."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails

    return get_auth_manager().is_authorized_connection(method="PUT", details=ConnectionDetails(), user=user)


def _dependency(check: AccessCheck) -> list[Any]:
    return [Depends(check)]


def run_of(dag_id: str) -> list[Any]:
    """Who may start runs of that DAG."""
    return _dependency(DagCheck("POST", DagAccessEntity.RUN, dag_id))


SIGNED_IN = _dependency(SignedInCheck())
READ = _dependency(DagCheck("GET"))
READ_TASKS = _dependency(DagCheck("GET", DagAccessEntity.RUN))
SYNC = _dependency(DagCheck("POST", DagAccessEntity.RUN))
CHANGE_RUN = _dependency(DagCheck("PUT", DagAccessEntity.RUN))
DELETE_RUN = _dependency(DagCheck("DELETE", DagAccessEntity.RUN))
CREATE = _dependency(ConnectionCheck("POST"))
CHANGE = _dependency(ConnectionCheck("PUT"))
DELETE = _dependency(ConnectionCheck("DELETE"))
