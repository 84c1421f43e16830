"""``versions_of`` and ``changed_tags``: what a DAG that follows a repository is scheduled on, and what changed in it.

Airflow may start one run for several events, and an event lists a bounded number of tags. Both are resolved here: what
is returned is what differs after the last event, each tag once, complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from registry_sync.domain.records import PageRequest
from registry_sync.domain.version_history import Change
from registry_sync.operators.version_outputs import declared_asset

if TYPE_CHECKING:
    from registry_sync.db.database import Database

_PAGE = 1000
_CHANGED = (Change.ADDED.value, Change.MOVED.value)


def versions_of(repository: str) -> Asset:
    """The asset of a repository, for ``schedule=`` of a DAG: each of its versions is an event of it.

    Airflow hands the events to a DAG that is scheduled on the asset itself. One that is scheduled on a reference,
    ``Asset.ref(name=…)``, is started as well, and has no event in hand.

    :param repository: name of the repository, which need not exist yet
    """
    return declared_asset(repository.strip())


def changed_tags(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[dict[str, Any]]:
    """The tags that are new or have moved, as ``repository``, ``name``, ``digest``, ``previous_digest`` and ``number``.

    They are ordered by repository and name. ``previous_digest`` is that before the first of the events, None for a new
    tag; ``number`` is the version that changed it last. A tag that moved and was removed by a later one of the events
    is left out, as is one that is back at its digest from before. Events of other assets are not read. Tags that an
    event does not list are read from the metadata database, so that the task must run where tasks of a sync do. Raises
    :class:`~registry_sync.errors.RecordNotFound` when it does not list all and the version was deleted since.

    :param triggering_asset_events: as in the context of a task of a run that assets have started
    """
    events: dict[str, dict[str, Any]] = {}  # an event is there once for its asset and once for each alias
    for found in triggering_asset_events.values():
        events.update({event.extra["href"]: event.extra for event in found if "tags" in (event.extra or {})})
    changed: dict[tuple[str, str], dict[str, Any]] = {}
    before: dict[tuple[str, str], str | None] = {}
    for event in sorted(events.values(), key=lambda event: (event["repository"], event["number"])):
        for change, tag in _tags_of(event):
            key = (event["repository"], tag["name"])
            before.setdefault(key, tag.get("previous_digest"))
            if change in _CHANGED:
                changed[key] = {"repository": key[0], **tag, "previous_digest": before[key], "number": event["number"]}
            else:
                changed.pop(key, None)
    return [tag for _, tag in sorted(changed.items()) if tag["digest"] != tag["previous_digest"]]


def _tags_of(event: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each tag that differs, with its change."""
    if event["tags"]["is_complete"]:
        yield from ((change.value, tag) for change in Change for tag in event["tags"][change.value])
        return
    from registry_sync.hooks.settings import load_settings
    from registry_sync.hooks.stores import open_database

    with open_database(load_settings()) as database:
        yield from _all_tags(database, event)


def _all_tags(database: Database, event: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from registry_sync.pulp.hrefs import read_version_href
    from registry_sync.pulp.version_events import tag_entry

    repository_id, number = read_version_href(event["href"])
    base, offset, total = event["base_number"] or 0, 0, 1
    while offset < total:
        request = PageRequest(offset, _PAGE)
        page = database.versions.difference(repository_id, number, base, request=request).tags.page
        yield from ((tag.change.value, tag_entry(tag)) for tag in page.items)
        offset, total = offset + _PAGE, page.total_count
