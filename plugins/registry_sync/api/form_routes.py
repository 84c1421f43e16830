"""The form of a request's paths, and the routes of ``docker/docker/`` once more at ``container/container/``.

The second ones are made of the first ones, so that a route is written once. They differ in their documents, those of
:mod:`registry_sync.pulp.container_documents` for responses.
"""

from __future__ import annotations

import functools
import inspect
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from registry_sync.api.access import SignedIn
from registry_sync.api.dependencies import Router
from registry_sync.db.database import Database
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.runs import FinishedTask
from registry_sync.pulp.documents import PageDocument
from registry_sync.pulp.hrefs import API_PREFIX, task_href
from registry_sync.pulp.path_forms import PathForm, current_form, in_form
from registry_sync.pulp.task_documents import TaskStarted

_OF_PLUGIN = re.compile(r"/(?:(?:repositories|remotes|distributions)/(?P<type>\w+)/(?P=type)|content/(?P<plugin>\w+))/")
#: The models of a form in place of the documented ones.
Models = Mapping[type[BaseModel], type[BaseModel]]


def form_of_path(path: str) -> PathForm | None:
    """The form of a path, None where it is the same in both, such as ``/api/v3/tasks/``."""
    found = _OF_PLUGIN.search(path)
    named = None if found is None else found["type"] or found["plugin"]
    return next((form for form in PathForm if form.value == named), None)


class PathForms:
    """Middleware: everything that a request does runs in the form of its path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        form = form_of_path(scope["path"]) if scope["type"] == "http" else None
        if form is None:
            await self._app(scope, receive, send)
            return
        with in_form(form):
            await self._app(scope, receive, send)


def container_router(routers: Iterable[APIRouter], models: Models) -> Router:
    """The routes of ``routers`` that have a plugin in their path, in the container form, with ``models``.

    A path that has a route of its own in that form, made for it, keeps that.
    """
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    own = {(route.path, method) for route in routes for method in route.methods}
    made = Router()
    for route in routes:
        path = _in_container_form(route.path)
        if form_of_path(route.path) is PathForm.DOCKER and not any((path, method) in own for method in route.methods):
            made.add_api_route(path, **_options(route, models))
    return made


def _in_container_form(path: str) -> str:
    found = _OF_PLUGIN.search(path)
    if found is None:
        return path
    return path.replace(found.group(), found.group().replace(PathForm.DOCKER.value, PathForm.CONTAINER.value), 1)


def _options(route: APIRoute, models: Models) -> dict[str, Any]:
    """The arguments of ``add_api_route`` for the same route with other models, and with a task where Pulp has one."""
    endpoint, returned = _with_models(route.endpoint, models)
    status_code = route.status_code
    if (what := _task_name(route)) is not None:
        endpoint, returned, status_code = as_task(endpoint, what, route.path), TaskStarted, 202
    responses = {
        status: {**response, "model": _swapped(response["model"], models)} if "model" in response else response
        for status, response in route.responses.items()
    }
    return {
        "endpoint": endpoint,
        "response_model": returned,
        "status_code": status_code,
        "tags": route.tags,
        "dependencies": route.dependencies,
        "description": route.description,
        "responses": responses,
        "methods": route.methods,
        "name": route.name,
    }


def _with_models(endpoint: Callable[..., Any], models: Models) -> tuple[Callable[..., Any], Any]:
    """A function that does the same with other models in its signature, and the type that it returns."""
    work = inspect.unwrap(endpoint)
    hints = {name: _swapped(hint, models) for name, hint in get_type_hints(work, include_extras=True).items()}

    @functools.wraps(work)
    def in_container_form(*args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)

    signature = inspect.signature(work)
    parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in signature.parameters.values()]
    returned = hints.get("return")
    in_container_form.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what FastAPI reads
        parameters=parameters, return_annotation=returned
    )
    return in_container_form, None if returned is type(None) else returned


def _swapped(hint: Any, models: Models) -> Any:
    """A type with the models of ``models`` in it replaced."""
    if get_origin(hint) is Annotated:
        first, *rest = get_args(hint)
        parts = (_swapped(first, models), *rest)
        return Annotated[parts]
    if isinstance(hint, type) and issubclass(hint, PageDocument):
        (listed,) = hint.__pydantic_generic_metadata__["args"]
        return PageDocument[_swapped(listed, models)]  # type: ignore[misc]  # made of a value
    return models.get(hint, hint)


_ACTIONS = {"POST": "create", "PUT": "update", "PATCH": "update", "DELETE": "delete"}
#: Objects that Pulp changes and deletes by tasks, and distributions, which it makes by tasks as well.
_BY_TASKS = re.compile(r"/(?:repositories|remotes|distributions)/docker/docker/\{\w+\}/")
_DELETED_BY_TASKS = re.compile(r"/repositories/docker/docker/\{\w+\}/versions/\{\w+\}/")
_MADE_BY_TASKS = re.compile(r"/distributions/docker/docker/")


def _task_name(route: APIRoute) -> str | None:
    """What the task of a route does in the container form, None where that has none: ``registry_sync.delete``."""
    (method,) = route.methods
    patterns = {"POST": [_MADE_BY_TASKS], "DELETE": [_BY_TASKS, _DELETED_BY_TASKS], "PUT": [_BY_TASKS]}
    patterns["PATCH"] = patterns["PUT"]
    is_task = any(pattern.fullmatch(route.path) for pattern in patterns.get(method, ()))
    return f"registry_sync.{_ACTIONS[method]}" if is_task else None


def record_task(
    database: Database,
    name: str,
    user: BaseUser,
    started_at: datetime,
    *,
    created: tuple[str, ...] = (),
    reserved: tuple[str, ...] = (),
    result: Any = None,
) -> TaskStarted:
    """The task of what has been done since ``started_at``, recorded as completed for the client that requested it.

    ``created`` and ``reserved`` are the paths of what it made and of what it was about; ``result`` None is for nothing.
    """
    task = FinishedTask(
        task_id=str(uuid.uuid4()),
        name=name,
        triggered_by=user.get_name(),
        path_form=current_form().value,
        created_at=started_at,
        started_at=started_at,
        finished_at=utc_now(),
        created_resources=created,
        reserved_resources=reserved,
        result=result,
    )
    database.finished_tasks.add(task)
    return TaskStarted(task=task_href(task.task_id))


def as_task(work: Callable[..., Any], name: str, path: str) -> Callable[..., TaskStarted]:
    """``work`` as a route that responds with a task, which has ended and is recorded: it made what ``work`` returns.

    ``path`` is that of the route, of which the object is that the task is about. ``work`` has a parameter
    ``database``.
    """
    signature = inspect.signature(work)
    has_user, has_object = "user" in signature.parameters, "{" in path

    @functools.wraps(work)
    def with_task(*, user: BaseUser, **given: Any) -> TaskStarted:
        started_at = utc_now()
        result = work(**given, user=user) if has_user else work(**given)
        created = () if has_object else (result.pulp_href,)
        reserved = (f"{API_PREFIX}{_in_container_form(path).format(**given)}",) if has_object else ()
        return record_task(given["database"], name, user, started_at, created=created, reserved=reserved)

    named = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]
    if not has_user:
        named.append(inspect.Parameter("user", inspect.Parameter.KEYWORD_ONLY, annotation=SignedIn))
    with_task.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what FastAPI reads
        parameters=named, return_annotation=TaskStarted
    )
    return with_task
