"""The registry of the tests stores, serves and counts as they rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from support import filling, shapes
from support.certificates import CertificateAuthority
from support.images import RepositoryContent
from support.registry import PASSWORD, USERNAME, LoggedRequest, RegistryServer

pytestmark = pytest.mark.slow

ACCEPT = {"Accept": ", ".join(media_types.ACCEPTED_MANIFEST_TYPES)}


@pytest.fixture(name="server")
def running_server(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "registry") as server:
        yield server
        server.close_session()


def served_wrongly(server: RegistryServer, repository: str, content: RepositoryContent) -> list[str]:
    """What the registry does not serve as ``content`` says."""
    base = f"{server.url}/v2/{repository}"
    wrong: list[str] = []
    with requests.Session() as session:
        for name, digest in content.tags.items():
            response = session.head(f"{base}/manifests/{name}", headers=ACCEPT)
            if response.headers.get("Docker-Content-Digest") != digest:
                wrong.append(name)
        for manifest in content.manifests.values():
            response = session.get(f"{base}/manifests/{manifest.digest}", headers=ACCEPT)
            if response.content != manifest.data or response.headers["Content-Type"] != manifest.media_type:
                wrong.append(manifest.digest)
        wrong += [
            digest
            for digest, blob in content.blobs.items()
            if session.get(f"{base}/blobs/{digest}").content != blob.data
        ]
    return wrong


@pytest.mark.parametrize("fill", [filling.push, filling.place])
def test_every_kind_of_content_is_served_as_it_was_put(
    server: RegistryServer, fill: Callable[[RegistryServer, str, RepositoryContent], None]
) -> None:
    content = shapes.every_kind()
    fill(server, "every/kind", content)
    assert server.tags("every/kind") == sorted(content.tags)
    assert served_wrongly(server, "every/kind", content) == []


def test_blobs_are_mounted_from_a_repository_that_has_them(server: RegistryServer) -> None:
    content = shapes.nested()
    filling.push(server, "first", content)
    filling.push(server, "second", content, mount_from="first")
    assert served_wrongly(server, "second", content) == []


def test_a_blob_that_is_missing_is_not_mounted(server: RegistryServer) -> None:
    assert not server.mount_blob("second", Digest.of(b"nowhere"), "first")


def test_requests_are_counted_by_method_and_kind(server: RegistryServer) -> None:
    content = shapes.nested()
    filling.push(server, "some/name", content)
    server.reset_counts()
    base = f"{server.url}/v2/some/name"
    blob = next(iter(content.blobs))
    requests.get(f"{base}/tags/list?n=5")
    for _ in range(3):
        requests.head(f"{base}/manifests/latest", headers=ACCEPT)
    requests.get(f"{base}/manifests/latest", headers=ACCEPT)
    requests.get(f"{base}/blobs/{blob}")
    requests.head(f"{base}/blobs/{blob}")
    requests.get(f"{server.url}/v2/")
    log = server.log()
    assert log.counts == {
        ("GET", "tags"): 1,
        ("HEAD", "manifest"): 3,
        ("GET", "manifest"): 1,
        ("GET", "blob"): 1,
        ("HEAD", "blob"): 1,
        ("GET", "ping"): 1,
    }
    assert (log.tag_page_count, log.manifest_head_count, log.manifest_get_count) == (1, 3, 1)
    assert (log.blob_get_count, log.blob_head_count) == (1, 1)
    assert log.select("GET", "tags")[0].query == {"n": ["5"]}
    assert log.select("GET", "blob")[0].reference == blob
    assert log.count("HEAD", "manifest", repository="some/name", reference="latest", status=200) == 3


def test_reset_counts_forgets_what_was_requested(server: RegistryServer) -> None:
    requests.get(f"{server.url}/v2/")
    server.reset_counts()
    assert server.log().requests == ()


def test_a_line_that_is_no_request_is_not_read() -> None:
    assert LoggedRequest.parse("panic: something else") is None


def test_a_tag_can_be_moved_and_deleted(server: RegistryServer) -> None:
    content = shapes.documented_example()
    filling.push(server, "moving", content)
    manifest = content.manifests[content.tags["v2"]]
    server.push_manifest("moving", "v1", manifest.media_type, manifest.data)
    server.delete_tag("moving", "linux")
    response = requests.head(f"{server.url}/v2/moving/manifests/v1", headers=ACCEPT)
    assert response.headers["Docker-Content-Digest"] == manifest.digest
    assert server.tags("moving") == sorted(set(content.tags) - {"linux"})


def test_a_deleted_manifest_and_blob_are_gone(server: RegistryServer) -> None:
    content = shapes.nested()
    filling.push(server, "shrinking", content)
    manifest, blob = content.tags["latest"], next(iter(content.blobs))
    server.delete_manifest("shrinking", manifest)
    server.delete_blob("shrinking", blob)
    assert requests.get(f"{server.url}/v2/shrinking/manifests/{manifest}", headers=ACCEPT).status_code == 404
    assert requests.get(f"{server.url}/v2/shrinking/blobs/{blob}").status_code == 404
    assert server.tags("shrinking") == []


def test_an_unknown_repository_has_no_tags(server: RegistryServer) -> None:
    assert server.tags("never/pushed") == []


def test_a_registry_with_a_password_refuses_those_without_it(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry", basic_auth=True) as server:
        filling.push(server, "private", shapes.nested())
        assert requests.get(f"{server.url}/v2/").status_code == 401
        assert requests.get(f"{server.url}/v2/", auth=(USERNAME, PASSWORD)).status_code == 200
        server.close_session()


def test_a_registry_with_a_certificate_is_trusted_through_its_authority_alone(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    with RegistryServer(tmp_path / "registry", certificate=authority.server()) as server:
        assert server.url.startswith("https://")
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{server.url}/v2/")
        assert requests.get(f"{server.url}/v2/", verify=str(authority.certificate_path)).status_code == 200
        filling.push(server, "secure", shapes.nested())
        server.close_session()


def test_a_registry_that_requests_client_certificates_refuses_those_without(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    certificate = authority.server(asks_for_client=True)
    verify = str(authority.certificate_path)
    with RegistryServer(tmp_path / "registry", certificate=certificate) as server:
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(f"{server.url}/v2/", verify=verify)
        assert requests.get(f"{server.url}/v2/", verify=verify, cert=certificate.client_pair).status_code == 200


def test_a_registry_started_again_keeps_its_port_and_content(tmp_path: Path) -> None:
    server = RegistryServer(tmp_path / "registry")
    with server:
        filling.push(server, "kept", shapes.nested())
        server.close_session()
        first_url = server.url
    with server:
        assert server.url == first_url
        assert server.tags("kept") == ["latest"]
        server.close_session()


def test_a_registry_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = RegistryServer(tmp_path / "registry", config={"storage": {"nonsense": {}}})
    with pytest.raises(RuntimeError, match="nonsense"):
        server.start()
