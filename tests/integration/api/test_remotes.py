"""Remotes over REST, and what becomes of their credentials."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
from typing import Any

import pytest

from registry_sync.domain.platforms import parse_platforms
from registry_sync.domain.remote import Policy
from registry_sync.hooks.connection import read_connection
from support.rest_api import ApiServer, RestClient

LIST = "remotes/docker/docker/"
HUB = {"url": "https://registry-1.docker.io", "upstream_name": "library/hello-world"}
DOCUMENTED = [
    "pulp_created", "pulp_href", "pulp_last_updated", "download_concurrency", "name", "policy", "proxy_url",
    "ssl_ca_certificate", "ssl_client_certificate", "ssl_client_key", "ssl_validation", "upstream_name", "url",
    "whitelist_tags",
]  # fmt: skip


def connection(conn_id: str | None) -> Any:
    """The stored connection; None when there is none."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(Connection).filter(Connection.conn_id == conn_id).one_or_none()
        if found is not None:
            session.expunge(found)
        return found


@pytest.fixture(scope="module")
def private_key(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("key") / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True, capture_output=True)
    return path.read_text()


def test_a_remote_is_made_and_read_back_as_documented(admin: RestClient, name: str) -> None:
    made = admin.post(LIST, name=name, **HUB)
    assert admin.get(made["pulp_href"]) == made
    assert list(made)[: len(DOCUMENTED)] == DOCUMENTED
    defaults = {
        "download_concurrency": 64, "policy": "immediate", "proxy_url": None, "ssl_ca_certificate": None,
        "ssl_client_certificate": None, "ssl_client_key": None, "ssl_validation": True, "whitelist_tags": None,
        "exclude_tags": None, "username": None, "password": None, "conn_id": None, "platforms": None,
        "include_referrers": True, "allow_sparse": False, "allow_schema1": False, "include_foreign_layers": False,
        "max_held_share": None, "max_removed_share": 0.5, "max_removed_tags": None, "min_tags": None,
        "max_total_bytes": None,
        "digest_list": "auto", "regex": [], "regex_all": [], "exclude_regex": [], "semver": None, "newest": None,
        "order": "version", "newer_than": None, "digests": [], "tag_sets": [], "pulp_labels": {}, **HUB,
    }  # fmt: skip
    assert {key: made[key] for key in defaults} == defaults
    assert set(made) == {*defaults, "pulp_created", "pulp_href", "pulp_last_updated", "name"}


def test_every_field_of_a_remote_is_kept(admin: RestClient, api_server: ApiServer, name: str) -> None:
    given = {
        "policy": "on_demand", "download_concurrency": 7, "whitelist_tags": "latest,3.*", "exclude_tags": "*-rc?",
        "proxy_url": "http://proxy.example:3128", "ssl_validation": False,
        "platforms": ["linux/amd64", "linux/arm/v7"], "allow_sparse": True, "allow_schema1": True,
        "include_foreign_layers": True, "max_held_share": 0.1, "max_removed_share": None, "max_removed_tags": 5,
        "min_tags": 2, "max_total_bytes": 50_000_000_000, "digest_list": "off", "regex": [r"v\d{1,2}"],
        "regex_all": [".+"], "exclude_regex": [".*-rc"], "semver": {"range": ">=3", "suffixes": "exclude"}, "newest": 3,
        "order": "first_seen", "newer_than": "90d", "digests": [f"old@sha256:{'a' * 64}"],
        "tag_sets": [{"include": ["3.{1,2}"], "newest": {"count": 1, "of": "tags"}}, {"include": ["latest"]}],
        "include_referrers": False, "pulp_labels": {"team": "web"}, "conn_id": "quay",
    }  # fmt: skip
    made = admin.post(LIST, name=name, **HUB, **given)
    assert {key: made[key] for key in given} == given
    spec = api_server.database.remotes.by_name(name).spec
    assert (spec.policy, spec.include_tags, spec.exclude_tags) == (Policy.ON_DEMAND, ("latest", "3.*"), ("*-rc?",))
    assert spec.platforms == parse_platforms(["linux/amd64", "linux/arm/v7"])
    assert spec.conn_id == "quay"
    assert (spec.allow_sparse, spec.max_held_share, spec.max_removed_share, spec.max_removed_tags) == (
        True, 0.1, None, 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("semver", "one", "cannot be read at 'one'"),
        ("semver", {"ranges": "1"}, "semver has no 'ranges'"),
        ("regex", ["(a"], "is not one of RE2"),
        ("newest", 0, "give a number from 1"),
        ("newer_than", "90d", "the order version has no times"),
        ("digests", ["latest"], "'latest' is no digest"),
        ("tag_sets", [{}, {"semver": 1}], "tag_sets[1].semver is '1'"),
        ("whitelist_tags", "{a,b", "{ without }"),
    ],
)
def test_a_rule_for_tags_that_has_no_meaning_is_an_error_of_its_field(
    admin: RestClient, name: str, field: str, value: Any, said: str
) -> None:
    problem = admin.post(LIST, 400, name=name, **HUB, **{field: value})
    assert list(problem) == [field]
    assert said in problem[field][0]


def test_texts_of_numbers_and_flags_are_taken_as_command_lines_send_them(admin: RestClient, name: str) -> None:
    made = admin.post(LIST, name=name, **HUB, download_concurrency="7", ssl_validation="False")
    assert (made["download_concurrency"], made["ssl_validation"]) == (7, False)


def test_credentials_are_kept_in_a_connection_for_that_registry_alone(
    admin: RestClient, name: str, private_key: str
) -> None:
    made = admin.post(
        LIST, name=name, url="http://registry.example:5000", upstream_name="app", username="joe", password="hunter22",
        ssl_client_key=private_key,
    )  # fmt: skip
    assert [made[field] for field in ("username", "password", "ssl_client_key")] == [None, None, None]
    read = read_connection(made["conn_id"], connection(made["conn_id"]))
    assert (read.credentials.username, read.credentials.password) == ("joe", "hunter22")
    assert read.client_key == private_key.strip()
    assert str(read.registry) == "http://registry.example:5000"
    assert read.unknown_extra == ()


def test_a_secret_is_in_no_table_no_response_and_no_log(
    admin: RestClient, api_server: ApiServer, name: str, private_key: str, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    secrets = {"password": "do-not-tell-4711", "ssl_client_key": private_key}
    made = admin.post(LIST, name=name, **HUB, username="joe", **secrets)
    responses = [
        admin.ask("GET", made["pulp_href"]).text,
        admin.ask("GET", LIST, params={"name": name}).text,
        admin.ask("PATCH", made["pulp_href"], {"password": "do-not-tell-4711", "nonsense": 1}).text,
        admin.ask("POST", LIST, {"name": name, **HUB, "password": ["do-not-tell-4711"]}).text,
        admin.ask("POST", LIST, {"name": name, **HUB, "ssl_client_key": "do-not-tell-4711"}).text,
    ]
    ours = sqlite3.connect(api_server.database.location.removeprefix("sqlite:///"))
    tables = "\n".join(ours.iterdump())
    ours.close()
    printed = capfd.readouterr()
    key_line = private_key.splitlines()[1]
    for text in (*responses, tables, caplog.text, printed.out, printed.err):
        assert "do-not-tell-4711" not in text
        assert key_line not in text
    row = connection(made["conn_id"])
    assert row.is_encrypted
    assert row.is_extra_encrypted


def test_a_changed_credential_leaves_the_others(admin: RestClient, name: str) -> None:
    made = admin.post(LIST, name=name, **HUB, username="joe", password="old-secret")
    changed = admin.patch(made["pulp_href"], password="new-secret")
    assert changed["conn_id"] == made["conn_id"]
    stored = connection(made["conn_id"])
    assert (stored.login, stored.password) == ("joe", "new-secret")
    admin.patch(made["pulp_href"], password=None)
    assert (connection(made["conn_id"]).login, connection(made["conn_id"]).password) == ("joe", None)


def test_a_response_changed_and_sent_back_keeps_the_credentials(admin: RestClient, name: str) -> None:
    made = admin.post(LIST, name=name, **HUB, username="joe", password="hunter22")
    replaced = admin.put(made["pulp_href"], **{**made, "policy": "streamed"})
    assert (replaced["policy"], replaced["conn_id"]) == ("streamed", made["conn_id"])
    assert connection(made["conn_id"]).password == "hunter22"


def test_credentials_do_not_go_along_to_another_registry(admin: RestClient, name: str) -> None:
    made = admin.post(LIST, name=name, **HUB, username="joe", password="hunter22")
    refused = admin.patch(made["pulp_href"], 400, url="https://elsewhere.example")
    assert refused.keys() == {"url"}
    assert connection(made["conn_id"]).host == "registry-1.docker.io"
    moved = admin.patch(made["pulp_href"], url="https://elsewhere.example", username="jane")
    assert moved["conn_id"] != made["conn_id"]
    assert connection(made["conn_id"]) is None
    stored = connection(moved["conn_id"])
    assert (stored.host, stored.login, stored.password) == ("elsewhere.example", "jane", None)
    bare = admin.patch(made["pulp_href"], url="https://third.example", conn_id=None)
    assert bare["conn_id"] is None
    assert connection(moved["conn_id"]) is None


def test_a_remote_has_a_connection_or_credentials_not_both(admin: RestClient, name: str) -> None:
    problem = admin.post(LIST, 400, name=name, **HUB, conn_id="quay", password="hunter22")
    assert problem == {"conn_id": ["Send a connection or credentials, not both."]}
    made = admin.post(LIST, name=name, **HUB, conn_id="quay")
    assert admin.patch(made["pulp_href"], 400, password="hunter22").keys() == {"conn_id"}
    own = admin.patch(made["pulp_href"], conn_id=None, password="hunter22")["conn_id"]
    assert connection(own).password == "hunter22"
    back = admin.patch(made["pulp_href"], conn_id="quay")
    assert back["conn_id"] == "quay"
    assert connection(own) is None


def test_the_connection_of_one_remote_cannot_be_mistaken_for_another(admin: RestClient, name: str) -> None:
    own = admin.post(LIST, name=name, **HUB, password="hunter22")["conn_id"]
    problem = admin.post(LIST, 400, name=f"{name}-thief", url="https://thief.example", upstream_name="app", conn_id=own)
    assert problem.keys() == {"conn_id"}
    disguised = admin.patch(admin.post(LIST, name=f"{name}-2", **HUB)["pulp_href"], 400, conn_id=own.upper())
    assert disguised.keys() == {"conn_id"}


def test_a_remote_that_is_not_made_leaves_no_connection_behind(admin: RestClient, name: str) -> None:
    from airflow.models import Connection
    from airflow.utils.session import create_session

    def count() -> int:
        with create_session() as session:
            return int(session.query(Connection).count())

    admin.post(LIST, name=name, **HUB)
    before = count()
    assert admin.post(LIST, 400, name=name, **HUB, password="hunter22") == {"name": ["This field must be unique."]}
    assert count() == before


def test_removing_a_remote_removes_its_own_connection_and_no_other(admin: RestClient, name: str) -> None:
    own = admin.post(LIST, name=name, **HUB, password="hunter22")
    admin.delete(own["pulp_href"])
    assert connection(own["conn_id"]) is None
    assert admin.get(own["pulp_href"], 404)
    theirs = admin.post(LIST, name=name, **HUB, conn_id="airflow_db_of_mine")
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Connection(conn_id="airflow_db_of_mine", conn_type="registry"))
    admin.delete(theirs["pulp_href"])
    assert connection("airflow_db_of_mine") is not None


def test_remotes_are_listed_as_repositories_are(admin: RestClient, name: str) -> None:
    for suffix in ("b", "a"):
        admin.post(LIST, name=f"{name}-{suffix}", **HUB)
    page = admin.get(LIST, name__in=f"{name}-a,{name}-b", ordering="-name", limit=1)
    assert (page["count"], page["results"][0]["name"]) == (2, f"{name}-b")
    assert admin.get(page["next"])["results"][0]["name"] == f"{name}-a"


def test_the_extra_of_a_connection_is_what_the_hook_reads(admin: RestClient, name: str, private_key: str) -> None:
    conn_id = admin.post(LIST, name=name, **HUB, ssl_client_key=private_key)["conn_id"]
    assert json.loads(connection(conn_id).extra) == {"client_private_key": private_key}
    assert connection(conn_id).conn_type == "registry"
