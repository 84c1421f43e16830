"""``/syncs/``: list and read syncs, whether started over REST, by a schedule or by any DAG."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from registry_sync.api.access import READ_TASKS
from registry_sync.api.dependencies import Router
from registry_sync.api.fields import GivenHref, parsed
from registry_sync.api.resources import PageQuery, Resource, listed_states, ordered_by, wanted_states
from registry_sync.api.sync_dag import existing_tasks
from registry_sync.db.database import Database
from registry_sync.domain.records import Page
from registry_sync.domain.runs import RunState, SyncRun
from registry_sync.pulp.hrefs import read_remote_href, read_repository_href, syncs_href
from registry_sync.pulp.sync_documents import SyncDocument

_SyncOrder: Any = ordered_by("started_at", "finished_at")
_States: Any = listed_states(RunState)


class SyncQuery(PageQuery):
    """The filters and order of syncs; the newest first by default."""

    default_ordering: ClassVar[str] = "-started_at"

    repository: Annotated[
        Annotated[GivenHref, parsed(read_repository_href)] | None, Field(description="Path of a repository")
    ] = None
    remote: Annotated[Annotated[GivenHref, parsed(read_remote_href)] | None, Field(description="Path of a remote")] = (
        None
    )
    state: RunState | None = None
    state__in: Annotated[_States | None, Field(description="States separated by commas")] = None
    ordering: _SyncOrder = None


def _page(database: Database, query: SyncQuery) -> Page[SyncRun]:
    return database.runs.page(
        query.page_request(),
        repository_id=None if query.repository is None else read_repository_href(query.repository),
        remote_id=None if query.remote is None else read_remote_href(query.remote),
        states=wanted_states(RunState, query.state, query.state__in),
    )


router = Router(prefix="/syncs", tags=["syncs"])
Resource(
    one="sync",
    many="syncs",
    listed="Syncs of every kind, the newest first unless ordered otherwise.",
    read="A sync: its state, remote, repository and version, and the number of its requests to the registry.",
    href=syncs_href,
    query=SyncQuery,
    document=SyncDocument,
    page=_page,
    get=lambda database, sync_id: database.runs.get(sync_id),
    context=lambda runs: existing_tasks([run.key for run in runs]),
).add_routes(router, access=READ_TASKS)
