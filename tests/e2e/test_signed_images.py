"""Signed images with attestations and bills of material: all that belongs to them arrives, byte for byte, and verifies.

A registry without the referrers API keeps it under tags, which the tag filters of these syncs leave out; one with the
API lists it, the signature of a bill of material among it.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import fallback_tag
from support.certificates import CertificateAuthority, ServerCertificate
from support.dag_runners import InStages, Runner, Scheduled, is_unchanged
from support.filling import push
from support.held import Held
from support.images import RepositoryContent
from support.lookalikes import known
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.ready_databases import RenewedDatabase
from support.registry import RegistryServer
from support.shapes import signed_application
from support.signatures import (
    BUNDLE,
    DSSE,
    KEY,
    SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING,
    pre_authentication,
    subject_of,
    with_companions,
    with_fallback_tags,
)
from support.syncing import Installation

#: Filters that let the release in and none of the tags that belong to it; a name alone needs no listing.
FILTERS = {"glob": ["1.*"], "name": ["1.0"]}
_seeds = itertools.count(2000)
#: Which tags are wanted is decided before anything is handed to another process.
by_both_ways = pytest.mark.parametrize(
    ("runner", "tags"),
    [("scheduled", FILTERS["glob"]), *(("in stages", tags) for tags in FILTERS.values())],
    indirect=["runner"],
    ids=["scheduled", *(f"{name} in stages" for name in FILTERS)],
)


@pytest.fixture
def content() -> RepositoryContent:
    return signed_application(next(_seeds))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return CertificateAuthority(tmp_path_factory.mktemp("ca")).server(hosts=HOSTS)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "registry") as server:
        yield server


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenewedDatabase]:
    tested = RenewedDatabase(tmp_path_factory.mktemp("database") / "tested.db")
    yield tested
    tested.close()


@pytest.fixture
def runner(
    request: pytest.FixtureRequest, database: RenewedDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Runner:
    if request.param == "scheduled":
        return Scheduled(request.getfixturevalue("airflow"))
    return InStages(Installation.on(database.renewed(), tmp_path), monkeypatch)


@pytest.fixture
def zot(certificate: ServerCertificate, runner: Runner, content: RepositoryContent) -> Iterator[LookAlikeServer]:
    """A look-alike with the referrers API, connected to as ``at_signed_…``."""
    with LookAlikeServer(known.ZOT, content, certificate) as server:
        yield server
        assert server.witness.violations == []


def connected(runner: Runner, server: LookAlikeServer, repository: str) -> dict[str, str]:
    """What a sync of the look-alike into ``repository`` is told."""
    conn_id = f"at_{repository}".replace("-", "_")
    runner.connect(conn_id, server.connection)
    return {"repository": repository, "url": server.url, "upstream_name": server.kind.repository, "conn_id": conn_id}


def pulled(server: LookAlikeServer, content: RepositoryContent) -> list[str]:
    """The digests of what was pulled, by digest or by tag, as often as it was."""
    return sorted(content.tags.get(reference, reference) for reference in server.manifests.pulled)


def assert_holds(held: Held, content: RepositoryContent) -> None:
    """Exactly ``content``, every byte of it."""
    assert held.tags == content.tags
    assert held.manifests == {
        digest: (manifest.media_type, manifest.data) for digest, manifest in content.manifests.items()
    }
    assert held.blobs == {digest: blob.data for digest, blob in content.blobs.items()}
    assert held.counts["present"] == {
        "docker.blob": len(content.blobs),
        "docker.manifest": len(content.manifests),
        "docker.tag": len(content.tags),
    }


def verified(held: Held) -> list[tuple[str, Digest]]:
    """The type of each signature that is held, and what it is over: verified from the bytes that are held alone."""
    found: list[tuple[str, Digest]] = []
    for _, data in held.manifests.values():
        for layer in json.loads(data).get("layers", ()):
            blob = held.blobs[Digest(layer["digest"])]
            if layer["mediaType"] == SIMPLE_SIGNING:
                KEY.public_key().verify(base64.b64decode(layer["annotations"][SIGNATURE_ANNOTATION]), blob)
                found.append((SIMPLE_SIGNING, Digest(json.loads(blob)["critical"]["image"]["docker-manifest-digest"])))
            elif layer["mediaType"] in (DSSE, BUNDLE):
                envelope = json.loads(blob)
                envelope = envelope.get("dsseEnvelope", envelope)
                payload = base64.b64decode(envelope["payload"])
                signed = pre_authentication(envelope["payloadType"], payload)
                KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
                (subject,) = json.loads(payload)["subject"]
                found.append((layer["mediaType"], Digest(f"sha256:{subject['digest']['sha256']}")))
    return found


def assert_verifies(held: Held) -> None:
    """Two signatures and an attestation of cosign, a bundle of the image and one of its bill of material."""
    signatures = verified(held)
    assert sorted(kind for kind, _ in signatures) == sorted([SIMPLE_SIGNING, SIMPLE_SIGNING, DSSE, BUNDLE, BUNDLE])
    assert {of for _, of in signatures} <= set(held.manifests)


@pytest.mark.rule("A6.16", "A8.2", "A8.3", "A8.6", "A8.7", "A8.8")
@by_both_ways
def test_what_a_registry_without_the_api_keeps_under_tags_arrives_byte_for_byte(
    runner: Runner, registry: RegistryServer, content: RepositoryContent, tags: list[str]
) -> None:
    given = with_fallback_tags(content)
    push(registry, "signed", given)
    repository = f"signed-by-tags-{next(_seeds)}"
    conf = {"repository": repository, "url": registry.url, "upstream_name": "signed", "tags": tags}
    runner.sync(**conf)
    held = runner.held(repository)
    assert_holds(held, with_companions(given, ["1.0"]))
    assert_verifies(held)
    assert is_unchanged(runner.sync(**conf))


@pytest.mark.rule("A6.16", "A8.1", "A8.6", "A8.7", "A8.8")
@by_both_ways
def test_what_a_registry_with_the_api_lists_arrives_byte_for_byte(
    runner: Runner, zot: LookAlikeServer, content: RepositoryContent, tags: list[str]
) -> None:
    conf = {**connected(runner, zot, f"signed-by-api-{next(_seeds)}"), "tags": tags}
    runner.sync(**conf)
    held = runner.held(conf["repository"])
    expected = with_companions(content, ["1.0"])
    assert_holds(held, expected)
    assert_verifies(held)
    assert pulled(zot, content) == sorted(expected.manifests), "each manifest is pulled once"
    assert is_unchanged(runner.sync(**conf))


@pytest.mark.rule("A8.6")
@pytest.mark.parametrize("runner", ["in stages"], indirect=True)
def test_a_signature_that_comes_later_makes_a_version_although_no_tag_moved(
    runner: Runner, zot: LookAlikeServer, content: RepositoryContent
) -> None:
    """And one that is gone again makes another."""
    image = content.tags["1.0"]
    late = {digest for digest, manifest in content.manifests.items() if subject_of(manifest) == image}
    unsigned = RepositoryContent(
        {name: digest for name, digest in content.tags.items() if name != f"{fallback_tag(image)}.sig"},
        {digest: manifest for digest, manifest in content.manifests.items() if digest not in late},
        content.blobs,
    )
    before, after = with_companions(unsigned, ["1.0"]), with_companions(content, ["1.0"])
    conf = {**connected(runner, zot, "signed-later"), "tags": ["1.*"]}
    zot.serve(unsigned)
    runner.sync(**conf)
    assert_holds(runner.held("signed-later"), before)
    zot.serve(content)
    runner.sync(**conf)
    held = runner.held("signed-later")
    assert held.number == 2
    assert_holds(held, after)
    assert_verifies(held)
    assert pulled(zot, content) == sorted(set(after.manifests) - set(before.manifests))
    assert held.counts["added"] == {
        "docker.blob": len(set(after.blobs) - set(before.blobs)),
        "docker.manifest": len(late) + 1,
        "docker.tag": 1,
    }
    zot.serve(unsigned)
    runner.sync(**conf)
    assert_holds(runner.held("signed-later"), before)


@pytest.mark.rule("A8.4")
@pytest.mark.parametrize("tags", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("runner", ["in stages"], indirect=True)
def test_a_registry_that_takes_the_fallback_tag_for_the_digest_adds_nothing(
    runner: Runner, certificate: ServerCertificate, content: RepositoryContent, tags: list[str]
) -> None:
    tagged = content.closure(content.tags)
    with LookAlikeServer(known.GITLAB, tagged, certificate) as server:
        conf = {**connected(runner, server, "signed-at-gitlab"), "tags": tags}
        runner.sync(**conf)
        assert is_unchanged(runner.sync(**conf))
    assert_holds(runner.held("signed-at-gitlab"), with_companions(tagged, ["1.0"]))
    assert server.witness.violations == []
