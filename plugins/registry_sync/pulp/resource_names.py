"""Pulp's names of resources, PRNs: ``prn:container.containerrepository:<uuid>``; the same in both forms of paths.

Content units have numbers here, not UUIDs; the number is the last part of the UUID of their name, in hexadecimal.
"""

from __future__ import annotations

import re

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RepositoryVersion, version_uuid
from registry_sync.errors import InvalidReference

_PRN = re.compile(r"prn:(?P<model>[a-z]+\.[a-z]+):(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
REPOSITORY = "container.containerrepository"
REMOTE = "container.containerremote"
DISTRIBUTION = "container.containerdistribution"
TASK = "core.task"
VERSION = "core.repositoryversion"
ARTIFACT, WORKER = "core.artifact", "core.worker"
BLOB, MANIFEST, TAG = "container.blob", "container.manifest", "container.tag"


def prn(model: str, resource_id: str) -> str:
    """The name of a resource of a model by its UUID."""
    return f"prn:{model}:{resource_id}"


def repository_prn(repository_id: str) -> str:
    """The name of a repository."""
    return prn(REPOSITORY, repository_id)


def remote_prn(remote_id: str) -> str:
    """The name of a remote."""
    return prn(REMOTE, remote_id)


def distribution_prn(distribution_id: str) -> str:
    """The name of a distribution."""
    return prn(DISTRIBUTION, distribution_id)


def task_prn(task_id: str) -> str:
    """The name of a task."""
    return prn(TASK, task_id)


def version_prn(version: RepositoryVersion) -> str:
    """The name of a repository version."""
    return prn(VERSION, version_uuid(version.repository_id, version.number))


def uuid_of(digits: str) -> str:
    """Hexadecimal digits, at most 32, as a UUID: after zeros where they are fewer."""
    digits = digits.rjust(32, "0")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _unit_prn(model: str, unit_id: int) -> str:
    return prn(model, uuid_of(f"{unit_id:x}"))


def artifact_prn(digest: Digest) -> str:
    """The name of an artifact, by the first half of its digest."""
    return prn(ARTIFACT, uuid_of(digest.encoded[:32]))


def blob_prn(unit_id: int) -> str:
    """The name of a blob."""
    return _unit_prn(BLOB, unit_id)


def manifest_prn(unit_id: int) -> str:
    """The name of a manifest."""
    return _unit_prn(MANIFEST, unit_id)


def tag_prn(unit_id: int) -> str:
    """The name of a tag."""
    return _unit_prn(TAG, unit_id)


def read_prn(text: str, model: str) -> str:
    """The UUID in the name of a resource of that model. Raises :class:`InvalidReference`."""
    found = _PRN.fullmatch(text)
    if found is None or found["model"] != model:
        raise InvalidReference(f"{text[:200]!r} is not a PRN such as prn:{model}:<uuid>")
    return found["id"]


def read_unit_prn(text: str, model: str) -> int:
    """The number in the name of a content unit of that model. Raises :class:`InvalidReference`."""
    return int(read_prn(text, model).replace("-", ""), 16)
