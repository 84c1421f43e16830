"""What registries say of themselves when somebody pushes: the notifications of six kinds, read into pushed tags.

Each kind is read as its registry documents it; what says nothing of a tag (a deletion, a blob, a manifest pushed by its
digest, a test message) is read as no tags. Nothing of a notification is trusted beyond the names in it: a sync asks the
registry itself.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from registry_sync.domain.known_registries import DOCKER_HUB_HOST, GITHUB_HOST
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.errors import InvalidNotification

#: The most tags that are read of one notification; distribution sends one or a few, in batches.
MAX_TAGS = 1000


class WebhookKind(str, Enum):
    """Whose notifications a webhook takes."""

    DISTRIBUTION = "distribution"
    DOCKER_HUB = "docker_hub"
    QUAY = "quay"
    HARBOR = "harbor"
    GITHUB = "github"
    GOOGLE = "google"


@dataclass(frozen=True)
class PushedTag:
    """A tag that was pushed: ``registry`` is ``host[:port]`` as the notification has it, None where it has none."""

    registry: str | None
    repository: RepositoryName
    tag: TagName


def read_notification(kind: WebhookKind, body: bytes, headers: Mapping[str, str]) -> tuple[PushedTag, ...]:
    """The pushed tags of a notification, each once, in order; ``headers`` have names in lower case.

    Raises :class:`InvalidNotification` for a body that is not one, and :class:`InvalidReference` for names that no
    registry has.
    """
    document = _object(body, "the body")
    found: dict[PushedTag, None] = {}
    for registry, repository, tag in _READERS[kind](document, headers):
        found[PushedTag(registry, RepositoryName(repository), TagName(tag))] = None
        if len(found) > MAX_TAGS:
            raise InvalidNotification(f"more than {MAX_TAGS:,} tags in one notification")
    return tuple(found)


_Tags = Iterator[tuple["str | None", str, str]]


def _of_distribution(document: Mapping[str, Any], _headers: Mapping[str, str]) -> _Tags:
    """https://distribution.github.io/distribution/about/notifications/: an envelope of events.

    Azure sends one such event without the envelope.
    """
    events = _entries(document, "events") if "events" in document else [document]
    for event in events:
        action = _text(event, "action")
        target = _part(event, "target") if action == "push" else {}
        if target.get("tag"):
            host = _part(event, "request").get("host") if "request" in event else None
            yield _optional_text(host, "request.host"), _text(target, "repository"), _text(target, "tag")


def _of_docker_hub(document: Mapping[str, Any], _headers: Mapping[str, str]) -> _Tags:
    """https://docs.docker.com/docker-hub/repos/manage/webhooks/; ``callback_url`` is not called."""
    yield DOCKER_HUB_HOST, _text(_part(document, "repository"), "repo_name"), _text(_part(document, "push_data"), "tag")


def _of_quay(document: Mapping[str, Any], _headers: Mapping[str, str]) -> _Tags:
    """Quay's event *Repository Push*; ``updated_tags`` are a list, or keys of an object in older releases."""
    if "updated_tags" not in document:  # the other events of a repository
        _text(document, "repository")
        return
    registry, _, _ = _text(document, "docker_url").partition("/")
    tags = document["updated_tags"]
    if not isinstance(tags, (list, dict)) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidNotification("updated_tags is not a list of tags")
    for tag in tags:
        yield registry, _text(document, "repository"), tag


_HARBOR_PUSHES = frozenset({"PUSH_ARTIFACT", "harbor.artifact.pushed"})


def _of_harbor(document: Mapping[str, Any], _headers: Mapping[str, str]) -> _Tags:
    """Harbor's two payload formats, its own and CloudEvents, which differ in the key of the data."""
    if _text(document, "type") not in _HARBOR_PUSHES:
        return
    data = _part(document, "event_data" if "event_data" in document else "data")
    repository = _text(_part(data, "repository"), "repo_full_name")
    for resource in _entries(data, "resources"):
        if resource.get("tag"):
            registry, _, _ = _text(resource, "resource_url").partition("/")
            yield registry, repository, _text(resource, "tag")


def _of_github(document: Mapping[str, Any], headers: Mapping[str, str]) -> _Tags:
    """The events ``registry_package`` and ``package`` of a container that was published or updated; others are none."""
    event = headers.get("x-github-event", "")
    if event not in ("registry_package", "package") or document.get("action") not in ("published", "updated"):
        return
    package = _part(document, event)
    if _text(package, "package_type").upper() not in ("CONTAINER", "DOCKER"):
        return
    version = _part(package, "package_version")
    tag = _part(_part(version, "container_metadata"), "tag") if version.get("container_metadata") else {}
    if tag.get("name"):
        owner = _text(_part(package, "owner"), "login").lower()
        yield GITHUB_HOST, f"{owner}/{_text(package, 'name').lower()}", _text(tag, "name")


def _of_google(document: Mapping[str, Any], _headers: Mapping[str, str]) -> _Tags:
    """A push subscription of Pub/Sub; ``data`` is the message of Artifact Registry's topic ``gcr``, in base64."""
    try:
        decoded = base64.b64decode(_text(_part(document, "message"), "data"), validate=True)
    except ValueError:
        raise InvalidNotification("message.data is not base64") from None
    data = _object(decoded, "message.data")
    if _text(data, "action") == "INSERT" and data.get("tag"):
        registry, slash, rest = _text(data, "tag").partition("/")
        repository, colon, tag = rest.rpartition(":")
        if not slash or not colon:
            raise InvalidNotification("tag is not host/repository:tag")
        yield registry, repository, tag


_READERS: Mapping[WebhookKind, Callable[[Mapping[str, Any], Mapping[str, str]], _Tags]] = {
    WebhookKind.DISTRIBUTION: _of_distribution,
    WebhookKind.DOCKER_HUB: _of_docker_hub,
    WebhookKind.QUAY: _of_quay,
    WebhookKind.HARBOR: _of_harbor,
    WebhookKind.GITHUB: _of_github,
    WebhookKind.GOOGLE: _of_google,
}


def _object(data: bytes, name: str) -> Mapping[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidNotification(f"{name} is not JSON") from None
    if not isinstance(document, dict):
        raise InvalidNotification(f"{name} is not a JSON object")
    return document


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise InvalidNotification(f"{name} is missing, or is no object")
    return value


def _entries(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = document.get(name)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InvalidNotification(f"{name} is missing, or is no list of objects")
    return value


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidNotification(f"{name} is missing, or is no text")
    return value


def _optional_text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidNotification(f"{name} is no text")
    return value or None
