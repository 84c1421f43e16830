"""The form of a request's paths, and the routes of ``docker/docker/`` once more at ``container/container/``.

The second ones are made of the first ones, so that a route is written once. They differ in their documents, those of
:mod:`registry_sync.pulp.container_documents` for responses.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from registry_sync.api.dependencies import Router
from registry_sync.pulp.documents import PageDocument
from registry_sync.pulp.path_forms import PathForm, in_form

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
    """The arguments of ``add_api_route`` for the same route with other models."""
    endpoint, returned = _with_models(route.endpoint, models)
    responses = {
        status: {**response, "model": _swapped(response["model"], models)} if "model" in response else response
        for status, response in route.responses.items()
    }
    return {
        "endpoint": endpoint,
        "response_model": returned,
        "status_code": route.status_code,
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
