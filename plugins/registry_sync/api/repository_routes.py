"""``/repositories/docker/docker/``: list, create, read, change and delete repositories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

from fastapi import Query, Response
from pydantic import AwareDatetime, BeforeValidator, Field

from registry_sync.api.access import CHANGE, CREATE, DELETE, READ
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import FreeText, GivenDocument, Labels, Name, PathUuid, invalid, whole_number
from registry_sync.api.list_filters import OF_ORDER, FilterField, filtered, named_fields, read_number, read_unit
from registry_sync.api.preconditions import IfMatch
from registry_sync.api.problems import NOT_FOUND, PRECONDITION, InvalidField
from registry_sync.api.resources import NamedQuery, PageQuery, Resource, ordered_by, page_document, sent_page
from registry_sync.db.database import Database
from registry_sync.domain.filters import Operator
from registry_sync.domain.records import RepositorySpec
from registry_sync.errors import InvalidReference, RecordNotFound
from registry_sync.pulp.container_documents import shown
from registry_sync.pulp.documents import PageDocument
from registry_sync.pulp.hrefs import (
    MAX_NUMBER,
    read_remote_href,
    read_repository_href,
    repositories_href,
    repository_href,
)
from registry_sync.pulp.repository_documents import PulledTagDocument, RepositoryDocument, UsageDocument
from registry_sync.pulp.resource_names import REPOSITORY, read_prn

_SPEC_FIELDS = {
    "name": "name",
    "description": "description",
    "retain_repo_versions": "retain_versions",
    "pulp_labels": "labels",
}
VersionCount: Any = whole_number(1, MAX_NUMBER)


class GivenRepository(GivenDocument):
    """The fields of new and changed repositories."""

    only_in_responses: ClassVar[frozenset[str]] = frozenset(RepositoryDocument.model_fields) - _SPEC_FIELDS.keys()

    def spec_values(self, *, only_given: bool) -> dict[str, Any]:
        """The fields of a :class:`RepositorySpec`, all of them or those that were sent."""
        sent = self.model_dump(exclude_unset=only_given)
        return {_SPEC_FIELDS[name]: value for name, value in sent.items() if name in _SPEC_FIELDS}


class NewRepository(GivenRepository):
    """A new repository, or the replacement of a repository's description."""

    name: Annotated[Name, Field(description="As a registry could serve it, such as library/hello-world")]
    description: FreeText | None = None
    retain_repo_versions: Annotated[
        VersionCount | None,
        Field(description="How many of the newest versions to keep; null for all"),
    ] = None
    pulp_labels: Labels

    def spec(self) -> RepositorySpec:
        """The specification for the store."""
        return RepositorySpec(**self.spec_values(only_given=False))


class ChangedRepository(GivenRepository):
    """The changes of a repository; omitted fields are not changed."""

    name: Annotated[Name, Field(default_factory=str)]
    description: FreeText | None = None
    retain_repo_versions: VersionCount | None = None
    pulp_labels: Labels


_HAS = "Path of a content unit"
RepositoryQuery = filtered(
    NamedQuery,
    "RepositoryQuery",
    "The filters and order of repositories.",
    *named_fields(read_repository_href, partial(read_prn, model=REPOSITORY)),
    FilterField("remote", read=read_remote_href, about="Path of a remote"),
    FilterField("retain_repo_versions", "retain_versions", (*OF_ORDER, Operator.IS_NULL), read_number),
    FilterField("latest_with_content", read=read_unit, about=f"{_HAS} in the latest version"),
    FilterField("with_content", read=read_unit, about=f"{_HAS} in any version"),
)
router = Router(prefix="/repositories/docker/docker", tags=["repositories"])
Resource(
    one="repository",
    many="repositories",
    listed="Repositories, by name unless ordered otherwise.",
    read="A repository.",
    href=repositories_href,
    query=RepositoryQuery,
    document=RepositoryDocument,
    page=lambda database, query: database.repositories.page(query.page_request(), where=query.wanted()),
    get=lambda database, repository_id: database.repositories.get(repository_id),
).add_routes(router)


@router.post("/", status_code=201, dependencies=CREATE)
def create_repository(database: UsedDatabase, given: NewRepository, response: Response) -> RepositoryDocument:
    """Creates a repository, without versions."""
    spec = given.spec()
    _require_remote(database, spec.remote_id)
    with _name_checked():
        repository = database.repositories.create(spec)
    response.headers["Location"] = repository_href(repository.id)
    return shown(RepositoryDocument, repository)


@router.put("/{repository_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **PRECONDITION})
def replace_repository(
    database: UsedDatabase, repository_id: PathUuid, given: NewRepository, if_match: IfMatch
) -> RepositoryDocument:
    """Replaces the whole description of the repository; its versions stay."""
    values = given.spec_values(only_given=False)
    _require_remote(database, values.get("remote_id"))
    only_if = if_match.of(RepositoryDocument)
    with _name_checked():
        changed = database.repositories.change(repository_id, lambda spec: replace(spec, **values), only_if)
    return shown(RepositoryDocument, changed)


@router.patch("/{repository_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **PRECONDITION})
def change_repository(
    database: UsedDatabase, repository_id: PathUuid, given: ChangedRepository, if_match: IfMatch
) -> RepositoryDocument:
    """Changes the given fields of the repository."""
    values = given.spec_values(only_given=True)
    _require_remote(database, values.get("remote_id"))
    only_if = if_match.of(RepositoryDocument)
    with _name_checked():
        changed = database.repositories.change(repository_id, lambda spec: replace(spec, **values), only_if)
    return shown(RepositoryDocument, changed)


@router.delete("/{repository_id}/", status_code=204, dependencies=DELETE, responses={**NOT_FOUND, **PRECONDITION})
def delete_repository(database: UsedDatabase, repository_id: PathUuid, if_match: IfMatch) -> None:
    """Deletes the repository with its versions; content of other repositories stays."""
    database.repositories.delete(repository_id, if_match.of(RepositoryDocument))


@router.get("/{repository_id}/usage/", dependencies=READ, responses=NOT_FOUND)
def read_usage(database: UsedDatabase, repository_id: PathUuid) -> UsageDocument:
    """The space that the repository uses in the blob store, and the content that it alone references."""
    return UsageDocument.model_validate(database.disk_usage.repository(repository_id))


def _written_as_time(text: Any) -> Any:
    """Refuses numbers, which pydantic reads as seconds or milliseconds."""
    if isinstance(text, str) and not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]", text):
        raise invalid("Send a time such as 2026-03-01T00:00:00Z.")
    return text


Time = Annotated[AwareDatetime, BeforeValidator(_written_as_time)]
_PulledOrder: Any = ordered_by("name", "last_pulled")


class PulledQuery(PageQuery):
    """The filter and order of tags and their pulls."""

    unused_since: Annotated[
        Time | None, Field(description="Only tags that nobody has pulled since then, with a time zone")
    ] = None
    ordering: _PulledOrder = None


@router.get("/{repository_id}/pulls/", dependencies=READ, responses=NOT_FOUND)
def list_pulls(
    database: UsedDatabase, repository_id: PathUuid, query: Annotated[PulledQuery, Query()]
) -> PageDocument[PulledTagDocument]:
    """The tags of the latest version, and when each was last pulled from here, by name or by digest."""
    database.repositories.get(repository_id)
    page = database.last_pulls.tags(repository_id, query.page_request(), unused_since=query.unused_since)
    href = f"{repository_href(repository_id)}pulls/"
    return sent_page(query, page_document(href, query, page, PulledTagDocument.model_validate))


@contextmanager
def _name_checked() -> Iterator[None]:
    """Translates an invalid name: a store checks a repository's description against the grammar of names alone."""
    try:
        yield
    except InvalidReference as problem:
        raise InvalidField("name", f"{problem}.") from None


def _require_remote(database: Database, remote_id: str | None) -> None:
    """Raises :class:`InvalidField` for a remote that does not exist; None is no remote."""
    if remote_id is None:
        return
    try:
        database.remotes.get(remote_id)
    except RecordNotFound as problem:
        raise InvalidField("remote", f"{problem}.") from None
