"""The look-alikes notice what a good client does not do, and behave as they say."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from support.certificates import CertificateAuthority, ServerCertificate
from support.images import RepositoryContent
from support.lookalikes import known
from support.lookalikes.quirks import PASSWORD, Habit, LookAlike
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.shapes import every_kind

ACCEPT = ", ".join(media_types.ACCEPTED_MANIFEST_TYPES)
GOOD = {"Accept": ACCEPT, "Accept-Encoding": "identity"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return CertificateAuthority(tmp_path_factory.mktemp("ca")).server(hosts=HOSTS)


@pytest.fixture
def content() -> RepositoryContent:
    return every_kind(releases=120)


@pytest.fixture
def serve(certificate: ServerCertificate, content: RepositoryContent) -> Iterator[Callable[..., LookAlikeServer]]:
    running: list[LookAlikeServer] = []

    def start(kind: LookAlike) -> LookAlikeServer:
        running.append(LookAlikeServer(kind, content, certificate).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__(None, None, None)


@pytest.fixture
def ask(certificate: ServerCertificate) -> Iterator[Callable[..., requests.Response]]:
    """One request; redirects are followed only if requested, and then as a careless client does."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(certificate.ca_path)

        def get(url: str, headers: dict[str, str] | None = None, **options: Any) -> requests.Response:
            options = {"method": "GET", "allow_redirects": False, **options}
            session.cookies.clear()
            return session.request(url=url, headers={**GOOD, **(headers or {})}, timeout=10, **options)

        yield get


def basic(kind: LookAlike) -> dict[str, str]:
    pair = f"{kind.auth.username}:{PASSWORD}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def bearer(
    server: LookAlikeServer, ask: Callable[..., requests.Response], *, scope: str | None = None
) -> dict[str, str]:
    kind = server.kind
    host = server.tokens if kind.auth.realm_is_elsewhere else server.registry
    query = {"service": kind.auth.service, "scope": scope or f"repository:{kind.repository}:pull"}
    response = ask(f"{host.base}{kind.auth.realm}", basic(kind), params=query).json()
    return {"Authorization": f"Bearer {response[kind.auth.token_field]}"}


def manifest_url(server: LookAlikeServer, reference: str) -> str:
    return f"{server.url}/v2/{server.kind.repository}/manifests/{reference}"


def blob_url(server: LookAlikeServer, content: RepositoryContent) -> tuple[str, bytes]:
    blob = next(blob for blob in content.blobs.values() if blob.size_bytes > 100)
    return f"{server.url}/v2/{server.kind.repository}/blobs/{blob.digest}", blob.data


@pytest.mark.parametrize("kind", known.KNOWN, ids=str)
def test_each_asks_who_is_there_and_takes_its_own_response(kind: LookAlike, serve: Any, ask: Any) -> None:
    server = serve(kind)
    refused = ask(f"{server.url}/v2/")
    assert (refused.status_code, bool(refused.headers["WWW-Authenticate"])) == (401, True)
    is_bearer = kind.auth.schemes == ("Bearer",) or kind is known.ARTIFACTORY
    response = ask(manifest_url(server, "oci-index"), bearer(server, ask) if is_bearer else basic(kind))
    expected = 307 if kind.sends_on_to else 429 if kind.manifests.is_limited_at_first else 200
    assert response.status_code == expected
    assert server.witness.violations == []


def test_ghcr_sends_the_question_for_referrers_to_a_host_without_an_response(serve: Any, ask: Any) -> None:
    server = serve(known.GHCR)
    subject = next(iter(server._content.manifests))
    sent = ask(f"{server.url}/v2/{server.kind.repository}/referrers/{subject}", bearer(server, ask))
    assert (sent.status_code, server.referrers_asked) == (303, [subject])
    assert ask(sent.headers["Location"]).status_code == 404
    assert server.witness.violations == []
    ask(sent.headers["Location"], {"Authorization": "Bearer x"})
    assert server.witness.violations == ["Authorization sent to the other host"]


def test_registry_k8s_io_sends_everything_but_blobs_to_another_registry(
    serve: Any, ask: Any, content: RepositoryContent
) -> None:
    server = serve(known.REGISTRY_K8S_IO)
    for path, status in (("tags/list?n=1000", 200), ("manifests/oci-index", 200), ("manifests/unknown", 404)):
        sent = ask(f"{server.url}/v2/{server.kind.repository}/{path}")
        assert sent.status_code == 307
        assert "n=1000" not in sent.headers["Location"]
        assert ask(sent.headers["Location"]).status_code == status
    url, _ = blob_url(server, content)
    assert "/bucket/sha256%3A" in ask(url).headers["Location"], "blobs are in a store"
    subject = next(iter(content.manifests))
    sent = ask(f"{server.url}/v2/{server.kind.repository}/referrers/{subject}")
    assert ask(sent.headers["Location"]).status_code == 404
    assert server.witness.violations == []


def test_a_manifest_that_is_signed_for_get_is_given_once_and_no_head_of_it(serve: Any, ask: Any) -> None:
    server = serve(known.SIGNING)
    token = bearer(server, ask)
    head = ask(manifest_url(server, "oci-index"), token, method="HEAD")
    assert (head.status_code, ask(head.headers["Location"], method="HEAD").status_code) == (307, 403)
    given = ask(manifest_url(server, "oci-index"), token)
    assert ask(given.headers["Location"]).content
    assert ask(given.headers["Location"]).status_code == 403


def test_a_password_at_the_registry_that_wants_tokens_is_recorded(serve: Any, ask: Any) -> None:
    server = serve(known.QUAY)
    assert ask(manifest_url(server, "oci-index"), basic(known.QUAY)).status_code == 401
    assert "a password" in server.witness.violations[0]


def test_a_token_that_was_not_given_is_recorded_at_the_registry_and_at_the_token_service(serve: Any, ask: Any) -> None:
    server = serve(known.DOCKER_HUB)
    own = bearer(server, ask)
    assert ask(manifest_url(server, "oci-index"), {"Authorization": "Bearer made-up"}).status_code == 401
    assert ask(f"{server.tokens.base}/token", own).status_code == 401
    assert len(server.witness.violations) == 2


def test_a_token_for_more_or_for_another_service_is_recorded(serve: Any, ask: Any) -> None:
    server = serve(known.GITLAB)
    bearer(server, ask, scope="repository:group/project/app:pull,push")
    ask(f"{server.tokens.base}/jwt/auth", basic(known.GITLAB), params={"service": "another"})
    assert [violation.partition(":")[0] for violation in server.witness.violations] == [
        "a token for more than reading",
        "a token for the service ['another']",
    ]


def test_a_realm_whose_own_query_is_lost_is_recorded(serve: Any, ask: Any) -> None:
    server = serve(known.HARBOR)
    ask(f"{server.url}/service/token", basic(known.HARBOR), params={"service": "harbor-registry"})
    assert server.witness.violations == ["the realm's own tenant was lost"]


def test_a_token_for_one_repository_does_not_open_another(serve: Any, ask: Any) -> None:
    server = serve(known.PULP)
    other = bearer(server, ask, scope="repository:other/app:pull")
    assert ask(manifest_url(server, "oci-index"), other).status_code == 401


def test_gitlab_revokes_its_first_token_and_no_other(serve: Any, ask: Any) -> None:
    server = serve(known.GITLAB)
    first = bearer(server, ask)
    statuses = [ask(manifest_url(server, "oci-index"), first).status_code for _ in range(62)]
    assert statuses == [200] * 60 + [401] * 2
    second = bearer(server, ask)
    assert ask(manifest_url(server, "oci-index"), second).status_code == 200
    assert Habit.REVOKES_A_TOKEN in server.witness.habits
    assert server.gate.token_request_count == 2


def test_credentials_at_the_storage_host_are_recorded_and_refused(
    serve: Any, ask: Any, content: RepositoryContent
) -> None:
    server = serve(known.ECR)
    url, _ = blob_url(server, content)
    location = ask(url, basic(known.ECR)).headers["Location"]
    assert ask(location, basic(known.ECR)).status_code == 400
    assert server.witness.violations == ["Authorization sent to the storage host"]
    assert server.witness.habits == {Habit.REDIRECTS}


def verbatim(location: str, certificate: ServerCertificate) -> tuple[int, bytes]:
    """Status and body of a URL that is requested exactly as it is written, which ``requests`` does not do."""
    parts = urlsplit(location)
    connection = HTTPSConnection(
        parts.hostname or "", parts.port, context=ssl.create_default_context(cafile=str(certificate.ca_path))
    )
    connection.request("GET", location.partition(parts.netloc)[2], headers={**GOOD, "User-Agent": "tests"})
    response = connection.getresponse()
    status, body = response.status, response.read()
    connection.close()
    return status, body


def test_a_signed_url_is_good_once_and_as_it_was_written(
    serve: Any, ask: Any, content: RepositoryContent, certificate: ServerCertificate
) -> None:
    server = serve(known.ECR)
    url, data = blob_url(server, content)
    locations = [ask(url, basic(known.ECR)).headers["Location"] for _ in range(2)]
    assert ask(locations[0]).status_code == 403, "requests writes the query anew"
    assert verbatim(locations[1], certificate) == (200, data)
    assert len(server.witness.violations) == 1
    assert verbatim(locations[1], certificate)[0] == 403
    assert len(server.witness.violations) == 2


@pytest.mark.parametrize(
    ("headers", "noted"),
    [
        ({"Cookie": "seen=1"}, "a cookie"),
        ({"Accept-Encoding": "gzip"}, "Accept-Encoding gzip"),
        ({"User-Agent": ""}, "no User-Agent"),
        ({"Accept": "*/*"}, "without"),
        ({"Accept": f"{ACCEPT}, */*"}, "accepts anything"),
        ({"Accept": media_types.OCI_INDEX}, "without"),
    ],
)
def test_requests_that_lack_or_report_too_much_are_recorded(
    serve: Any, ask: Any, headers: dict[str, str], noted: str
) -> None:
    server = serve(known.ZOT)
    ask(manifest_url(server, "oci-index"), {**basic(known.ZOT), **headers})
    assert noted in server.witness.violations[0]


def test_distribution_gives_an_image_for_a_list_and_no_oci_manifest_unless_they_are_accepted(
    serve: Any, ask: Any, content: RepositoryContent
) -> None:
    server = serve(known.DISTRIBUTION)
    token = bearer(server, ask)
    response = ask(manifest_url(server, "docker-list"), {**token, "Accept": media_types.DOCKER_MANIFEST})
    child = content.manifests[content.tags["docker-list"]].children[0]
    assert Digest.of(response.content) == response.headers["Docker-Content-Digest"] == child
    assert ask(manifest_url(server, "oci-image"), {**token, "Accept": "*/*"}).status_code == 404
    assert ask(manifest_url(server, "oci-image"), token).status_code == 200


def test_a_page_size_above_the_cap_is_recorded_when_it_is_requested_again(serve: Any, ask: Any) -> None:
    server = serve(known.ECR)
    tags = f"{server.url}/v2/team/app/tags/list"
    for _ in range(2):
        assert ask(tags, basic(known.ECR), params={"n": "1000"}).status_code == 405
    assert server.witness.violations == ["n=1000 asked for again after it was refused"]


@pytest.mark.parametrize("kind", [known.NEXUS, known.ARTIFACTORY], ids=str)
def test_a_wrong_link_leads_nowhere_and_its_query_continues(kind: LookAlike, serve: Any, ask: Any) -> None:
    server = serve(kind)
    token = basic(kind) if kind is known.NEXUS else bearer(server, ask)
    response = ask(f"{server.url}/v2/{kind.repository}/tags/list", token)
    following = response.links["next"]["url"]
    assert not following.startswith(f"/v2/{kind.repository}/")
    assert ask(f"{server.url}{following}", token).status_code == (400 if kind is known.NEXUS else 401)
    assert len(server.witness.violations) == (kind is known.NEXUS)
    good = ask(f"{server.url}/v2/{kind.repository}/tags/list?{following.partition('?')[2]}", token)
    listed = [*response.json()["tags"], *good.json()["tags"]]
    assert sorted(set(listed) - set(kind.tags.odd_names)) == sorted(every_kind(releases=120).tags)


def test_zot_loses_a_page_once(serve: Any, ask: Any) -> None:
    server = serve(known.ZOT)
    tags = f"{server.url}/v2/team/app/tags/list"
    following = ask(tags, basic(known.ZOT)).links["next"]["url"]
    assert [ask(f"{server.url}{following}", basic(known.ZOT)).status_code for _ in range(2)] == [404, 200]


def test_blobs_come_in_parts_and_configs_compressed(serve: Any, ask: Any, content: RepositoryContent) -> None:
    server = serve(known.RED_HAT)
    token = bearer(server, ask)
    layer = next(
        blob
        for manifest in content.manifests.values()
        for blob in (content.blobs[digest] for digest in manifest.blobs[1:])
        if blob.size_bytes > 100
    )
    url = f"{server.url}/v2/team/app/blobs/{layer.digest}"
    part = ask(url, {**token, "Range": "bytes=7-"})
    assert (part.status_code, part.content) == (206, layer.data[7:])
    config = content.manifests[content.tags["oci-image"]].blobs[0]
    response = ask(f"{server.url}/v2/team/app/blobs/{config}", token)
    assert (response.headers["Content-Encoding"], response.content) == ("gzip", content.blobs[config].data)


def test_gitlab_takes_the_fallback_tag_for_the_digest(serve: Any, ask: Any, content: RepositoryContent) -> None:
    server = serve(known.GITLAB)
    subject = content.tags["oci-image"]
    response = ask(manifest_url(server, subject.replace(":", "-")), bearer(server, ask))
    assert Digest.of(response.content) == subject


def test_zot_lists_what_refers_to_a_manifest(serve: Any, ask: Any, content: RepositoryContent) -> None:
    server = serve(known.ZOT)
    response = ask(f"{server.url}/v2/team/app/referrers/{content.tags['oci-image']}", basic(known.ZOT))
    assert response.headers["Content-Type"] == media_types.OCI_INDEX
    assert [entry["digest"] for entry in response.json()["manifests"]] == [content.tags["referrer"]]
