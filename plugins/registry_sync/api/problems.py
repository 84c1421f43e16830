"""Error responses: the only mapping from errors to HTTP status, and the documented form of invalid input.

The response to invalid input is 400 with ``{"field": ["message", …]}``; ``non_field_errors`` stands for the whole. All
others are ``{"detail": "message"}``. No response repeats the input, which may include a secret.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, RootModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from registry_sync.api.dependencies import RETRY_AFTER_SECONDS, ServerBusy
from registry_sync.db.engine import AIRFLOWS_DATABASE, FOREIGN_ERROR, converted
from registry_sync.errors import (
    BlobMissing,
    BlobStoreUnavailable,
    ConfigurationError,
    ContentError,
    DatabaseFull,
    DatabaseOutdated,
    DatabaseUnavailable,
    InvalidReference,
    NameTaken,
    NothingToApprove,
    OnlyVersion,
    RecordNotFound,
    RegistryError,
    RegistrySyncError,
    SyncError,
    VersionConflict,
    VersionServed,
)
from registry_sync.pulp.path_forms import PathForm, current_form

log = logging.getLogger(__name__)

#: The status for an error is that of its type, or of the nearest base class.
STATUSES: Mapping[type[RegistrySyncError], int] = {
    InvalidReference: 400,
    NameTaken: 400,
    NothingToApprove: 400,
    RecordNotFound: 404,
    BlobMissing: 404,
    VersionConflict: 409,
    OnlyVersion: 409,
    VersionServed: 409,
    SyncError: 409,
    ContentError: 502,
    RegistryError: 502,
    ConfigurationError: 503,
    DatabaseUnavailable: 503,
    DatabaseFull: 503,
    DatabaseOutdated: 503,
    BlobStoreUnavailable: 503,
    RegistrySyncError: 500,
}
WHOLE = "non_field_errors"
#: The header of responses to requests that may succeed soon (RFC 9110 section 10.2.3).
_RETRY_LATER = {"Retry-After": str(RETRY_AFTER_SECONDS)}
_MESSAGES = {
    "missing": "This field is required.",
    "extra_forbidden": "Unexpected field.",
    "json_invalid": "The body is not JSON.",
    "model_attributes_type": "The body is not a JSON object; is its content type application/json?",
    "model_type": "The body is not a JSON object; is its content type application/json?",
}


class FieldProblems(RootModel[dict[str, list[str]]]):
    """The problems of a request, by field."""


class Problem(BaseModel):
    """The problem of a request."""

    detail: str


#: The responses of every operation besides its own, for the OpenAPI document.
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": FieldProblems, "description": "Invalid input, by field"},
    401: {"model": Problem, "description": "Not signed in"},
    403: {"model": Problem, "description": "Not allowed, or a request of a foreign page"},
    503: {"model": Problem, "description": "An operator must act first, or a later retry succeeds"},
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "Not found"}}
PRECONDITION: dict[int | str, dict[str, Any]] = {
    412: {"model": Problem, "description": "It is not what If-Match names any more"}
}
CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "Not possible in the current state"}
}


class InvalidField(Exception):
    """A field's value is invalid, beyond its type; the response is that of other invalid input."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def field_problems(field: str, *messages: str) -> JSONResponse:
    """The response to invalid input in one field."""
    return JSONResponse({field: list(messages)}, status_code=400)


def detail(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A response with the problem in one sentence."""
    return JSONResponse({"detail": message}, status_code=status, headers=headers)


def status_of(error: RegistrySyncError) -> int:
    """The HTTP status of an error by the table."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def install(app: FastAPI) -> None:
    """Makes ``app`` respond to every error in these forms."""
    app.add_exception_handler(RegistrySyncError, _our_error_response)
    app.add_exception_handler(FOREIGN_ERROR, _airflow_error_response)
    app.add_exception_handler(ServerBusy, _busy_response)
    app.add_exception_handler(InvalidField, _invalid_field_response)
    app.add_exception_handler(RequestValidationError, _invalid_request_response)
    app.add_exception_handler(HTTPException, _http_error_response)
    app.add_exception_handler(Exception, _defect_response)


async def _our_error_response(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RegistrySyncError)  # noqa: S101  narrows the type that handlers are declared with
    status = status_of(error)
    if isinstance(error, NameTaken):
        return field_problems(error.field, "This field must be unique.")
    if status == 400:
        return field_problems(WHOLE, str(error))
    if status >= 500:
        log.warning("%s: %s", type(error).__name__, error)
    is_to_repeat = status == 503 and error.is_temporary
    return detail(status, str(error), _RETRY_LATER if is_to_repeat else None)


async def _airflow_error_response(request: Request, error: Exception) -> JSONResponse:
    """The response to an error of Airflow's database; errors of our own database have been translated before."""
    assert isinstance(error, FOREIGN_ERROR)  # noqa: S101  as above
    return await _our_error_response(request, converted(error, AIRFLOWS_DATABASE))


async def _busy_response(_request: Request, error: Exception) -> JSONResponse:
    return detail(503, str(error), _RETRY_LATER)


async def _invalid_field_response(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InvalidField)  # noqa: S101  as above
    return field_problems(error.field, str(error))


async def _invalid_request_response(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  as above
    problems: dict[str, list[str]] = defaultdict(list)
    if any(problem["loc"][:1] == ("path",) for problem in error.errors()):
        return detail(404, "Not found.")
    for problem in error.errors():
        is_unknown = problem["loc"][0] == "query" and problem["type"] == "extra_forbidden"
        if is_unknown and current_form() is PathForm.CONTAINER:  # in Pulp's words, which its clients show
            problems["errors"].append(f"Invalid Filter: '{str(problem['loc'][1])[:100]}'")
            continue
        problems[_field(problem["loc"])].append(_message(problem))
    return JSONResponse({field: list(dict.fromkeys(said)) for field, said in problems.items()}, status_code=400)


async def _http_error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  as above
    if error.status_code == 405:
        allow = {"Allow": ", ".join(_allowed_methods(request))}
        return Response(None, 204, allow) if request.method == "OPTIONS" else detail(405, str(error.detail), allow)
    if error.status_code == 400:
        return field_problems(WHOLE, str(error.detail))
    return detail(error.status_code, str(error.detail), error.headers)


def _allowed_methods(request: Request) -> list[str]:
    """The methods of all routes of a path (RFC 9110 section 10.2.1); each route knows its own alone."""
    found = {"OPTIONS"}
    for route in request.app.routes:
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods
    return sorted(found | {"HEAD"} if "GET" in found else found)


async def _defect_response(_request: Request, _error: Exception) -> JSONResponse:
    return detail(500, "Something went wrong here; the log of the API server says what.")


def _field(location: Sequence[Any]) -> str:
    """The name of the field in ``("body", "name", …)`` or ``("query", "limit")``; :data:`WHOLE` without one."""
    names = [part for part in location[1:2] if isinstance(part, str)]
    return names[0] if names else WHOLE


def _message(problem: Mapping[str, Any]) -> str:
    if problem["type"] in _MESSAGES:
        return _MESSAGES[problem["type"]]
    if problem.get("input", ...) is None:
        return "This field may not be null."
    message = str(problem["msg"])
    return message if message.endswith(".") else f"{message}."
