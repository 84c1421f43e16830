"""The links on the tasks of a sync, as Airflow reads them when a task ends."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

from airflow.sdk.exceptions import AirflowFailException

from registry_sync.db.database import Database
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import NotFound
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.links import SYNC_LINKS, set_links
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.stage import open_stage
from support.metadata import Upstream, image, sync
from support.task_contexts import TaskContext

REMOTE = RemoteSpec.parse("app", "https://quay.io", "team/app")
KEY = cast("Any", SimpleNamespace())


def links(task: Any) -> dict[str, str | None]:
    return {link.name: link.get_link(task, ti_key=KEY) for link in task.operator_extra_links}


def test_a_task_links_to_what_it_knows_and_shows_no_other_link(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("v1", image("layer"))
    sync(database, repository, upstream)
    version = database.versions.latest(repository.id)
    href = f"pulp/api/v3/repositories/docker/docker/{repository.id}/"
    listing = ListTagsOperator(task_id="list_tags", repository="app")
    assert [link.name for link in listing.operator_extra_links] == ["Version", "Difference", "Repository", "Upstream"]
    set_links({"task": listing}, repository.id, REMOTE)
    page = "https://quay.io/repository/team/app"
    assert links(listing) == {"Repository": href, "Upstream": page}  # each that it has would be a request of Airflow's
    set_links({"task": listing}, repository.id, REMOTE, version)
    assert links(listing).keys() == {"Version", "Difference", "Repository", "Upstream"}
    commit = CommitVersionOperator(task_id="commit_version")
    set_links({"task": commit}, repository.id, REMOTE, version)
    assert links(commit) == {
        "Version": f"{href}versions/1/",
        "Difference": f"{href}versions/1/diff/",
        "Repository": href,
        "Upstream": page,
    }


def test_a_task_that_knows_nothing_stores_no_link() -> None:
    """Airflow would store None for each, and show it as a link to that word."""
    listing = ListTagsOperator(task_id="list_tags", repository="app")
    with suppress(AirflowFailException), open_stage({"task": listing, "ti": TaskContext()}):
        raise NotFound("no such repository", kind="repository")
    assert links(listing) == {}
    assert ListTagsOperator.operator_extra_links == SYNC_LINKS


def test_every_link_has_a_key_of_its_own() -> None:
    """Airflow keeps it as an XCom of that key."""
    assert len({link.xcom_key for link in SYNC_LINKS}) == len(SYNC_LINKS)
