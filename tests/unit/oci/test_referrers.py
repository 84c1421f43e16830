"""Signatures are found by the API, by the fallback tag, and never lost to an outage."""

from __future__ import annotations

import json

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import read_manifest
from registry_sync.domain.references import RepositoryName, TagName, fallback_tag, referrer_tags
from registry_sync.errors import (
    NotFound,
    PaginationError,
    ReferrersUnavailable,
)
from registry_sync.oci import referrers as referrers_module
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.referrers import artifact_type_of
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply
from support.oci import REPOSITORY, MemoryWriter
from support.referrers import API, BUNDLE, FALLBACK, SUBJECT, found, index, listing

NOTATION = "application/vnd.cncf.notary.signature"


def signature(artifact_type: str | None, config_type: str = media_types.OCI_EMPTY, *, subject: Digest | None) -> bytes:
    """An artifact of one layer, as signers push it beside what they sign."""
    layer = {"mediaType": artifact_type or config_type, "digest": str(Digest.of(b"signed")), "size": 6}
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": config_type, "digest": str(Digest.of(b"{}")), "size": 2, "data": "e30="},
        "layers": [layer],
    }
    if artifact_type is not None:
        document["artifactType"] = artifact_type
    if subject is not None:
        document["subject"] = {"mediaType": media_types.OCI_MANIFEST, "digest": str(subject), "size": 7}
    return json.dumps(document).encode()


def test_a8_01_all_pages_of_the_api_are_read(registry, client_of) -> None:
    registry.on("GET", API, listing("a", "b", following=f"{API}?page=2"), listing("b", "c"))
    assert found(registry, client_of) == [Digest.of(b"a"), Digest.of(b"b"), Digest.of(b"c")]
    assert registry.requests[0].header("accept") == media_types.OCI_INDEX


def test_a8_01_no_referrers_are_no_referrers(registry, client_of) -> None:
    registry.on("GET", API, listing())
    assert found(registry, client_of) == []
    assert len(registry.requests) == 1


def test_a8_01_a_page_of_something_else_is_refused(registry, client_of) -> None:
    registry.on("GET", API, listing("a", following=f"/v2/{REPOSITORY}/referrers/{Digest.of(b'other')}?page=2"))
    with pytest.raises(ReferrersUnavailable, match="names a next page of something else"):
        found(registry, client_of)
    registry.on("GET", API, listing("a", following=API))
    with pytest.raises(PaginationError):
        found(registry, client_of)


def test_a8_01_a_page_that_is_missing_is_an_error_and_not_the_end(registry, client_of) -> None:
    registry.on("GET", API, listing("a", following=f"{API}?page=2"), reply(404))
    client = client_of(registry)
    with pytest.raises(ReferrersUnavailable, match="breaks off"):
        client.list_referrers_by_api(REPOSITORY, SUBJECT)
    registry.on("GET", API, listing("a"))
    assert client.list_referrers_by_api(REPOSITORY, SUBJECT), "that is not remembered"


def test_a8_01_pages_are_bounded(registry, client_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referrers_module, "MAX_PAGES", 3)
    pages = [listing(str(number), following=f"{API}?page={number}") for number in range(9)]
    registry.on("GET", API, *pages[:2], listing("last"))
    assert len(found(registry, client_of)) == 3
    registry.on("GET", API, *pages)
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


def test_a8_02_the_api_alone_is_requested_and_its_absence_remembered_for_each_repository(registry, client_of) -> None:
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


@pytest.mark.parametrize(
    "credentials", [None, Credentials("alice", "correct horse"), Credentials(registry_token="ready-token")]
)
def test_a8_02_a_401_without_challenge_that_a_token_does_not_help_is_no_api(
    registry, client_of, credentials: Credentials | None
) -> None:
    """As Harbor served up to 2.7: everything else is read with the same token."""

    def guarded(request: Request) -> Raw:
        if (request.header("authorization") or "").startswith("Bearer"):
            return listing("a")
        return reply(401, headers=[("WWW-Authenticate", f'Bearer realm="{registry.base}/token",service="s"')])

    registry.on("GET", "/v2/", guarded)
    registry.on("GET", "/token", json_reply({"token": "good"}))
    registry.on("GET", FALLBACK, guarded)
    registry.on("GET", API, errors_reply(401, "UNAUTHORIZED"))
    client = client_of(registry, credentials)
    assert [referrer.digest for referrer in client.list_referrers(REPOSITORY, SUBJECT)] == [Digest.of(b"a")]


@pytest.mark.parametrize("credentials", [None, Credentials("alice", "correct horse")])
def test_a8_02_a_401_with_a_challenge_is_a_refusal_and_not_no_referrers(
    registry, client_of, credentials: Credentials | None
) -> None:
    registry.on("GET", API, reply(401, headers=[("WWW-Authenticate", f'Bearer realm="{registry.base}/token"')]))
    registry.on("GET", "/token", json_reply({"token": "good"}))
    client = client_of(registry, credentials)
    for _ in range(2):
        with pytest.raises(ReferrersUnavailable, match="cannot be listed") as refused:
            client.list_referrers_by_api(REPOSITORY, SUBJECT)
        assert (refused.value.status, refused.value.is_temporary) == (401, False)
    assert len(registry.asked(path=API)) == 2, "with and without a token, and not again"


def test_a8_01_a_list_that_is_null_is_an_empty_one(registry, client_of) -> None:
    registry.on("GET", API, reply(200, b'{"schemaVersion": 2, "manifests": null}', content_type=media_types.OCI_INDEX))
    assert found(registry, client_of) == []


@pytest.mark.parametrize("link", ["<{api}?page=2>; rel='next'", "<{api}?page=2>", '<{api}?page=2>; rel="next'])
def test_a8_01_every_page_is_read_however_its_link_is_written(registry, client_of, link: str) -> None:
    links = [("Link", link.format(api=API))]
    registry.on("GET", API, reply(200, index("a"), links, content_type=media_types.OCI_INDEX), listing("b"))
    assert found(registry, client_of) == [Digest.of(b"a"), Digest.of(b"b")]


def test_a8_01_a_link_that_cannot_be_read_is_an_error_and_no_end(registry, client_of) -> None:
    registry.on("GET", API, reply(200, index("a"), [("Link", "unreadable")], content_type=media_types.OCI_INDEX))
    with pytest.raises(PaginationError, match="sends a Link"):
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


@pytest.mark.parametrize("claimed", [SUBJECT, Digest.of(b"other"), None])
def test_a8_04_a_referrer_is_one_when_its_own_subject_says_so(registry, client_of, claimed: Digest | None) -> None:
    image = signature(BUNDLE, subject=claimed)
    digest = Digest.of(image)
    listed = {"mediaType": media_types.OCI_MANIFEST, "digest": str(digest), "size": len(image)}
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [listed]}
    registry.on("GET", API, reply(200, json.dumps(document), content_type=media_types.OCI_INDEX))
    registry.on("GET", f"/v2/{REPOSITORY}/manifests/{digest}", reply(200, image, content_type=media_types.OCI_MANIFEST))
    client = client_of(registry)
    (entry,) = client.list_referrers(REPOSITORY, SUBJECT)
    manifest = client.get_manifest(REPOSITORY, entry.digest, expected=entry)
    assert manifest.refers_to(SUBJECT) is (claimed == SUBJECT)


def test_a8_05_no_filter_is_requested_and_one_that_is_claimed_changes_nothing(registry, client_of) -> None:
    """Registries may filter or not; an unfiltered list is filtered by the type of each entry."""
    filtered = reply(
        200, index("a", "b"), [("OCI-Filters-Applied", "artifactType")], content_type=media_types.OCI_INDEX
    )
    registry.on("GET", API, filtered)
    entries = client_of(registry).list_referrers_by_api(REPOSITORY, SUBJECT)
    assert entries is not None
    assert [entry.artifact_type for entry in entries] == [BUNDLE, BUNDLE]
    assert [request.query for request in registry.requests] == [""]


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


def test_a8_06_referrer_tags_are_found_in_the_listing_by_name() -> None:
    one, two = Digest.of(b"1"), Digest.of(b"2")
    names = [
        fallback_tag(one),
        TagName(f"{fallback_tag(one)}.sig"),
        TagName(f"{fallback_tag(two)}.att"),
        TagName(f"{fallback_tag(two)}.sbom"),
    ]
    others = [TagName("latest"), TagName(f"{fallback_tag(Digest.of(b'3'))}.sig"), TagName(f"{fallback_tag(one)}.txt")]
    assert referrer_tags([*others, *names], [one, two]) == sorted(names)


def fetched(registry: HostileRegistry, client_of, document: bytes):  # type: ignore[no-untyped-def]
    """The artifact that the fallback tag leads to, with its blobs."""
    digest, signed = Digest.of(document), Digest.of(b"signed")
    entry = {"mediaType": media_types.OCI_MANIFEST, "digest": str(digest), "size": len(document)}
    listed = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [entry]})
    registry.on("GET", FALLBACK, reply(200, listed, content_type=media_types.OCI_INDEX))
    path = f"/v2/{REPOSITORY}/manifests/{digest}"
    registry.on("GET", path, reply(200, document, content_type=media_types.OCI_MANIFEST))
    registry.on("GET", f"/v2/{REPOSITORY}/blobs/{signed}", reply(200, b"signed"))
    client = client_of(registry)
    (referrer,) = client.list_referrers(REPOSITORY, SUBJECT)
    manifest = client.get_manifest(REPOSITORY, referrer.digest, expected=referrer)
    blobs = []
    for _, blob in manifest.blobs():
        writer = MemoryWriter(blob)
        client.fetch_blob(REPOSITORY, blob, writer)
        blobs.append(writer.published)
    assert blobs == [b"{}", b"signed"]
    return manifest


def test_a8_07_a_sigstore_bundle_is_found_by_the_plain_fallback_tag(registry, client_of) -> None:
    manifest = fetched(registry, client_of, signature(BUNDLE, subject=SUBJECT))
    assert (artifact_type_of(manifest), manifest.refers_to(SUBJECT)) == (BUNDLE, True)
    asked = [request.path for request in registry.requests]
    assert asked[:2] == [API, FALLBACK]
    assert [path for path in asked if "/blobs/" in path] == [f"/v2/{REPOSITORY}/blobs/{Digest.of(b'signed')}"]


@pytest.mark.parametrize("layer_type", ["application/jose+json", "application/cose"])
@pytest.mark.parametrize("is_told_by_its_config", [False, True])
def test_a8_08_a_notation_signature_is_known_by_its_own_type_or_its_configs(
    registry, client_of, layer_type: str, is_told_by_its_config: bool
) -> None:
    document = json.loads(signature(None, NOTATION, subject=SUBJECT))
    document["layers"][0]["mediaType"] = layer_type
    if not is_told_by_its_config:
        document |= {"artifactType": NOTATION, "config": {**document["config"], "mediaType": media_types.OCI_EMPTY}}
    manifest = fetched(registry, client_of, json.dumps(document).encode())
    assert (artifact_type_of(manifest), manifest.refers_to(SUBJECT)) == (NOTATION, True)
    assert [layer.media_type for layer in manifest.layers] == [layer_type]


def test_a8_09_a_subject_that_is_missing_is_requested_by_nobody(registry, client_of) -> None:
    absent = Digest.of(b"never pushed")
    manifest = fetched(registry, client_of, signature(BUNDLE, subject=absent))
    assert manifest.subject is not None
    assert manifest.subject.digest == absent
    assert manifest.children == ()
    assert absent not in [blob.digest for _, blob in manifest.blobs()]
    assert [request.path for request in registry.requests if str(absent) in request.path] == []


def test_a8_10_extensions_for_signatures_are_skipped(registry, client_of) -> None:
    reported = [("X-Registry-Supports-Signatures", "1")]
    image = signature(BUNDLE, subject=None)
    registry.on("GET", "/v2/", json_reply({}, headers=reported))
    registry.on("GET", f"/v2/{REPOSITORY}/tags/list", json_reply({"tags": ["a"]}, headers=reported))
    path = f"/v2/{REPOSITORY}/manifests/a"
    registry.on("GET", path, reply(200, image, reported, content_type=media_types.OCI_MANIFEST))
    client = client_of(registry)
    client.ping()
    assert client.list_tags(REPOSITORY).tags == ("a",)
    assert client.get_manifest(REPOSITORY, TagName("a")).data == image
    assert [request.path for request in registry.requests if "extensions" in request.path] == []
