"""The links that Airflow shows on the tasks of a sync: to the version, its difference, the repository, the upstream.

Airflow stores the links of a task when it ends, well or not, each with a request while the next task starts. It stores
None, too, and shows a link to "None". So a task has no links when it begins, and those that it knows from
:func:`set_links` on; others are not shown. Paths are relative, so that they are below Airflow's own base URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from registry_sync.domain.records import RepositoryVersion
    from registry_sync.domain.remote import RemoteSpec

_ATTRIBUTE = "registry_sync_links"


class _SyncLink(BaseOperatorLink):
    """A link to what a task has set under the link's name."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  Airflow's signature
        """The URL that the task has set."""
        links: dict[str, str] = getattr(operator, _ATTRIBUTE)
        return links[self.name]


class VersionLink(_SyncLink):
    """The version that a sync made, or the latest one where nothing changed."""

    name = "Version"


class DifferenceLink(_SyncLink):
    """The difference of that version to its base."""

    name = "Difference"


class RepositoryLink(_SyncLink):
    """The repository."""

    name = "Repository"


class UpstreamLink(_SyncLink):
    """The upstream: its web page where one is known, otherwise its list of tags."""

    name = "Upstream"


#: The links of every task that knows its sync.
SYNC_LINKS = (VersionLink(), DifferenceLink(), RepositoryLink(), UpstreamLink())


def forget_links(context: Mapping[str, Any]) -> None:
    """Leaves the running task without links. The DAG, which the UI reads, has them still."""
    task = context.get("task")
    if getattr(task, "operator_extra_links", None):
        setattr(task, "operator_extra_links", ())  # noqa: B010  it may be of any class


def set_links(
    context: Mapping[str, Any], repository_id: str, remote: RemoteSpec, version: RepositoryVersion | None = None
) -> None:
    """Sets the links of the running task."""
    from registry_sync.pulp.hrefs import href_of, repository_href

    links = {RepositoryLink.name: repository_href(repository_id), UpstreamLink.name: remote.upstream_page}
    if version is not None:
        links[VersionLink.name] = href_of(version)
        links[DifferenceLink.name] = f"{href_of(version)}diff/"
    relative = {name: url.lstrip("/") for name, url in links.items()}
    task = context.get("task")
    if task is not None:
        setattr(task, _ATTRIBUTE, relative)
        task.operator_extra_links = tuple(link for link in SYNC_LINKS if link.name in relative)
