"""Each kind's documented notifications are read, what is of no tag is none, and nothing else gets through."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.push_notifications import MAX_TAGS, PushedTag, WebhookKind, read_notification
from registry_sync.errors import InvalidNotification, InvalidReference

DIGEST = f"sha256:{'a' * 64}"


def event(**changed: Any) -> dict[str, Any]:
    """An event of distribution; a key with a dot is one of a part."""
    made: dict[str, Any] = {
        "id": "320678d8-ca14-430f-8bb6-4ca139cd83f7",
        "timestamp": "2016-03-09T14:44:26.402973972-08:00",
        "action": "push",
        "target": {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": 708,
            "digest": DIGEST,
            "length": 708,
            "repository": "team/app",
            "url": f"http://registry.example:5000/v2/team/app/manifests/{DIGEST}",
            "tag": "latest",
        },
        "request": {"id": "6df24a34", "addr": "192.0.2.1:39961", "host": "registry.example:5000", "method": "PUT"},
        "actor": {},
        "source": {"addr": "a1", "instanceID": "a53db899"},
    }
    for key, value in changed.items():
        part, dot, name = key.rpartition("__")
        place = made[part] if dot else made
        if value is None:
            place.pop(name)
        else:
            place[name] = value
    return made


def harbor(kind: str = "PUSH_ARTIFACT", *, is_cloud_event: bool = False) -> dict[str, Any]:
    data = {
        "resources": [{"digest": DIGEST, "tag": "1.0", "resource_url": "harbor.example/team/app:1.0"}],
        "repository": {
            "date_created": 1586922308,
            "name": "app",
            "namespace": "team",
            "repo_full_name": "team/app",
            "repo_type": "private",
        },
    }
    if is_cloud_event:
        return {
            "specversion": "1.0",
            "id": "4b2f89a6",
            "source": "/projects/1/webhook/policies/15",
            "type": kind,
            "datacontenttype": "application/json",
            "time": "2023-04-03T06:34:46Z",
            "data": data,
            "operator": "robot$ci",
        }
    return {"type": kind, "occur_at": 1586922308, "operator": "admin", "event_data": data}


def github(event_name: str = "registry_package", **changed: Any) -> dict[str, Any]:
    package = {
        "id": 10696,
        "name": "App/Worker",
        "namespace": "Team",
        "ecosystem": "CONTAINER",
        "package_type": "CONTAINER",
        "owner": {"login": "Team", "type": "Organization"},
        "package_version": {
            "id": 7,
            "version": DIGEST,
            "container_metadata": {"tag": {"name": "v2", "digest": DIGEST}, "labels": {}, "manifest": {}},
        },
        **changed,
    }
    return {"action": "published", event_name: package, "repository": {"full_name": "Team/App"}}


def google(**message: Any) -> dict[str, Any]:
    data = base64.b64encode(json.dumps(message).encode()).decode()
    return {"message": {"data": data, "messageId": "1", "attributes": {}}, "subscription": "projects/p/subscriptions/s"}


DOCKER_HUB = {
    "callback_url": "https://registry.hub.docker.example/u/team/app/hook/2141/",
    "push_data": {"pushed_at": 1417566161, "pusher": "someone", "tag": "latest"},
    "repository": {"name": "app", "namespace": "team", "repo_name": "team/app", "repo_url": "https://hub.example/"},
}
QUAY = {
    "name": "app",
    "repository": "team/app",
    "namespace": "team",
    "docker_url": "quay.example/team/app",
    "homepage": "https://quay.example/repository/team/app",
    "updated_tags": ["latest", "1.2"],
}
LATEST = (None, "team/app", "latest")
_GITHUB = {"x-github-event": "registry_package"}
READ: list[tuple[str, WebhookKind, Any, dict[str, str], list[tuple[str | None, str, str]]]] = [
    (
        "a batch, in which one tag is pushed twice",
        WebhookKind.DISTRIBUTION,
        {"events": [event(), event(action="pull"), event(target__tag="old"), event()]},
        {},
        [("registry.example:5000", "team/app", "latest"), ("registry.example:5000", "team/app", "old")],
    ),
    ("a manifest without a tag", WebhookKind.DISTRIBUTION, {"events": [event(target__tag=None)]}, {}, []),
    ("without the request", WebhookKind.DISTRIBUTION, {"events": [event(request=None)]}, {}, [LATEST]),
    ("no events", WebhookKind.DISTRIBUTION, {"events": []}, {}, []),
    (
        "Azure's event, which has no envelope",
        WebhookKind.DISTRIBUTION,
        event(request__host="team.azurecr.example"),
        {},
        [("team.azurecr.example", "team/app", "latest")],
    ),
    ("Azure's test", WebhookKind.DISTRIBUTION, {"id": "1", "timestamp": "2019-11-24", "action": "ping"}, {}, []),
    ("a push to Docker Hub", WebhookKind.DOCKER_HUB, DOCKER_HUB, {}, [("docker.io", "team/app", "latest")]),
    (
        "Quay's list",
        WebhookKind.QUAY,
        QUAY,
        {},
        [("quay.example", "team/app", "latest"), ("quay.example", "team/app", "1.2")],
    ),
    (
        "Quay's tags with images, of older releases",
        WebhookKind.QUAY,
        {**QUAY, "updated_tags": {"latest": "b750"}},
        {},
        [("quay.example", "team/app", "latest")],
    ),
    ("Quay's other events", WebhookKind.QUAY, {"repository": "team/app", "build_id": "1"}, {}, []),
    ("Harbor", WebhookKind.HARBOR, harbor(), {}, [("harbor.example", "team/app", "1.0")]),
    (
        "Harbor in CloudEvents",
        WebhookKind.HARBOR,
        harbor("harbor.artifact.pushed", is_cloud_event=True),
        {},
        [("harbor.example", "team/app", "1.0")],
    ),
    ("Harbor's deletion", WebhookKind.HARBOR, harbor("DELETE_ARTIFACT"), {}, []),
    ("GitHub", WebhookKind.GITHUB, github(), _GITHUB, [("ghcr.io", "team/app/worker", "v2")]),
    (
        "GitHub's former event",
        WebhookKind.GITHUB,
        github("package"),
        {"x-github-event": "package"},
        [("ghcr.io", "team/app/worker", "v2")],
    ),
    ("GitHub's ping", WebhookKind.GITHUB, {"zen": "Speak like a human.", "hook_id": 1}, {"x-github-event": "ping"}, []),
    ("GitHub's other packages", WebhookKind.GITHUB, github(package_type="npm"), _GITHUB, []),
    ("no tag at GitHub", WebhookKind.GITHUB, github(package_version={"id": 1, "version": DIGEST}), _GITHUB, []),
    (
        "Google",
        WebhookKind.GOOGLE,
        google(action="INSERT", digest=f"r.pkg.example/p/app@{DIGEST}", tag="r.pkg.example/p/app:1.0"),
        {},
        [("r.pkg.example", "p/app", "1.0")],
    ),
    ("Google, by digest", WebhookKind.GOOGLE, google(action="INSERT", digest=f"r.pkg.example/p/app@{DIGEST}"), {}, []),
    ("Google's deletion", WebhookKind.GOOGLE, google(action="DELETE", tag="r.pkg.example/p/app:1.0"), {}, []),
]


@pytest.mark.parametrize(("_what", "kind", "document", "headers", "expected"), READ, ids=[case[0] for case in READ])
def test_what_a_registry_documents_is_read(
    _what: str, kind: WebhookKind, document: Any, headers: dict[str, str], expected: list[tuple[Any, str, str]]
) -> None:
    read = read_notification(kind, json.dumps(document).encode(), headers)
    assert [(one.registry, one.repository, one.tag) for one in read] == expected
    assert all(isinstance(one, PushedTag) for one in read)


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (WebhookKind.DISTRIBUTION, b"not JSON", "the body is not JSON"),
        (WebhookKind.DISTRIBUTION, b"[]", "not a JSON object"),
        (WebhookKind.DISTRIBUTION, b"[" * 100_000, "the body is not JSON"),
        (WebhookKind.DISTRIBUTION, b'{"events": {}}', "events"),
        (WebhookKind.DISTRIBUTION, json.dumps({"events": [event(target__repository=7)]}).encode(), "repository"),
        (WebhookKind.DISTRIBUTION, json.dumps({"events": [event(request__host=7)]}).encode(), "request.host"),
        (WebhookKind.DOCKER_HUB, b'{"push_data": {"tag": "latest"}}', "repository"),
        (WebhookKind.QUAY, json.dumps({**QUAY, "updated_tags": [1]}).encode(), "updated_tags"),
        (WebhookKind.HARBOR, b'{"type": "PUSH_ARTIFACT"}', "data"),
        (WebhookKind.GOOGLE, b'{"message": {"data": "\xc3\xa4"}}', "message.data"),
        (WebhookKind.GOOGLE, json.dumps(google(action="INSERT", tag="no-host")).encode(), "host/repository:tag"),
    ],
)
def test_what_is_not_of_that_form_is_refused_and_says_where(kind: WebhookKind, body: bytes, message: str) -> None:
    with pytest.raises(InvalidNotification, match=message):
        read_notification(kind, body, {})


@pytest.mark.parametrize("changed", [{"target__repository": "../etc"}, {"target__tag": "a b"}])
def test_names_that_no_registry_has_are_refused(changed: dict[str, str]) -> None:
    with pytest.raises(InvalidReference):
        read_notification(WebhookKind.DISTRIBUTION, json.dumps({"events": [event(**changed)]}).encode(), {})


def test_a_notification_of_very_many_tags_is_refused() -> None:
    body = json.dumps({**QUAY, "updated_tags": [f"t{number}" for number in range(MAX_TAGS + 1)]}).encode()
    with pytest.raises(InvalidNotification, match="more than 1,000 tags"):
        read_notification(WebhookKind.QUAY, body, {})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    kind=st.sampled_from(WebhookKind),
    number=st.integers(0, len(READ) - 1),
    path=st.lists(st.integers(0, 6), max_size=4),
    value=_JSON,
)
def test_a_notification_with_any_part_replaced_is_read_or_refused(
    kind: WebhookKind, number: int, path: list[int], value: Any
) -> None:
    """Whatever is sent, it is never a defect here."""
    document = json.loads(json.dumps(READ[number][2]))
    place: Any = document
    for step in path:
        keys = list(place) if isinstance(place, dict) else range(len(place)) if isinstance(place, list) else []
        if not keys:
            break
        key = list(keys)[step % len(keys)]
        if step == path[-1]:
            place[key] = value
            break
        place = place[key]
    with contextlib.suppress(InvalidReference):
        read_notification(kind, json.dumps(document).encode(), READ[number][3])
