"""``webhooks/``: a notification starts the syncs of what it is about, from whoever has the secret and nobody else."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from airflow.models import Connection, DagModel, DagRun
from airflow.utils.session import create_session

from registry_sync.domain.mirrors import mirror_dag_id
from registry_sync.domain.records import SyncMode
from registry_sync.hooks import joined_runs
from registry_sync.hooks.webhooks import forget_webhooks
from support.metadata import Upstream, image, sync
from support.rest_api import DAG_ID, ApiServer, RestClient

SECRET = "a secret of enough characters"
HOST = "registry.example:5000"


@pytest.fixture
def hook(api_server: ApiServer, name: str) -> Iterator[str]:
    """A webhook of a distribution registry; its runs are removed."""
    del api_server
    _store(Connection(conn_id=name, conn_type="registry_webhook", password=SECRET, extra='{"kind": "distribution"}'))
    yield name
    with create_session() as session:
        session.query(DagRun).filter(DagRun.triggering_user_name == f"webhook {name}").delete()
        session.query(Connection).filter(Connection.conn_id == name).delete()
    forget_webhooks()


def _store(connection: Connection) -> None:
    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id == connection.conn_id).delete()
        session.add(connection)
    forget_webhooks()


@pytest.fixture
def anybody(api_server: ApiServer) -> RestClient:
    return api_server.client(role=None)


def mirrored(admin: RestClient, name: str, *, repository: str | None = None, **options: Any) -> str:
    """A repository of ``name`` whose remote is the upstream of the same name; its name."""
    given = {"url": f"https://{HOST}", "upstream_name": f"team/{name}", **options}
    remote = admin.post("remotes/container/container/", name=repository or name, **given)
    admin.post("repositories/container/container/", name=repository or name, remote=remote["pulp_href"])
    return repository or name


def pushed(*repositories: str, tag: str = "latest", host: str | None = HOST) -> dict[str, Any]:
    request = {"request": {"host": host}} if host else {}
    targets = [{"repository": repository, "tag": tag} for repository in repositories]
    return {"events": [{"action": "push", "target": target, **request} for target in targets]}


def send(client: RestClient, hook: str, document: Any, secret: str = SECRET, **more: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return client.ask("POST", f"webhooks/{hook}/", document, headers=headers, **more)


def accepted(response: requests.Response) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    return document


def runs_of(hook: str) -> list[DagRun]:
    with create_session() as session:
        found = session.query(DagRun).filter(DagRun.triggering_user_name == f"webhook {hook}")
        return list(found.order_by(DagRun.id))


def test_a_push_starts_the_syncs_that_it_feeds(
    admin: RestClient, anybody: RestClient, hook: str, api_server: ApiServer, name: str
) -> None:
    fed = mirrored(admin, name)
    also = mirrored(admin, name, repository=f"{name}-too", include_tags=["l*"])
    mirrored(admin, name, repository=f"{name}-other-tags", include_tags=["1.*"])
    mirrored(admin, name, repository=f"{name}-elsewhere", url="https://other.example")
    mirrored(admin, f"{name}x")
    document = accepted(send(anybody, hook, pushed(f"team/{name}", f"team/{name}")))
    assert document == {"pushed": 1, "started": [fed, also], "joined": []}
    assert [(run.dag_id, run.conf) for run in runs_of(hook)] == [
        (DAG_ID, {"repository": each, "remote": each, "mode": "additive"}) for each in (fed, also)
    ]
    # The mode is that of the last sync.
    upstream = Upstream()
    upstream.tag("latest", image("a layer", note=name))
    record, source = (store.by_name(fed) for store in (api_server.database.repositories, api_server.database.remotes))
    sync(api_server.database, record, upstream, remote=source)
    (found, _, _) = api_server.database.remotes.fed_repositories(source.spec.upstream)[:3]
    assert (found.name, found.mode) == (fed, SyncMode.MIRROR)


def test_a_declared_mirror_is_synced_by_its_own_dag(
    admin: RestClient, anybody: RestClient, hook: str, name: str
) -> None:
    mirrored(admin, name)
    with create_session() as session:
        session.add(DagModel(dag_id=mirror_dag_id(name), bundle_name="dags-folder", is_stale=False, is_paused=True))
    try:
        refused = send(anybody, hook, pushed(f"team/{name}"))
        assert (refused.status_code, "is paused; unpause it" in refused.text) == (503, True)
    finally:
        with create_session() as session:
            session.query(DagModel).filter(DagModel.dag_id == mirror_dag_id(name)).delete()


def test_official_images_of_docker_hub(admin: RestClient, anybody: RestClient, hook: str, name: str) -> None:
    mirrored(admin, name, url="https://registry-1.docker.io", upstream_name=name)
    _store(Connection(conn_id=hook, conn_type="registry_webhook", password=SECRET, extra='{"kind": "docker_hub"}'))
    document = {"push_data": {"tag": "latest"}, "repository": {"repo_name": f"library/{name}"}}
    response = anybody.ask("POST", f"webhooks/{hook}/", document, params={"secret": SECRET})
    assert accepted(response)["started"] == [name]


def test_the_webhook_may_say_what_remotes_call_the_registry(
    admin: RestClient, anybody: RestClient, hook: str, name: str
) -> None:
    mirrored(admin, name)
    notification = pushed(f"team/{name}", host="internal:5000")
    assert accepted(send(anybody, hook, notification))["started"] == []
    extra = '{"kind": "distribution", "repositories": "team/*"}'
    known = {"host": "registry.example", "port": 5000, "extra": extra}
    _store(Connection(conn_id=hook, conn_type="registry_webhook", password=SECRET, **known))
    assert accepted(send(anybody, hook, notification))["started"] == [name]
    assert accepted(send(anybody, hook, pushed(f"other/{name}")))["pushed"] == 0


def test_a_flood_starts_one_sync(
    admin: RestClient, anybody: RestClient, hook: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five thousand events, of eight senders, with others' names among them."""
    mirrored(admin, name)
    flood = pushed(*[f"team/{name}" if number % 2 else f"team/{name}-{number}" for number in range(50)])
    with ThreadPoolExecutor(8) as senders:
        responses = list(senders.map(lambda _: send(anybody, hook, flood), range(100)))
    # All threads of the API may be in use for a moment, of which a registry is told; it sends again.
    assert {response.status_code for response in responses} <= {202, 503}
    answers = [response.json() for response in responses if response.status_code == 202]
    assert len(answers) > 25
    assert sum(len(answer["started"]) for answer in answers) == len(runs_of(hook)) == 1
    # Neither does another process, which remembers nothing, nor one after the time for which runs are gathered.
    monkeypatch.setattr(joined_runs, "_queued_until", {})
    monkeypatch.setattr(joined_runs, "GATHERED_SECONDS", 3600)
    assert accepted(send(anybody, hook, pushed(f"team/{name}")))["joined"] == [name]
    assert len(runs_of(hook)) == 1
    # Once it runs, it may have listed already: the next one is queued.
    with create_session() as session:
        session.query(DagRun).filter(DagRun.triggering_user_name == f"webhook {hook}").update({"state": "running"})
    assert accepted(send(anybody, hook, pushed(f"team/{name}")))["started"] == [name]
    assert [run.state for run in runs_of(hook)] == ["running", "queued"]


@pytest.mark.parametrize("secret", ["", "wrong", SECRET + "x"])
def test_without_the_secret_nothing_is_found_out_or_started(
    admin: RestClient, anybody: RestClient, hook: str, name: str, secret: str
) -> None:
    mirrored(admin, name)
    _store(Connection(conn_id=f"{hook}-registry", conn_type="registry", password=SECRET))
    refused = send(anybody, hook, pushed(f"team/{name}"), secret)
    unknown = [send(anybody, other, pushed("team/x"), SECRET) for other in (f"{hook}-registry", f"{hook}-none")]
    assert {response.status_code for response in (refused, *unknown)} == {401}
    assert len({response.text for response in (refused, *unknown)}) == 1
    assert runs_of(hook) == []


def test_a_signature_of_github_is_of_the_bytes_that_were_sent(
    admin: RestClient, anybody: RestClient, hook: str, name: str
) -> None:
    mirrored(admin, name, url="https://ghcr.io", upstream_name=f"team/{name}")
    _store(Connection(conn_id=hook, conn_type="registry_webhook", password=SECRET, extra='{"kind": "github"}'))
    version = {"container_metadata": {"tag": {"name": "v1"}}}
    package = {"name": name, "package_type": "CONTAINER", "owner": {"login": "Team"}, "package_version": version}
    body = json.dumps({"action": "published", "registry_package": package}, indent=3).encode()
    headers = {"X-GitHub-Event": "registry_package", "Content-Type": "application/json"}
    for key, status in (("another secret of many characters", 401), (SECRET, 202)):
        headers["X-Hub-Signature-256"] = "sha256=" + hmac.new(key.encode(), body, "sha256").hexdigest()
        response = anybody.ask("POST", f"webhooks/{hook}/", headers=headers, data=body)
        assert response.status_code == status, response.text
    assert response.json()["started"] == [name]


def test_a_login_is_no_secret_and_a_secret_no_login(admin: RestClient, anybody: RestClient, hook: str) -> None:
    assert admin.ask("POST", f"webhooks/{hook}/", {"events": []}).status_code == 401
    assert anybody.ask("POST", f"webhooks/{hook}/", {"events": []}, auth=("any", SECRET)).status_code == 202
    for path in ("webhooks/../tasks/", "repositories/docker/docker/"):
        assert send(anybody, "x", {}).status_code == 401
        assert anybody.ask("GET", path, headers={"Authorization": f"Bearer {SECRET}"}).status_code in (401, 403, 404)


def test_who_may_send_is_told_what_is_wrong(anybody: RestClient, hook: str, caplog: pytest.LogCaptureFixture) -> None:
    assert send(anybody, hook, {"events": 1}).json() == {
        "non_field_errors": ["events is missing, or is no list of objects"]
    }
    assert send(anybody, hook, {"events": []}, params={"secrt": "x"}).status_code == 400
    assert anybody.ask("GET", f"webhooks/{hook}/").status_code in (401, 405)
    _store(Connection(conn_id=hook, conn_type="registry_webhook", password="short", extra='{"kind": "quay"}'))
    unusable = send(anybody, hook, {}, "short")
    assert (unusable.status_code, "the log of the API server" in unusable.text) == (503, True)
    assert "at least 20 characters" in caplog.text


def test_a_body_without_end_is_refused(anybody: RestClient, hook: str) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"events": ["'
        for _ in range(40):
            yield b"x" * 65536

    headers = {"Authorization": f"Bearer {SECRET}"}
    response = anybody.ask("POST", f"webhooks/{hook}/", headers=headers, data=parts())
    assert response.status_code == 400, response.text
