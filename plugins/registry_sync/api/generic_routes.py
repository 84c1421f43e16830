"""Pulp's lists of all types of a kind: ``repositories/``, ``remotes/``, ``distributions/``,
``repository_versions/``, ``content/``; and ``task-groups/``, which are never made here.

There is one type of each, so that the lists have the same entries as those at ``container/container/``, in that form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

from fastapi import Query
from pydantic import BaseModel

from registry_sync.api.access import READ, READ_TASKS
from registry_sync.api.content_routes import ContentQuery
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.distribution_routes import DistributionQuery
from registry_sync.api.fields import PathUuid
from registry_sync.api.list_filters import OF_ORDER, FilterField, filtered, read_time, read_unit
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.api.remote_routes import RemoteQuery, page_of_remotes
from registry_sync.api.repository_routes import RepositoryQuery
from registry_sync.api.resources import PageQuery, ordered_by, page_document, sent_page
from registry_sync.api.version_routes import VERSION_FIELDS
from registry_sync.db.database import Database
from registry_sync.domain.filters import AllOf, AnyOf, Filter, Match, Not, Operator
from registry_sync.domain.records import Page, PageRequest
from registry_sync.errors import RecordNotFound
from registry_sync.pulp.container_documents import (
    ContainerDistributionDocument,
    ContainerRemoteDocument,
    ContainerRepositoryDocument,
    ContainerVersionDocument,
    shown,
)
from registry_sync.pulp.content_documents import BlobDocument, ManifestDocument, TagDocument
from registry_sync.pulp.documents import Document, PageDocument, Timestamp
from registry_sync.pulp.hrefs import API_PREFIX
from registry_sync.pulp.path_forms import PathForm, in_form

router = Router(tags=["generic"])


def _add_list(name: str, query: Any, document: type[Document], page: Callable[[Database, Any], Page[Any]]) -> None:
    def list_all(database: Database, query: Any) -> Any:
        with in_form(PathForm.CONTAINER):
            found = page(database, query)
            listed = page_document(f"{API_PREFIX}/{name}/", query, found, document.model_validate)
            return sent_page(query, listed)

    list_all.__annotations__ = {
        "database": UsedDatabase,
        "query": Annotated[query, Query()],
        "return": PageDocument[document],  # type: ignore[valid-type]  # a value
    }
    router.add_api_route(
        f"/{name}/",
        list_all,
        name=f"list_all_{name}",
        description=f"All {name.replace('_', ' ')}, in the form of Pulp's clients.",
        dependencies=READ,
    )


_VersionOrder: Any = ordered_by("pulp_created", "number")


class _OrderedByTime(PageQuery):
    default_ordering: ClassVar[str] = "-pulp_created"

    ordering: _VersionOrder = None


AllVersionsQuery = filtered(
    _OrderedByTime, "AllVersionsQuery", "The filters and order of all versions.", *VERSION_FIELDS
)

_add_list(
    "repositories",
    RepositoryQuery,
    ContainerRepositoryDocument,
    lambda database, query: database.repositories.page(query.page_request(), where=query.wanted()),
)
_add_list(
    "remotes",
    RemoteQuery,
    ContainerRemoteDocument,
    page_of_remotes,
)
_add_list(
    "distributions",
    DistributionQuery,
    ContainerDistributionDocument,
    lambda database, query: database.distributions.page(query.page_request(), where=query.wanted()),
)
_add_list(
    "repository_versions",
    AllVersionsQuery,
    ContainerVersionDocument,
    lambda database, query: database.versions.page(None, query.page_request(), where=query.wanted()),
)


# -- content -----------------------------------------------------------------------------------------------------------


class ContentUnitDocument(BaseModel):
    """A content unit of any type: what all have in common. Its own path has the rest."""

    pulp_href: str
    prn: str
    pulp_created: Timestamp
    pulp_last_updated: Timestamp
    pulp_labels: dict[str, str]
    artifacts: dict[str, str]


AllContentQuery: Any = filtered(
    ContentQuery,
    "AllContentQuery",
    "The filters of all content: blobs, then manifests, then tags.",
    FilterField("pulp_href", "unit", (Operator.IN,), read_unit),
    FilterField("prn", "unit", (Operator.IN,), read_unit),
    FilterField("pulp_created", "created_at", OF_ORDER, read_time),
)


def _of_kind(kind: str, wanted: Filter) -> Filter:
    """A filter by units of all kinds as one by the ids of one kind."""
    if isinstance(wanted, Match):
        is_of_units = wanted.field == "unit"
        ids = tuple(number for of, number in wanted.values if of == kind) if is_of_units else ()
        return Match("id", ids, Operator.IN) if is_of_units else wanted
    if isinstance(wanted, Not):
        return Not(_of_kind(kind, wanted.part))
    parts = tuple(map(partial(_of_kind, kind), wanted.parts))
    return AllOf(parts) if isinstance(wanted, AllOf) else AnyOf(parts)


def _all_content(database: Database, query: Any) -> Page[ContentUnitDocument]:
    units, request, total = database.units, query.unit_query(), 0
    found: list[ContentUnitDocument] = []
    readers: tuple[tuple[str, Callable[..., Page[Any]], type[Document]], ...] = (
        ("blobs", units.blobs, BlobDocument),
        ("manifests", units.manifests, ManifestDocument),
        ("tags", units.tags, TagDocument),
    )
    for kind, read, document in readers:
        of_kind = replace(request, where=_of_kind(kind, request.where))
        # The lists follow each other: what precedes this one is skipped, and what is left of the page is filled.
        part = read(of_kind, PageRequest(max(0, query.offset - total), query.limit - len(found)))
        total += part.total_count
        documents = (shown(document, unit).model_dump(mode="python") for unit in part.items)
        found += [ContentUnitDocument.model_validate({"artifacts": {}, **one}) for one in documents]
    return Page(tuple(found), total)


@router.get("/content/", name="list_all_content", dependencies=READ)
def list_all_content(
    database: UsedDatabase, query: Annotated[AllContentQuery, Query()]
) -> PageDocument[ContentUnitDocument]:
    """All content units, in the form of Pulp's clients: blobs, then manifests, then tags."""
    with in_form(PathForm.CONTAINER):
        try:
            page = _all_content(database, query)
        except RecordNotFound as problem:
            raise InvalidField(query.version_field(), str(problem)) from None
        return sent_page(query, page_document(f"{API_PREFIX}/content/", query, page, lambda unit: unit))


# -- groups of tasks ---------------------------------------------------------------------------------------------------


class TaskGroupDocument(BaseModel):
    """A group of tasks, as Pulp makes them of tasks that start others."""

    pulp_href: str
    prn: str
    description: str
    all_tasks_dispatched: bool
    tasks: list[dict[str, Any]]


@router.get("/task-groups/", dependencies=READ_TASKS)
def list_task_groups(query: Annotated[PageQuery, Query()]) -> PageDocument[TaskGroupDocument]:
    """Groups of tasks: none, since no task here starts others."""
    return page_document(f"{API_PREFIX}/task-groups/", query, Page((), 0), lambda group: group)


@router.get("/task-groups/{group_id}/", dependencies=READ_TASKS, responses=NOT_FOUND)
def read_task_group(group_id: PathUuid) -> TaskGroupDocument:
    """A group of tasks; not found, since there are none."""
    raise RecordNotFound(f"there is no group of tasks {group_id!r}")
