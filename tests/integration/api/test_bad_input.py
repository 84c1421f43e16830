"""Bad input, as a table: each is answered with 400 and the field named, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from support.rest_api import API, RestClient

REPOSITORIES = "repositories/docker/docker/"
REMOTES = "remotes/docker/docker/"
REMOTE = {"name": "n", "url": "https://registry.example", "upstream_name": "app"}
PEM_OF_NOTHING = "-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n"

NAMES: list[Any] = [None, 17, True, [], {}, "", "   ", "a\nb", "a\x00b", "a\u200bb", "a" * 256, "\ud800"]
#: Names that no registry could serve (distribution specification, "Pulling manifests").
NOT_SERVABLE = ["Hello", "a b", "/a", "a/", "a//b", "a..b", "-a", "a:latest", "a@sha256", "é", "."]
PEM_OF_A_KEY = "-----BEGIN PRIVATE KEY-----\nYQ==\n-----END PRIVATE KEY-----\n"
BAD_REPOSITORIES: list[tuple[str, dict[str, Any]]] = [
    *(("name", {"name": name}) for name in (*NAMES, *NOT_SERVABLE)),
    ("name", {}),
    ("nonsense", {"name": "n", "nonsense": 1}),
    ("latest_number", {"name": "n", "latest_number": 7}),
    ("description", {"name": "n", "description": 7}),
    ("description", {"name": "n", "description": "a\x00b"}),
    ("description", {"name": "n", "description": "a" * 10_001}),
    ("retain_repo_versions", {"name": "n", "retain_repo_versions": 0}),
    ("retain_repo_versions", {"name": "n", "retain_repo_versions": -1}),
    ("retain_repo_versions", {"name": "n", "retain_repo_versions": 2**31}),
    ("retain_repo_versions", {"name": "n", "retain_repo_versions": 1.5}),
    ("retain_repo_versions", {"name": "n", "retain_repo_versions": "many"}),
    ("retain_repo_versions", {"name": "n", "retain_repo_versions": True}),
    ("pulp_labels", {"name": "n", "pulp_labels": None}),
    ("pulp_labels", {"name": "n", "pulp_labels": ["a"]}),
    ("pulp_labels", {"name": "n", "pulp_labels": {"a": 1}}),
    ("pulp_labels", {"name": "n", "pulp_labels": {"": "b"}}),
    ("pulp_labels", {"name": "n", "pulp_labels": {"a": "\x00"}}),
    ("pulp_labels", {"name": "n", "pulp_labels": {str(number): "" for number in range(101)}}),
]
BAD_REMOTES: list[tuple[str, dict[str, Any]]] = [
    *(("name", {"name": name}) for name in NAMES),
    *(
        ("url", {"url": url})
        for url in (
            None,
            17,
            "",
            "ftp://registry.example",
            "https://",
            "https://user:pw@registry.example",
            "not a url",
            "https://registry.example\n",
            "https://registry.example:0",
            "https://registry..example",
            "https://registry.example/path",
            "https://registry.example?q",
            "https://hub.docker.com",
            "https://[::1",
            "https://registry.example:99999",
            "https://re\x00gistry.example",
            "javascript:alert(1)",
            "file:///etc/passwd",
        )
    ),
    *(
        ("upstream_name", {"upstream_name": name})
        for name in (None, 17, "", "UPPER", "a//b", "../etc", "a" * 256, "a b", "a:latest", "é")
    ),
    ("upstream_name", {"url": f"https://{'r' * 60}.example", "upstream_name": "a" * 200}),
    ("nonsense", {"nonsense": None}),
    ("policy", {"policy": "lazy"}),
    ("policy", {"policy": None}),
    ("download_concurrency", {"download_concurrency": 0}),
    ("download_concurrency", {"download_concurrency": 101}),
    ("download_concurrency", {"download_concurrency": "5 "}),
    ("download_concurrency", {"download_concurrency": False}),
    ("whitelist_tags", {"whitelist_tags": ["latest"]}),
    ("whitelist_tags", {"whitelist_tags": "not a tag"}),
    ("exclude_tags", {"exclude_tags": "-nor-this"}),
    ("proxy_url", {"proxy_url": "proxy.example"}),
    ("proxy_url", {"proxy_url": "socks5://proxy.example"}),
    ("proxy_url", {"proxy_url": "http://joe:hunter22@proxy.example"}),
    ("ssl_ca_certificate", {"ssl_ca_certificate": "/etc/passwd"}),
    ("ssl_ca_certificate", {"ssl_ca_certificate": PEM_OF_NOTHING}),
    ("ssl_ca_certificate", {"ssl_ca_certificate": "\u00e9"}),
    ("ssl_client_certificate", {"ssl_client_certificate": "x"}),
    ("ssl_client_key", {"ssl_client_key": "/etc/ssl/private/key.pem"}),
    ("ssl_validation", {"ssl_validation": "perhaps"}),
    ("ssl_validation", {"ssl_validation": 1}),
    ("ssl_validation", {"ssl_validation": None}),
    ("username", {"username": 17}),
    ("password", {"password": {"a": "b"}}),
    ("password", {"password": "***"}),
    ("username", {"username": "***"}),
    ("ssl_client_key", {"ssl_client_key": "***"}),
    ("ssl_client_certificate", {"ssl_client_certificate": PEM_OF_A_KEY}),
    ("ssl_ca_certificate", {"ssl_ca_certificate": PEM_OF_A_KEY}),
    ("conn_id", {"conn_id": ""}),
    ("conn_id", {"conn_id": "a b"}),
    ("conn_id", {"conn_id": "a" * 251}),
    ("platforms", {"platforms": []}),
    ("platforms", {"platforms": "linux/amd64"}),
    ("platforms", {"platforms": ["linux"]}),
    ("max_held_share", {"max_held_share": 1.5}),
    ("max_removed_share", {"max_removed_share": "NaN"}),
    ("max_removed_tags", {"max_removed_tags": -1}),
    ("max_total_bytes", {"max_total_bytes": 0}),
    ("allow_sparse", {"allow_sparse": None}),
    ("include_referrers", {"include_referrers": None}),
]
BAD_QUERIES: list[tuple[str, str, dict[str, Any]]] = [
    *(
        (path, field, {field: value})
        for path in (REPOSITORIES, REMOTES, "tasks/", "content/docker/tags/")
        for field, value in (
            ("limit", 0), ("limit", -1), ("limit", 1001), ("limit", "x"), ("offset", -1), ("offset", 2**31),
            ("ordering", "password"), ("ordering", "--name"), ("nonsense", "1"),
        )
    ),
    *(("content/docker/tags/", field, {field: "a\x00b"}) for field in ("name", "name__in", "name__icontains")),
    (REPOSITORIES, "name", {"name": "a\x00b"}),
    ("tasks/", "state", {"state": "done"}),
    ("syncs/", "state", {"state": "waiting"}),
    ("syncs/", "state__in", {"state__in": "failed,waiting"}),
    ("syncs/", "repository", {"repository": "codzo"}),
    ("syncs/", "ordering", {"ordering": "state"}),
    ("tasks/", "state__in", {"state__in": "waiting,done"}),
    *(
        ("content/docker/blobs/", field, {field: value})
        for field in ("repository_version", "repository_version_added", "repository_version_removed")
        for value in (
            "", "1", "nonsense", f"{API}/repositories/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/",
            f"{API}/repositories/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/versions/0/",
            f"{API}/repositories/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/versions/1/",
            f"{API}/repositories/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/versions/9999999999/",
            f"{API}/remotes/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/",
        )
    ),
    ("content/docker/manifests/", "digest", {"digest": "sha256:short"}),
    ("content/docker/manifests/", "digest__in", {"digest__in": "latest"}),
    ("content/docker/manifests/", "name", {"name": "latest"}),
    (
        "content/docker/tags/",
        "repository_version_added",
        {"repository_version": "x", "repository_version_added": "y"},
    ),
]  # fmt: skip


def label(value: object) -> str:
    return ascii(value)[:60]


def counts(admin: RestClient) -> list[int]:
    return [admin.get(path)["count"] for path in (REPOSITORIES, REMOTES, "tasks/")]


@pytest.mark.parametrize(("field", "document"), BAD_REPOSITORIES, ids=label)
def test_a_bad_repository_is_refused_with_its_field(admin: RestClient, field: str, document: dict[str, Any]) -> None:
    before = counts(admin)
    problem = admin.post(REPOSITORIES, 400, **document)
    assert list(problem) == [field]
    assert all(isinstance(message, str) and message.endswith(".") for message in problem[field])
    assert counts(admin) == before


@pytest.mark.parametrize(("field", "change"), BAD_REMOTES, ids=label)
def test_a_bad_remote_is_refused_with_its_field(admin: RestClient, field: str, change: dict[str, Any]) -> None:
    before = counts(admin)
    problem = admin.post(REMOTES, 400, **{**REMOTE, **change})
    assert list(problem) == [field]
    assert counts(admin) == before


def test_a_bad_change_is_refused_and_changes_nothing(admin: RestClient, name: str) -> None:
    repository = admin.post(REPOSITORIES, name=name)
    remote = admin.post(REMOTES, **{**REMOTE, "name": name})
    for path, table in ((repository["pulp_href"], BAD_REPOSITORIES), (remote["pulp_href"], BAD_REMOTES)):
        for field, document in table:
            if field in document:
                assert list(admin.patch(path, 400, **document)) == [field]
    assert admin.get(repository["pulp_href"]) == repository
    assert admin.get(remote["pulp_href"]) == remote


@pytest.mark.parametrize(("path", "field", "query"), BAD_QUERIES, ids=label)
def test_a_bad_question_is_refused_with_its_parameter(
    admin: RestClient, path: str, field: str, query: dict[str, Any]
) -> None:
    assert list(admin.get(path, 400, **query)) == [field]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"name"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"name": NaN}',
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
    ids=label,
)
def test_a_body_that_is_no_document_is_refused(admin: RestClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = admin.session.post(
        f"{admin.url}{API}/{REPOSITORIES}",
        data=body,
        timeout=60,
        headers={**headers, "Authorization": f"Bearer {admin.token}"},
    )
    assert response.status_code == 400
    assert all(isinstance(messages, list) for messages in response.json().values())


def test_a_document_of_another_content_type_is_refused(admin: RestClient) -> None:
    response = admin.session.post(
        f"{admin.url}{API}/{REPOSITORIES}",
        data={"name": "n"},
        timeout=60,
        headers={"Authorization": f"Bearer {admin.token}"},
    )
    assert response.status_code == 400


@pytest.mark.parametrize("says_its_length", [True, False])
def test_a_body_of_10_mb_is_refused(admin: RestClient, name: str, says_its_length: bool) -> None:
    body = b'{"name": "' + name.encode() + b'", "description": "' + b"a" * 10_000_000 + b'"}'
    chunks = (body[start : start + 65536] for start in range(0, len(body), 65536))
    response = admin.session.post(
        f"{admin.url}{API}/{REPOSITORIES}",
        data=body if says_its_length else chunks,
        headers={"Authorization": f"Bearer {admin.token}", "Content-Type": "application/json"},
        timeout=60,
    )
    assert response.status_code == 400
    assert "larger" in response.json()["non_field_errors"][0]
    assert admin.get(REPOSITORIES, name=name)["count"] == 0


def test_other_methods_are_not_allowed(admin: RestClient) -> None:
    for method, path in (("DELETE", REPOSITORIES), ("POST", "status/"), ("PUT", "tasks/")):
        response = admin.ask(method, path)
        assert (response.status_code, list(response.json())) == (405, ["detail"])


def test_a_path_without_its_slash_at_the_end_is_not_there(admin: RestClient) -> None:
    assert admin.ask("GET", "status").status_code == 404
