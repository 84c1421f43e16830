"""Signatures are found by the API, by the fallback tag, and never lost to an outage."""

from __future__ import annotations

import json

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.companions import companion_tags, fallback_tag
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifests import read_manifest
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.errors import NotFound, PaginationError, ProtocolError, RedirectRefused, RegistryError
from registry_sync.oci.referrers import artifact_type_of
from support.hostile_registry import HostileRegistry, Raw, errors_reply, reply
from support.oci import REPOSITORY

SUBJECT = Digest.of(b"subject")
API = f"/v2/{REPOSITORY}/referrers/{SUBJECT}"
FALLBACK = f"/v2/{REPOSITORY}/manifests/{fallback_tag(SUBJECT)}"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def index(*names: str) -> bytes:
    manifests = [
        {
            "mediaType": media_types.OCI_MANIFEST,
            "digest": str(Digest.of(name.encode())),
            "size": 10,
            "artifactType": BUNDLE,
        }
        for name in names
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": manifests}).encode()


def listing(*names: str, following: str | None = None, content_type: str = media_types.OCI_INDEX) -> Raw:
    links = [("Link", f'<{following}>; rel="next"')] if following else []
    return reply(200, index(*names), links, content_type=content_type)


def found(registry: HostileRegistry, client_of) -> list[Digest]:  # type: ignore[no-untyped-def]
    return [referrer.digest for referrer in client_of(registry).list_referrers(REPOSITORY, SUBJECT)]


def test_a8_01_all_pages_of_the_api_are_read(registry, client_of) -> None:
    registry.on("GET", API, listing("a", "b", following=f"{API}?page=2"), listing("b", "c"))
    assert found(registry, client_of) == [Digest.of(b"a"), Digest.of(b"b"), Digest.of(b"c")]
    assert registry.requests[0].header("accept") == media_types.OCI_INDEX


def test_a8_01_no_referrers_are_no_referrers(registry, client_of) -> None:
    registry.on("GET", API, listing())
    assert found(registry, client_of) == []
    assert len(registry.requests) == 1


def test_a8_01_a_page_of_something_else_is_refused(registry, client_of) -> None:
    registry.on("GET", API, listing("a", following=f"/v2/other/referrers/{SUBJECT}?page=2"))
    with pytest.raises(RedirectRefused):
        found(registry, client_of)
    registry.on("GET", API, listing("a", following=API))
    with pytest.raises(PaginationError):
        found(registry, client_of)


@pytest.mark.parametrize(
    "unsupported",
    [
        reply(404),
        reply(400),
        reply(405),
        reply(406),
        reply(501),
        errors_reply(401, "UNAUTHORIZED"),
        reply(200, b"<html>", content_type="text/html"),
        listing("x", content_type=media_types.DOCKER_LIST),
    ],
)
def test_a8_02_a_registry_without_the_api_is_read_by_the_fallback_tag_and_remembered(
    registry, client_of, unsupported: Raw
) -> None:
    registry.on("GET", API, unsupported)
    registry.on("GET", FALLBACK, listing("a"))
    client = client_of(registry)
    for _ in range(2):
        assert [referrer.digest for referrer in client.list_referrers(REPOSITORY, SUBJECT)] == [Digest.of(b"a")]
    assert len(registry.asked(path=API)) == 1


def test_a8_02_the_api_alone_is_asked_and_its_absence_remembered_for_each_repository(registry, client_of) -> None:
    other = RepositoryName("library/other")
    registry.on("GET", API, reply(404))
    registry.on("GET", FALLBACK, listing("a"))
    registry.on("GET", f"/v2/{other}/referrers/{SUBJECT}", listing("b"), listing())
    client = client_of(registry)
    assert [client.list_referrers_by_api(REPOSITORY, SUBJECT) for _ in range(2)] == [None, None]
    found_there = client.list_referrers_by_api(other, SUBJECT)
    assert found_there is not None
    assert [referrer.digest for referrer in found_there] == [Digest.of(b"b")]
    assert client.list_referrers_by_api(other, SUBJECT) == ()
    assert len(registry.asked(path=API)) == 1
    assert registry.asked(path=FALLBACK) == []


@pytest.mark.parametrize("outage", [reply(500), reply(429), reply(403), reply(503)])
def test_a8_02_an_outage_is_an_error_and_not_no_referrers(registry, client_of, outage: Raw) -> None:
    registry.on("GET", API, outage)
    with pytest.raises(RegistryError):
        found(registry, client_of)
    assert registry.asked(path=FALLBACK) == []


def test_a8_02_an_outage_of_the_fallback_tag_is_an_error_too(registry, client_of) -> None:
    registry.on("GET", API, reply(404))
    registry.on("GET", FALLBACK, reply(503))
    with pytest.raises(RegistryError):
        found(registry, client_of)


def test_a8_02_an_index_that_cannot_be_read_is_an_error(registry, client_of) -> None:
    registry.on("GET", API, reply(200, b'{"schemaVersion": 2, "manifests": 7}', content_type=media_types.OCI_INDEX))
    with pytest.raises(ProtocolError):
        found(registry, client_of)


def test_a8_03_a_missing_fallback_tag_means_none_and_a_missing_repository_does_not(registry, client_of) -> None:
    registry.on("GET", FALLBACK, errors_reply(404, "MANIFEST_UNKNOWN"))
    assert found(registry, client_of) == []
    registry.on("GET", FALLBACK, errors_reply(404, "NAME_UNKNOWN"))
    with pytest.raises(NotFound):
        found(registry, client_of)


def test_a8_04_a_fallback_tag_that_gives_the_subject_itself_means_none(registry, client_of) -> None:
    data = index("child")
    subject = Digest.of(data)
    registry.on("GET", f"/v2/{REPOSITORY}/manifests/{fallback_tag(subject)}", reply(200, data, content_type=None))
    assert client_of(registry).list_referrers(REPOSITORY, subject) == ()


def test_a8_04_a_fallback_tag_that_is_no_index_means_none(registry, client_of) -> None:
    config = {"mediaType": media_types.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2}
    image = json.dumps({"schemaVersion": 2, "config": config, "layers": []})
    registry.on("GET", FALLBACK, reply(200, image, content_type=media_types.OCI_MANIFEST))
    assert found(registry, client_of) == []


def test_a8_05_the_type_of_an_artifact_falls_back_to_its_config() -> None:
    def artifact(**fields: object):  # type: ignore[no-untyped-def]
        config = {"mediaType": "application/vnd.cncf.notary.signature", "digest": str(Digest.of(b"{}")), "size": 2}
        document = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": config, "layers": [], **fields}
        return read_manifest(json.dumps(document).encode())

    assert artifact_type_of(artifact(artifactType=BUNDLE)) == BUNDLE
    assert artifact_type_of(artifact()) == "application/vnd.cncf.notary.signature"
    assert artifact_type_of(read_manifest(index())) is None


def test_a8_03_the_fallback_tag_is_made_as_the_specification_says() -> None:
    assert fallback_tag(Digest("sha256:" + "a" * 64)) == "sha256-" + "a" * 64
    assert fallback_tag(Digest("sha512:" + "b" * 128)) == "sha512-" + "b" * 64
    assert (
        fallback_tag(Digest("test+algorithm+using+algorithm+separators:x=y")) == "test-algorithm-using-algorithm-s-x-y"
    )


def test_a8_06_companions_are_found_in_the_listing_by_name() -> None:
    one, two = Digest.of(b"1"), Digest.of(b"2")
    names = [
        fallback_tag(one),
        TagName(f"{fallback_tag(one)}.sig"),
        TagName(f"{fallback_tag(two)}.att"),
        TagName(f"{fallback_tag(two)}.sbom"),
    ]
    others = [TagName("latest"), TagName(f"{fallback_tag(Digest.of(b'3'))}.sig"), TagName(f"{fallback_tag(one)}.txt")]
    assert companion_tags([*others, *names], [one, two]) == sorted(names)
