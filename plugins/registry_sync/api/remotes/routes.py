"""``/remotes/docker/docker/``: list, make, read, change and remove remotes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from registry_sync.api.access import CHANGE, CREATE, DELETE, READ, SignedIn
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import PageDocument, PathUuid, page_document, split_list
from registry_sync.api.problems import CONFLICT, NOT_FOUND
from registry_sync.api.remotes import changes
from registry_sync.api.remotes.documents import ORDERING_FIELDS, ChangedRemote, NewRemote, RemoteDocument, RemoteQuery
from registry_sync.pulp.hrefs import remote_href, remotes_href

router = Router(prefix="/remotes/docker/docker", tags=["remotes"])


@router.get("/", dependencies=READ)
def list_remotes(database: UsedDatabase, query: Annotated[RemoteQuery, Query()]) -> PageDocument[RemoteDocument]:
    """Remotes, by name unless ordered otherwise."""
    page = database.remotes.page(
        query.part(ORDERING_FIELDS, query.ordering),
        name=query.name,
        names=split_list(query.name__in),
        name_contains=query.name__icontains,
    )
    return page_document(remotes_href(), query, page, RemoteDocument.of)


@router.post("/", status_code=201, dependencies=CREATE)
def create_remote(database: UsedDatabase, given: NewRemote, user: SignedIn, response: Response) -> RemoteDocument:
    """A new remote. Credentials go into a connection of its own, unless ``conn_id`` names one."""
    remote = changes.create_remote(database, given, user)
    response.headers["Location"] = remote_href(remote.id)
    return RemoteDocument.of(remote)


@router.get("/{remote_id}/", dependencies=READ, responses=NOT_FOUND)
def read_remote(database: UsedDatabase, remote_id: PathUuid) -> RemoteDocument:
    """A remote."""
    return RemoteDocument.of(database.remotes.get(remote_id))


@router.put("/{remote_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **CONFLICT})
def replace_remote(database: UsedDatabase, remote_id: PathUuid, given: NewRemote, user: SignedIn) -> RemoteDocument:
    """The remote with its whole description replaced; credentials that are left out or null stay."""
    return RemoteDocument.of(changes.change_remote(database, remote_id, given, user, is_replacement=True))


@router.patch("/{remote_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **CONFLICT})
def change_remote(database: UsedDatabase, remote_id: PathUuid, given: ChangedRemote, user: SignedIn) -> RemoteDocument:
    """The remote with what was sent changed; null removes a credential."""
    return RemoteDocument.of(changes.change_remote(database, remote_id, given, user, is_replacement=False))


@router.delete("/{remote_id}/", status_code=204, dependencies=DELETE, responses=NOT_FOUND)
def delete_remote(database: UsedDatabase, remote_id: PathUuid) -> None:
    """Removes the remote and the credentials that were kept for it; what was synced from it stays."""
    changes.delete_remote(database, remote_id)
