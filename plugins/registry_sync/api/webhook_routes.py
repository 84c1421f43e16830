"""``/webhooks/{name}/``: takes a registry's notification, and starts the syncs of what was pushed there.

It is the one route without a user: who may send is decided by the webhook's secret. A sync asks the registry itself
what there is, so that a notification is no more than a hint; it says nothing that is not checked, and one that is lost
is made up for by the schedule.

Syncs of one repository are gathered for some seconds, and none is queued twice: a flood of notifications starts one
sync after the other, and not one for each.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Annotated, Any

from fastapi import HTTPException, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from registry_sync.api.dependencies import Router, UsedDatabase, run
from registry_sync.api.problems import Problem
from registry_sync.db.database import Database
from registry_sync.domain.mirrors import mirror_dag_id
from registry_sync.domain.push_notifications import PushedTag, read_notification
from registry_sync.domain.references import RegistryUrl
from registry_sync.domain.runs import FedRepository, run_id_about
from registry_sync.errors import ConfigurationError, InvalidReference, RecordNotFound
from registry_sync.hooks.joined_runs import has_dag, trigger_joined_run
from registry_sync.hooks.settings import load_settings
from registry_sync.hooks.webhooks import Webhook, load_webhook

_log = logging.getLogger(__name__)
_REFUSED = "There is no webhook of this name that takes this secret or signature."
_UNUSABLE = "This webhook cannot be used as it is configured; the log of the API server says why."
_DELIVERIES: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No webhook of this name takes this secret or signature"}
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The notification, as the registry documents it",
        "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
    }
}


class DeliveryQuery(BaseModel):
    """Where a registry cannot send a header."""

    model_config = ConfigDict(extra="forbid")

    secret: Annotated[str | None, Field(description="The secret, for registries that send no header of ours")] = None


class DeliveryDocument(BaseModel):
    """What a notification led to."""

    pushed: Annotated[int, Field(description="How many tags the notification says were pushed")]
    started: Annotated[list[str], Field(description="Repositories whose sync was started, by name")]
    joined: Annotated[list[str], Field(description="Repositories of which a sync is queued already")]


router = Router(prefix="/webhooks", tags=["webhooks"])


@router.post("/{webhook_id}/", status_code=202, responses=_DELIVERIES, openapi_extra=_BODY)
async def take_notification(
    webhook_id: Annotated[str, Path(description="The id of its connection")],
    query: Annotated[DeliveryQuery, Query()],
    database: UsedDatabase,
    request: Request,
) -> DeliveryDocument:
    """Takes a registry's notification, and starts the syncs of the repositories that are fed by what was pushed."""
    body = await request.body()
    headers = {name.lower(): value for name, value in request.headers.items()}
    return await run(_take, database, webhook_id, query.secret, headers, body)


def _take(
    database: Database, name: str, given_secret: str | None, headers: dict[str, str], body: bytes
) -> DeliveryDocument:
    webhook = _authenticated(name, given_secret, headers, body)
    pushed = [one for one in read_notification(webhook.kind, body, headers) if webhook.wants(one)]
    started: dict[str, bool] = {}
    fed_by = {name: database.remotes.fed_repositories(name) for name in {one.repository for one in pushed}}
    for one in pushed:
        for fed in fed_by[one.repository]:
            if fed.name not in started and _is_about(one, fed, webhook.registry):
                started[fed.name] = _start(fed, webhook)
    document = DeliveryDocument(
        pushed=len(pushed),
        started=[name for name, is_new in started.items() if is_new],
        joined=[name for name, is_new in started.items() if not is_new],
    )
    if document.started:
        _log.info("webhook %s: %d tags pushed, syncs started of %s", name, len(pushed), ", ".join(document.started))
    return document


def _authenticated(name: str, given_secret: str | None, headers: dict[str, str], body: bytes) -> Webhook:
    try:
        webhook = load_webhook(name)
        if webhook.accepts(headers, given_secret, body):
            return webhook
    except RecordNotFound:
        pass  # the same response, lest names can be found out
    except ConfigurationError as problem:
        _log.error("%s", problem)
        raise HTTPException(503, _UNUSABLE) from None
    raise HTTPException(401, _REFUSED)


def _is_about(pushed: PushedTag, fed: FedRepository, registry: str | None) -> bool:
    """Whether what was pushed feeds the repository: its registry, and a tag that the remote may select.

    ``registry`` is what remotes call it, None for what the notification does. A notification that names no registry is
    about each that has a repository of that name.
    """
    spec, host = fed.remote.spec, registry or pushed.registry
    if host is not None:
        try:
            if RegistryUrl.parse(f"{spec.url.scheme}://{host}") != spec.url:
                return False
        except InvalidReference:
            return False
    return spec.tag_filter.wants(pushed.tag)


def _start(fed: FedRepository, webhook: Webhook) -> bool:
    """Starts the sync of a repository by its own DAG where it is a declared mirror with one, else by the sync DAG."""
    own = mirror_dag_id(fed.name)
    conf: dict[str, Any] = {}
    dag_id = own
    if not has_dag(own):
        dag_id = load_settings().sync_dag_id
        conf = {"repository": fed.name, "remote": fed.remote.spec.name, "mode": fed.mode.value}
    about = hashlib.sha256(fed.name.encode()).hexdigest()[:16]
    return trigger_joined_run(dag_id, run_id_about("webhook", fed.name, f"{about}__"), conf, f"webhook {webhook.name}")
