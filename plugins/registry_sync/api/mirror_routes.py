"""``/mirror-results/``: what became of the mirrors of fleets, the last result of each, or all of one DAG run."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import Field

from registry_sync.api.access import READ_TASKS
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import Sought
from registry_sync.api.resources import (
    PageQuery,
    listed_states,
    ordered_by,
    page_document,
    sent_page,
    wanted_states,
)
from registry_sync.domain.mirror_results import MirrorOutcome
from registry_sync.pulp.container_documents import shown
from registry_sync.pulp.documents import PageDocument
from registry_sync.pulp.hrefs import mirror_results_href
from registry_sync.pulp.sync_documents import MirrorResultDocument

_Order: Any = ordered_by("repository", "finished_at", "seconds", "received_bytes")
_Outcomes: Any = listed_states(MirrorOutcome)


class MirrorResultQuery(PageQuery):
    """The filters and order of results; by the repository's name by default."""

    dag_id: Annotated[Sought | None, Field(description="Only results of this DAG")] = None
    run_id: Annotated[Sought | None, Field(description="All results of this DAG run, and not the last of each")] = None
    outcome: MirrorOutcome | None = None
    outcome__in: Annotated[_Outcomes | None, Field(description="Outcomes separated by commas")] = None
    ordering: _Order = None


router = Router(prefix="/mirror-results", tags=["mirrors"])


@router.get("/", dependencies=READ_TASKS)
def list_mirror_results(
    database: UsedDatabase, query: Annotated[MirrorResultQuery, Query()]
) -> PageDocument[MirrorResultDocument]:
    """The last result of each mirror of a fleet: how its sync ended, and what to do where it did not succeed."""
    page = database.mirror_results.page(
        query.page_request(),
        outcomes=wanted_states(MirrorOutcome, query.outcome, query.outcome__in),
        dag_id=query.dag_id,
        run_id=query.run_id,
    )
    document = page_document(
        mirror_results_href(), query, page, lambda result: shown(MirrorResultDocument, result, context=None)
    )
    return sent_page(query, document)
