"""crane, oras and regctl pull what was synced: images, artifacts, and everything that belongs to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.serve.conftest import Served
from registry_sync.domain.digests import Digest
from registry_sync.domain.references import fallback_tag
from registry_sync.domain.serving import DistributionSpec
from support.go_clients import GoClients
from support.pull_server import PullServer
from support.registry import RegistryServer
from support.signatures import subject_of, with_companions

pytestmark = pytest.mark.parametrize("served", [PullServer], indirect=True, ids=["granian"], scope="module")


@pytest.fixture
def clients(served: Served, tmp_path: Path) -> GoClients:
    """With nothing but the address of a registry without TLS, which crane and oras are told on the command line."""
    return GoClients.at(tmp_path / "home", served.server.netloc)


def _blobs(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


def _all_below(served: Served, tag: str, *, has_tags: bool) -> dict[str, bytes]:
    """Every manifest and blob of a signed image and of all that refers to it, by the hexadecimal of its digest.

    ``has_tags`` counts what is tagged for it as well: cosign's signatures.
    """
    content = served.signed
    if has_tags:
        content = with_companions(content, [tag])
        manifests = set(content.manifests)
    else:
        manifests = {content.tags[tag]}
        while True:
            found = content.below(manifests) | manifests
            found |= {digest for digest, manifest in content.manifests.items() if subject_of(manifest) in found}
            if found == manifests:
                break
            manifests = found
    blobs = {digest for manifest in manifests for digest in content.manifests[manifest].blobs}
    return {Digest(digest).encoded: content.manifests[digest].data for digest in manifests} | {
        Digest(digest).encoded: content.blobs[digest].data for digest in blobs
    }


# -- crane -------------------------------------------------------------------------------------------------------------


def test_crane_lists_reads_and_pulls_everything_byte_for_byte(
    clients: GoClients, served: Served, tmp_path: Path
) -> None:
    source = clients.named("kinds")
    assert sorted(clients("crane", "ls", source).split()) == sorted(served.kinds.tags)
    for tag, digest in served.kinds.tags.items():
        assert clients("crane", "digest", f"{source}:{tag}").strip() == digest
        assert clients("crane", "manifest", f"{source}@{digest}").encode() == served.kinds.manifests[digest].data
    for tag in ("oci-index", "docker-list", "oci-image"):
        layout = tmp_path / tag
        clients("crane", "pull", "--format=oci", f"{source}:{tag}", str(layout))
        wanted = served.kinds.below([served.kinds.tags[tag]])
        held = _blobs(layout)
        for digest in wanted:
            manifest = served.kinds.manifests[digest]
            assert held[digest.encoded] == manifest.data
            assert {held[blob.encoded] for blob in manifest.blobs} == {
                served.kinds.blobs[b].data for b in manifest.blobs
            }


def test_crane_finds_what_cosign_tagged(clients: GoClients, served: Served) -> None:
    signed = served.signed.tags["1.0"]
    name = f"{fallback_tag(signed)}.sig"
    printed = clients("crane", "manifest", f"{clients.named('signed')}:{name}")
    assert printed.encode() == served.signed.manifests[served.signed.tags[name]].data
    layer = json.loads(printed)["layers"][0]["digest"]
    payload = clients("crane", "blob", f"{clients.named('signed')}@{layer}")
    assert json.loads(payload)["critical"]["image"]["docker-manifest-digest"] == signed


def test_crane_logs_in_and_copies_what_is_private_to_another_registry(
    clients: GoClients, served: Served, tmp_path: Path
) -> None:
    source = f"{clients.named('team/private')}:oci-index"
    assert "UNAUTHORIZED" in clients("crane", "digest", source, may_fail=True)
    name, secret = served.robot
    clients("crane", "auth", "login", served.server.netloc, "-u", name, "--password-stdin", stdin=secret)
    with RegistryServer(tmp_path / "other") as other:
        clients("crane", "copy", source, f"{other.netloc}/copy:oci-index")
        copied = clients("crane", "digest", f"{other.netloc}/copy:oci-index").strip()
    assert copied == served.kinds.tags["oci-index"]


# -- oras --------------------------------------------------------------------------------------------------------------


def test_oras_pulls_an_artifact_that_was_pushed_and_synced(clients: GoClients, served: Served, tmp_path: Path) -> None:
    chart = tmp_path / "chart.txt"
    chart.write_text("replicas: 3\n")
    with RegistryServer(tmp_path / "upstream") as upstream:
        pushed = f"{upstream.netloc}/charts/app:1"
        kind = "application/vnd.example.chart"
        clients(
            "oras", "push", "--plain-http", "--disable-path-validation", "--artifact-type", kind, pushed, str(chart)
        )
        served.here.sync("charts", upstream.url, "charts/app")
    repository = served.here.database.repositories.by_name("charts")
    served.here.database.distributions.create(DistributionSpec("charts", "charts/app", repository.id, is_private=False))
    chart.unlink()
    clients("oras", "pull", "--plain-http", "--allow-path-traversal", clients.named("charts/app:1"))
    assert chart.read_text() == "replicas: 3\n"


def test_oras_discovers_what_refers_to_an_image(clients: GoClients, served: Served) -> None:
    digest = served.signed.tags["1.0"]
    reference = f"{clients.named('signed')}:1.0"
    found = json.loads(clients("oras", "discover", "--plain-http", "--format", "json", "--depth", "1", reference))
    known = {d: m for d, m in served.signed.manifests.items() if subject_of(m) == digest}
    entries = found["referrers"]
    assert {entry["digest"] for entry in entries} == set(known)
    assert len(known) == 2
    for entry in entries:
        document = json.loads(known[entry["digest"]].data)
        assert entry["artifactType"] == document.get("artifactType", document["config"]["mediaType"])
    kind = entries[0]["artifactType"]
    words = ("--plain-http", "--format", "json", "--depth", "1", "--artifact-type", kind)
    filtered = json.loads(clients("oras", "discover", *words, reference))["referrers"]
    assert [entry["digest"] for entry in filtered] == [entries[0]["digest"]]


@pytest.mark.parametrize("name", ["signed", "team/signed"])
def test_oras_copies_an_image_with_all_that_refers_to_it(
    clients: GoClients, served: Served, tmp_path: Path, name: str
) -> None:
    if name == "team/signed":
        repository = served.here.database.repositories.by_name("signed")
        served.here.database.distributions.create(DistributionSpec("team-signed", name, repository.id))
        login, secret = served.robot
        words = ("-u", login, "--password-stdin", served.server.netloc)
        clients("oras", "login", "--plain-http", *words, stdin=secret)
    source = f"{clients.named(name)}:1.0"
    clients("oras", "cp", "-r", "--from-plain-http", "--to-oci-layout", source, f"{tmp_path / 'layout'}:1.0")
    held = _blobs(tmp_path / "layout")
    assert held.items() >= _all_below(served, "1.0", has_tags=False).items()
    assert set(held.values()) <= {m.data for m in served.signed.manifests.values()} | {
        blob.data for blob in served.signed.blobs.values()
    }


# -- regctl ------------------------------------------------------------------------------------------------------------


def test_regctl_lists_tags_and_referrers(clients: GoClients, served: Served) -> None:
    source = clients.named("signed")
    assert sorted(clients("regctl", "tag", "ls", source).split()) == sorted(served.signed.tags)
    digest = served.signed.tags["2.0"]
    listed = json.loads(clients("regctl", "artifact", "list", "--format", "{{ json . }}", f"{source}:2.0"))
    wanted = {d for d, manifest in served.signed.manifests.items() if subject_of(manifest) == digest}
    assert {entry["digest"] for entry in listed["descriptors"]} == wanted


def test_regctl_copies_an_image_its_referrers_and_its_signatures(
    clients: GoClients, served: Served, tmp_path: Path
) -> None:
    target = tmp_path / "layout"
    words = ("--referrers", "--digest-tags", f"{clients.named('signed')}:1.0", f"ocidir://{target}:1.0")
    clients("regctl", "image", "copy", *words)
    assert _blobs(target).items() >= _all_below(served, "1.0", has_tags=True).items()


def test_regctl_logs_in_to_what_is_private(clients: GoClients, served: Served) -> None:
    image = f"{clients.named('team/private')}:oci-image"
    clients("regctl", "image", "digest", image, may_fail=True)
    name, secret = served.robot
    clients("regctl", "registry", "login", "-u", name, "--pass-stdin", served.server.netloc, stdin=secret)
    assert clients("regctl", "image", "digest", image).strip() == served.kinds.tags["oci-image"]
