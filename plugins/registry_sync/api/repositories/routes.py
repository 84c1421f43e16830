"""``/repositories/docker/docker/``: list, make, read, change and remove repositories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated

from fastapi import Query, Response

from registry_sync.api.access import CHANGE, CREATE, DELETE, READ
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import PageDocument, PathUuid, page_document, split_list
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.api.repositories.documents import (
    ORDERING_FIELDS,
    ChangedRepository,
    NewRepository,
    RepositoryDocument,
    RepositoryQuery,
    UsageDocument,
)
from registry_sync.errors import InvalidReference
from registry_sync.pulp.hrefs import repositories_href, repository_href

router = Router(prefix="/repositories/docker/docker", tags=["repositories"])


@router.get("/", dependencies=READ)
def list_repositories(
    database: UsedDatabase, query: Annotated[RepositoryQuery, Query()]
) -> PageDocument[RepositoryDocument]:
    """Repositories, by name unless ordered otherwise."""
    page = database.repositories.page(
        query.part(ORDERING_FIELDS, query.ordering),
        name=query.name,
        names=split_list(query.name__in),
        name_contains=query.name__icontains,
    )
    return page_document(repositories_href(), query, page, RepositoryDocument.of)


@router.post("/", status_code=201, dependencies=CREATE)
def create_repository(database: UsedDatabase, given: NewRepository, response: Response) -> RepositoryDocument:
    """A new repository, without versions."""
    with _name_checked():
        repository = database.repositories.create(given.spec())
    response.headers["Location"] = repository_href(repository.id)
    return RepositoryDocument.of(repository)


@router.get("/{repository_id}/", dependencies=READ, responses=NOT_FOUND)
def read_repository(database: UsedDatabase, repository_id: PathUuid) -> RepositoryDocument:
    """A repository."""
    return RepositoryDocument.of(database.repositories.get(repository_id))


@router.put("/{repository_id}/", dependencies=CHANGE, responses=NOT_FOUND)
def replace_repository(database: UsedDatabase, repository_id: PathUuid, given: NewRepository) -> RepositoryDocument:
    """The repository with its whole description replaced; its versions stay."""
    with _name_checked():
        return RepositoryDocument.of(database.repositories.update(repository_id, given.spec()))


@router.patch("/{repository_id}/", dependencies=CHANGE, responses=NOT_FOUND)
def change_repository(database: UsedDatabase, repository_id: PathUuid, given: ChangedRepository) -> RepositoryDocument:
    """The repository with what was sent changed."""
    values = given.spec_values(only_given=True)
    with _name_checked():
        return RepositoryDocument.of(database.repositories.change(repository_id, lambda spec: replace(spec, **values)))


@router.delete("/{repository_id}/", status_code=204, dependencies=DELETE, responses=NOT_FOUND)
def delete_repository(database: UsedDatabase, repository_id: PathUuid) -> None:
    """Removes the repository with its versions; content that others hold stays."""
    database.repositories.delete(repository_id)


@router.get("/{repository_id}/usage/", dependencies=READ, responses=NOT_FOUND)
def read_usage(database: UsedDatabase, repository_id: PathUuid) -> UsageDocument:
    """What the repository takes in the blob store, and what it holds alone."""
    return UsageDocument.of(database.disk_usage.repository(repository_id))


@contextmanager
def _name_checked() -> Iterator[None]:
    """The grammar of new names is the only one that a store holds a description of a repository against."""
    try:
        yield
    except InvalidReference as problem:
        raise InvalidField("name", f"{problem}.") from None
