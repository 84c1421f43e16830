"""The two forms of paths and content types: that of the documented workflow, and that of Pulp's clients.

The same objects are at ``…/docker/docker/`` and at ``…/container/container/``. A response has the paths and the content
types (``docker.tag``, ``container.tag``) of the form that was requested, so code that makes them runs in a form: by
default the documented one, which commands and XComs have; :class:`~registry_sync.api.form_routes.PathForms` sets that
of a request by its path. Requests may name objects in either form.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum


class PathForm(str, Enum):
    """Named after the plugin of Pulp whose paths and content types it has."""

    DOCKER = "docker"
    CONTAINER = "container"

    @property
    def resource_type(self) -> str:
        """What follows ``repositories/``, ``remotes/`` and ``distributions/`` in paths."""
        return f"{self.value}/{self.value}"

    def content_type(self, content_type: str) -> str:
        """A content type of the domain, such as ``docker.tag``, in this form."""
        return f"{self.value}.{content_type.partition('.')[2]}"


_form: ContextVar[PathForm] = ContextVar("registry_sync_path_form", default=PathForm.DOCKER)


def current_form() -> PathForm:
    """The form of paths that are made now."""
    return _form.get()


@contextmanager
def in_form(form: PathForm) -> Iterator[None]:
    """Makes paths in this form, also in threads that are started meanwhile for the same request."""
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)
