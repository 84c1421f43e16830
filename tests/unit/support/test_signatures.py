"""What signs the tests' images is laid down as its tools do it, and can be verified."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import requests

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import read_manifest
from registry_sync.domain.references import fallback_tag
from registry_sync.oci.referrers import artifact_type_of
from support import signatures
from support.filling import push
from support.images import ContentBuilder, RepositoryContent
from support.registry import RegistryServer
from support.shapes import signed_application
from support.signatures import KEY, Signer, subject_of, with_companions, with_fallback_tags


@pytest.fixture(scope="module")
def content() -> RepositoryContent:
    return signed_application()


def document(content: RepositoryContent, digest: Digest) -> Any:
    return json.loads(content.manifests[digest].data)


def test_it_is_the_same_each_time_and_another_with_another_seed(content: RepositoryContent) -> None:
    assert signed_application() == content
    other = signed_application(seed=9)
    assert not set(other.manifests) & set(content.manifests)


def test_every_kind_of_referrer_exists(content: RepositoryContent) -> None:
    """Its kind follows from type and subject alone, which is what a registry lists."""
    kinds = [
        (artifact_type_of(read), read.layers[0].media_type)
        for manifest in content.manifests.values()
        if subject_of(manifest) is not None
        for read in [read_manifest(manifest.data)]
    ]
    assert sorted(kinds) == sorted(
        2
        * [
            (signatures.BUNDLE, signatures.BUNDLE),
            (signatures.BUNDLE, signatures.BUNDLE),
            (signatures.NOTATION, signatures.JOSE),
            (signatures.NOTATION, signatures.COSE),
            (signatures.SPDX, signatures.SPDX),
            (signatures.BUILDKIT_ATTESTATION, signatures.IN_TOTO),
        ]
    )


def test_a_cosign_signature_is_over_the_digest_of_its_image(content: RepositoryContent) -> None:
    image = content.tags["1.0"]
    signature = document(content, content.tags[f"{fallback_tag(image)}.sig"])
    (layer,) = signature["layers"]
    payload = content.blobs[Digest(layer["digest"])].data
    assert json.loads(payload)["critical"]["image"]["docker-manifest-digest"] == image
    KEY.public_key().verify(base64.b64decode(layer["annotations"][signatures.SIGNATURE_ANNOTATION]), payload)


def test_the_statement_in_a_bundle_is_signed_and_about_its_subject() -> None:
    build = ContentBuilder()
    image = build.image([])
    bundle = Signer(build).bundle(image)
    content = build.content()
    (layer,) = document(content, bundle)["layers"]
    envelope = json.loads(content.blobs[Digest(layer["digest"])].data)["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    signed = signatures.pre_authentication(envelope["payloadType"], payload)
    KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    assert json.loads(payload)["subject"][0]["digest"] == {"sha256": image.encoded}
    assert subject_of(content.manifests[bundle]) == image


def test_fallback_tags_list_what_refers_to_each_subject(content: RepositoryContent) -> None:
    given = with_fallback_tags(content)
    added = set(given.tags) - set(content.tags)
    assert added == {
        fallback_tag(Digest(subject)) for manifest in content.manifests.values() if (subject := subject_of(manifest))
    }
    for name in added:
        index = given.manifests[given.tags[name]]
        assert index.media_type == media_types.OCI_INDEX
        subjects = {subject_of(given.manifests[child]) for child in index.children}
        assert {fallback_tag(Digest(subject or "")) for subject in subjects} == {name}


@pytest.mark.parametrize("has_fallback_tags", [False, True])
def test_one_of_two_releases_has_half_of_everything(content: RepositoryContent, has_fallback_tags: bool) -> None:
    whole = with_fallback_tags(content) if has_fallback_tags else content
    part, other = with_companions(whole, ["1.0"]), with_companions(whole, ["2.0"])
    assert len(part.manifests) == len(other.manifests) == len(whole.manifests) / 2
    assert part.merged(other) == whole
    assert len(part.tags) == (9 if has_fallback_tags else 5)


@pytest.mark.slow
def test_a_registry_takes_and_serves_it(tmp_path: Path, content: RepositoryContent) -> None:
    given = with_fallback_tags(content)
    with RegistryServer(tmp_path) as server:
        push(server, "signed", given)
        assert server.tags("signed") == sorted(given.tags)
        for digest, manifest in given.manifests.items():
            url = f"{server.url}/v2/signed/manifests/{digest}"
            response = requests.get(url, headers={"Accept": manifest.media_type}, timeout=10)
            assert response.content == manifest.data
        server.close_session()
