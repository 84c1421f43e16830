"""The paths of all REST resources, created and parsed in this one place.

A path is absolute and without a host, as documented: ``/pulp/api/v3/repositories/docker/docker/<uuid>/``. It has the
current form of :mod:`~registry_sync.pulp.path_forms`; both forms are parsed. Parsing raises :class:`InvalidReference`
for the path of another resource; it does not check that the resource exists.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from registry_sync.errors import InvalidReference
from registry_sync.pulp.path_forms import PathForm, current_form

if TYPE_CHECKING:
    from registry_sync.domain.digests import Digest
    from registry_sync.domain.records import Repository, RepositoryVersion

API_PREFIX = "/pulp/api/v3"
#: Content types in the order of the documented responses, with the last part of their content path.
CONTENT_PATHS = {"docker.blob": "blobs", "docker.manifest": "manifests", "docker.tag": "tags"}
#: The largest number of a version or of a unit in either database.
MAX_NUMBER = 2**31 - 1
MAX_UNIT_ID = 2**63 - 1

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TYPE = f"(?:{'|'.join(form.resource_type for form in PathForm)})"
_REPOSITORY = re.compile(rf"{API_PREFIX}/repositories/{_TYPE}/({_UUID})/")
_REMOTE = re.compile(rf"{API_PREFIX}/remotes/{_TYPE}/({_UUID})/")
_DISTRIBUTION = re.compile(rf"{API_PREFIX}/distributions/{_TYPE}/({_UUID})/")
_TASK = re.compile(rf"{API_PREFIX}/tasks/({_UUID})/")
_PLUGIN = f"(?:{'|'.join(form.value for form in PathForm)})"
_UNIT = re.compile(rf"{API_PREFIX}/content/{_PLUGIN}/(blobs|manifests|tags)/([1-9][0-9]{{0,18}})/")
_VERSION = re.compile(rf"{API_PREFIX}/repositories/{_TYPE}/({_UUID})/versions/([1-9][0-9]{{0,9}})/")


def repositories_href() -> str:
    """The list of repositories."""
    return f"{API_PREFIX}/repositories/{current_form().resource_type}/"


def repository_href(repository_id: str) -> str:
    """A repository, by its UUID."""
    return f"{repositories_href()}{repository_id}/"


def versions_href(repository_id: str) -> str:
    """The list of a repository's versions."""
    return f"{repository_href(repository_id)}versions/"


def version_href(repository_id: str, number: int) -> str:
    """A repository version."""
    return f"{versions_href(repository_id)}{number}/"


def href_of(version: RepositoryVersion) -> str:
    """The path of a repository version."""
    return version_href(version.repository_id, version.number)


def base_href_of(version: RepositoryVersion) -> str | None:
    """The base of a version, None without one."""
    return None if version.base_number is None else version_href(version.repository_id, version.base_number)


def latest_href_of(repository: Repository) -> str | None:
    """The latest version of a repository, None before the first."""
    return None if repository.latest_number is None else version_href(repository.id, repository.latest_number)


def remotes_href() -> str:
    """The list of remotes."""
    return f"{API_PREFIX}/remotes/{current_form().resource_type}/"


def remote_href(remote_id: str) -> str:
    """A remote, by its UUID."""
    return f"{remotes_href()}{remote_id}/"


def distributions_href() -> str:
    """The list of distributions."""
    return f"{API_PREFIX}/distributions/{current_form().resource_type}/"


def distribution_href(distribution_id: str) -> str:
    """A distribution, by its UUID."""
    return f"{distributions_href()}{distribution_id}/"


def tasks_href() -> str:
    """The list of tasks."""
    return f"{API_PREFIX}/tasks/"


def task_href(task_id: str) -> str:
    """A task, by its UUID."""
    return f"{tasks_href()}{task_id}/"


def mirror_results_href() -> str:
    """The path of the list of results of mirrors."""
    return f"{API_PREFIX}/mirror-results/"


def worker_href(worker_id: str) -> str:
    """A worker, by its UUID."""
    return f"{workers_href()}{worker_id}/"


def workers_href() -> str:
    """The list of workers."""
    return f"{API_PREFIX}/workers/"


def syncs_href() -> str:
    """The list of syncs."""
    return f"{API_PREFIX}/syncs/"


def sync_href(sync_run_id: str) -> str:
    """A sync, by the UUID of its record."""
    return f"{syncs_href()}{sync_run_id}/"


def units_href(content_type: str) -> str:
    """The list of units of a content type, such as ``docker.tag``."""
    return f"{API_PREFIX}/content/{current_form().value}/{CONTENT_PATHS[content_type]}/"


def unit_href(content_type: str, unit_id: int) -> str:
    """A content unit, by its number."""
    return f"{units_href(content_type)}{unit_id}/"


def artifacts_href() -> str:
    """The list of artifacts."""
    return f"{API_PREFIX}/artifacts/"


def artifact_href(digest: Digest) -> str | None:
    """The bytes of a blob or of a manifest, by their SHA-256; None for content of another algorithm."""
    return f"{artifacts_href()}{digest.encoded}/" if digest.algorithm == "sha256" else None


def read_repository_href(href: str) -> str:
    """The id in the path of a repository."""
    return _read(_REPOSITORY, href, "repository", repository_href("<uuid>"))[0]


def read_remote_href(href: str) -> str:
    """The id in the path of a remote."""
    return _read(_REMOTE, href, "remote", remote_href("<uuid>"))[0]


def read_version_href(href: str) -> tuple[str, int]:
    """The repository's id and the number in the path of a repository version."""
    repository_id, number = _read(_VERSION, href, "repository version", f"{versions_href('<uuid>')}<number>/")
    if int(number) > MAX_NUMBER:
        raise InvalidReference(f"there is no version {number}")
    return repository_id, int(number)


def read_distribution_href(href: str) -> str:
    """The id in the path of a distribution."""
    return _read(_DISTRIBUTION, href, "distribution", distribution_href("<uuid>"))[0]


def read_task_href(href: str) -> str:
    """The id in the path of a task."""
    return _read(_TASK, href, "task", task_href("<uuid>"))[0]


def read_unit_href(href: str) -> tuple[str, int]:
    """The kind, ``blobs``, ``manifests`` or ``tags``, and the number in the path of a content unit."""
    kind, number = _read(_UNIT, href, "content unit", unit_href("docker.tag", 1))
    if int(number) > MAX_UNIT_ID:
        raise InvalidReference(f"there is no content unit {number}")
    return kind, int(number)


def _read(pattern: re.Pattern[str], href: str, kind: str, example: str) -> tuple[str, ...]:
    match = pattern.fullmatch(href)
    if match is None:
        raise InvalidReference(f"{href[:200]!r} is not the path of a {kind}, such as {example}")
    return match.groups()
