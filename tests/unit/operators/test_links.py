"""The links on the tasks of a sync, as Airflow reads them when a task ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from registry_sync.db.database import Database
from registry_sync.domain.remote import RemoteSpec
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.links import SYNC_LINKS, set_links
from registry_sync.operators.list_tags import ListTagsOperator
from support.metadata import Upstream, image, sync

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
    assert links(listing) == dict.fromkeys(["Version", "Difference", "Repository", "Upstream"])
    set_links({"task": listing}, repository.id, REMOTE)
    page = "https://quay.io/repository/team/app"
    assert links(listing) == {"Version": None, "Difference": None, "Repository": href, "Upstream": page}
    commit = CommitVersionOperator(task_id="commit_version")
    set_links({"task": commit}, repository.id, REMOTE, version)
    assert links(commit) == {
        "Version": f"{href}versions/1/",
        "Difference": f"{href}versions/1/diff/",
        "Repository": href,
        "Upstream": page,
    }


def test_every_link_has_a_key_of_its_own() -> None:
    """Airflow keeps it as an XCom of that key."""
    assert len({link.xcom_key for link in SYNC_LINKS}) == len(SYNC_LINKS)
