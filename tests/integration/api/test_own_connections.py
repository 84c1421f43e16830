"""Connections that remotes have of their own: made, changed and removed with them, whoever changes what at once."""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.remote import RemoteSpec, own_connection_prefix
from registry_sync.hooks.connection import KNOWN_EXTRA, SECRET_EXTRA
from registry_sync.hooks.own_connections import upgrade_connections
from support.rest_api import ApiServer, RestClient

LIST = "remotes/docker/docker/"
HUB = {"url": "https://registry-1.docker.io", "upstream_name": "library/hello-world"}


@contextmanager
def airflow_session() -> Iterator[Any]:
    from airflow.utils.session import create_session

    with create_session() as session:
        yield session


def own_connections(href: str) -> list[str]:
    """Ids of the connections that belong to a remote, whether or not it points to them."""
    from airflow.models import Connection

    prefix = own_connection_prefix(href.split("/")[-2])
    with airflow_session() as session:
        found = session.query(Connection.conn_id).filter(Connection.conn_id.startswith(prefix, autoescape=True))
        return [conn_id for (conn_id,) in found]


def read(conn_id: str | None) -> dict[str, Any] | None:
    from airflow.models import Connection

    with airflow_session() as session:
        found = session.query(Connection).filter(Connection.conn_id == conn_id).one_or_none()
        return None if found is None else {"login": found.login, "password": found.password, "extra": found.extra}


def add(conn_id: str, **fields: Any) -> None:
    from airflow.models import Connection

    with airflow_session() as session:
        session.add(Connection(**{"conn_id": conn_id, "conn_type": "registry", **fields}))


def at_once(*work: Callable[[], Any]) -> list[Any]:
    barrier = threading.Barrier(len(work))

    def begin(one: Callable[[], Any]) -> Any:
        barrier.wait(timeout=60)
        return one()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(begin, work))


def test_credentials_that_are_sent_at_once_end_in_one_connection(api_server: ApiServer, name: str) -> None:
    admin = api_server.client()
    href = admin.post(LIST, name=name, **HUB)["pulp_href"]
    sent: list[dict[str, str]] = [{"username": "joe"}, {"password": "hunter22"}, {"password": "hunter22"}] * 2
    at_once(*[lambda sent=fields: api_server.client().patch(href, **sent) for fields in sent])
    (only,) = own_connections(href)
    assert admin.get(href)["conn_id"] == only
    stored = read(only)
    assert stored is not None
    assert (stored["login"], stored["password"]) == ("joe", "hunter22")


def test_no_connection_is_left_whichever_of_many_changes_is_last(api_server: ApiServer, name: str) -> None:
    admin = api_server.client()
    href = admin.post(LIST, name=name, **HUB, password="hunter22")["pulp_href"]
    changes: list[dict[str, Any]] = [
        {"password": "other-secret"}, {"conn_id": None}, {"url": "https://elsewhere.example", "password": "third-one"},
        {"conn_id": "quay"}, {"password": "fourth-one"}, {"conn_id": None},
    ]  # fmt: skip
    at_once(*[lambda change=change: api_server.client().ask("PATCH", href, change) for change in changes])
    pointed = admin.get(href)["conn_id"]
    assert own_connections(href) == ([] if pointed in (None, "quay") else [pointed])


def test_a_remote_deleted_while_it_is_changed_leaves_no_connection(api_server: ApiServer, name: str) -> None:
    admin = api_server.client()
    for number in range(3):
        href = admin.post(LIST, name=f"{name}-{number}", **HUB, password="hunter22")["pulp_href"]
        at_once(
            lambda href=href: api_server.client().delete(href),
            *[lambda href=href: api_server.client().ask("PATCH", href, {"password": "x" * 9})] * 3,
            lambda href=href: api_server.client().ask("PATCH", href, {"url": "https://a.example", "password": "y"}),
        )
        assert admin.get(href, 404)
        assert own_connections(href) == []


def test_a_replaced_remote_keeps_or_loses_its_connection_as_it_says(admin: RestClient, name: str) -> None:
    made = admin.post(LIST, name=name, **HUB, username="joe", password="hunter22")
    kept = admin.put(made["pulp_href"], name=name, **HUB)
    assert own_connections(made["pulp_href"]) == [kept["conn_id"]] == [made["conn_id"]]
    moved = admin.put(made["pulp_href"], name=name, url="https://b.example", upstream_name="app", password="second-one")
    assert own_connections(made["pulp_href"]) == [moved["conn_id"]] != [made["conn_id"]]
    bare = admin.put(made["pulp_href"], name=name, **HUB, conn_id=None)
    assert (bare["conn_id"], own_connections(made["pulp_href"])) == (None, [])


def test_deleting_a_remote_that_points_to_anothers_connection_leaves_it(api_server: ApiServer, name: str) -> None:
    """A remote gets there by a DAG's parameters, or by hand in the database."""
    admin = api_server.client()
    owner = admin.post(LIST, name=name, **HUB, password="hunter22")
    guest = admin.post(LIST, name=f"{name}-guest", **HUB)
    guest_id = guest["pulp_href"].split("/")[-2]
    for change in (lambda: admin.patch(guest["pulp_href"], conn_id=None), lambda: admin.delete(guest["pulp_href"])):
        api_server.database.remotes.change(guest_id, lambda spec: spec.changed(conn_id=owner["conn_id"]))
        change()
        assert read(owner["conn_id"]) is not None


def test_what_was_left_of_a_remote_goes_with_it(api_server: ApiServer, name: str) -> None:
    """A sync that describes its remote anew may have pointed it elsewhere."""
    admin = api_server.client()
    made = admin.post(LIST, name=name, **HUB, password="hunter22")
    api_server.database.remotes.ensure(RemoteSpec.parse(name, HUB["url"], HUB["upstream_name"], conn_id="quay"))
    assert own_connections(made["pulp_href"]) == [made["conn_id"]]
    admin.patch(made["pulp_href"], policy="streamed")
    assert own_connections(made["pulp_href"]) == []


def test_a_remote_that_cannot_be_deleted_keeps_its_connection(
    api_server: ApiServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = api_server.client()
    made = admin.post(LIST, name=name, **HUB, username="joe", password="hunter22")
    from registry_sync.db.remotes import RemoteStore
    from registry_sync.errors import DatabaseUnavailable

    def refuse(_store: RemoteStore, _remote_id: str) -> None:
        raise DatabaseUnavailable("busy")

    with monkeypatch.context() as patch:
        patch.setattr(RemoteStore, "delete", refuse)
        assert admin.ask("DELETE", made["pulp_href"]).status_code == 503
    assert read(made["conn_id"]) == {"login": "joe", "password": "hunter22", "extra": None}
    admin.delete(made["pulp_href"])


# -- what Airflow shows of them ---------------------------------------------------------------------------------------


def test_airflow_shows_no_secret_of_any_connection(admin: RestClient, name: str) -> None:
    extra = {name: f"{'hush' if name in SECRET_EXTRA else 'shown'}-of-{name}" for name in KNOWN_EXTRA}
    extra |= {"proxies": {"https": "http://joe:hush-of-proxies@proxy.example"}}
    add(name, login="joe", password="hush-password", host="registry.example", extra=json.dumps(extra))
    responses = [admin.ask("GET", f"/api/v2/connections/{name}"), admin.ask("GET", "/api/v2/connections?limit=1000")]
    for response in responses:
        assert response.status_code == 200
        assert "hush-" not in response.text
        assert "shown-of-client_certificate" in response.text


def test_airflow_does_not_show_the_key_of_a_remote(admin: RestClient, name: str, tmp_path: Any) -> None:
    path = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True, capture_output=True)
    conn_id = admin.post(LIST, name=name, **HUB, ssl_client_key=path.read_text())["conn_id"]
    shown = admin.ask("GET", f"/api/v2/connections/{conn_id}").text
    assert path.read_text().splitlines()[1] not in shown
    assert "***" in shown


# -- what earlier releases stored -------------------------------------------------------------------------------------


@pytest.fixture
def earlier(api_server: ApiServer, name: str) -> Iterator[tuple[Database, str, str]]:
    """The database, a remote's path, and its connection as the release before made them."""
    admin, conn_id = api_server.client(), f"registry_sync_remote_{secrets.token_hex(16)}"
    href = admin.post(LIST, name=name, **HUB)["pulp_href"]
    extra = json.dumps({"client_key": "-----BEGIN KEY-----", "timeout": 5})
    add(conn_id, host="registry-1.docker.io", schema="https", login="joe", password="hunter22", extra=extra)
    remote_id = href.split("/")[-2]
    api_server.database.remotes.change(remote_id, lambda spec: spec.changed(conn_id=conn_id))
    yield api_server.database, href, conn_id
    admin.ask("DELETE", href)


UPGRADED = {
    "login": "joe",
    "password": "hunter22",
    "extra": json.dumps({"timeout": 5, "client_private_key": "-----BEGIN KEY-----"}),
}


def test_connections_of_an_earlier_release_are_upgraded(
    earlier: tuple[Database, str, str], admin: RestClient, name: str
) -> None:
    database, href, before = earlier
    key = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n"
    add(name, extra=json.dumps({"client_certificate": f"-----BEGIN CERTIFICATE-----\n{key}"}))
    thief = admin.post(LIST, name=f"{name}-thief", url="https://thief.example", upstream_name="app")["pulp_href"]
    database.remotes.change(thief.split("/")[-2], lambda spec: spec.changed(conn_id=before))
    said = "\n".join(upgrade_connections(database))
    assert f"connection {before}: it is {admin.get(href)['conn_id']} now, and belongs to remote" in said
    assert own_connections(href) == [admin.get(href)["conn_id"]]
    assert read(own_connections(href)[0]) == UPGRADED
    assert read(before) is None
    assert read(name) == {
        "login": None,
        "password": None,
        "extra": json.dumps({"client_certificate": "-----BEGIN CERTIFICATE-----\n", "client_private_key": key}),
    }
    assert before not in "\n".join(upgrade_connections(database)), "a repeat finds nothing to do"
    admin.delete(thief)


def test_a_change_over_rest_upgrades_the_connection_too(earlier: tuple[Database, str, str], admin: RestClient) -> None:
    _, href, before = earlier
    response = admin.get(href)
    assert response["conn_id"] == before
    changed = admin.put(href, **{**response, "password": "new-secret"})
    assert own_connections(href) == [changed["conn_id"]]
    assert read(changed["conn_id"]) == {**UPGRADED, "password": "new-secret"}
    assert read(before) is None


def test_deleting_a_remote_removes_the_connection_of_an_earlier_release(
    earlier: tuple[Database, str, str], admin: RestClient
) -> None:
    _, href, before = earlier
    admin.delete(href)
    assert (read(before), own_connections(href)) == (None, [])
