"""What refers to a manifest: by the API, by the fallback tag, and what a refusal or an odd response means."""

from __future__ import annotations

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import RepositoryName
from registry_sync.oci.referrers import MAX_DOUBTED
from support.filling import push
from support.images import ContentBuilder
from support.memory_registry import MemoryResponse, document, referrers_page, refusal
from support.registry_sources import Source, error_of
from support.signatures import Signer, with_fallback_tags


class Signed:
    """An image with a bundle and a bill of material, one that is signed, and one to which nothing refers."""

    def __init__(self) -> None:
        self.build = ContentBuilder(seed=4)
        signer = Signer(self.build)
        self.image, self.plain = self.build.image([self.build.blob(20)]), self.build.image([])
        self.build.tag("v1", self.image)
        self.build.tag("v2", self.plain)
        self.bundle, self.sbom = signer.bundle(self.image), signer.sbom(self.image)
        self.signs_sbom = signer.notation(self.sbom)

    @property
    def others(self) -> list[Digest]:
        """More subjects, for what needs many."""
        return [Digest.of(f"another {number}".encode()) for number in range(MAX_DOUBTED + 1)]


@pytest.fixture
def signed() -> Signed:
    return Signed()


def digests(found: object) -> list[Digest]:
    assert isinstance(found, tuple)
    return [entry.digest for entry in found]


def test_without_the_api_the_fallback_tag_has_the_referrers(
    source: Source, name: RepositoryName, signed: Signed
) -> None:
    push(source.registry, name, with_fallback_tags(signed.build.content()))
    reader = source.reader()
    assert reader.list_referrers_by_api(name, signed.image) is None
    assert digests(reader.list_referrers(name, signed.image)) == [signed.bundle, signed.sbom]
    assert reader.list_referrers(name, signed.plain) == ()


def test_the_api_lists_what_refers_in_order_with_its_types(
    scripted: Source, name: RepositoryName, signed: Signed
) -> None:
    push(scripted.registry, name, signed.build.content())
    reader = scripted.reader()
    found = reader.list_referrers_by_api(name, signed.image)
    assert digests(found) == [signed.bundle, signed.sbom] == digests(reader.list_referrers(name, signed.image))
    assert found is not None
    assert [entry.artifact_type for entry in found] == [
        "application/vnd.dev.sigstore.bundle.v0.3+json",
        "application/spdx+json",
    ]
    assert digests(reader.list_referrers_by_api(name, signed.sbom)) == [signed.signs_sbom]
    assert reader.list_referrers_by_api(name, signed.plain) == ()
    counts = reader.usage.counts()
    assert (counts.head_count, counts.manifest_get_count) == (0, 0)


def test_pages_of_referrers_are_followed(scripted: Source, name: RepositoryName, signed: Signed) -> None:
    build = signed.build
    pages = [
        referrers_page([build.descriptor(signed.bundle)], has_more=True),
        referrers_page([build.descriptor(signed.sbom), build.descriptor(signed.bundle)]),
    ]
    scripted.registry.on("GET", "referrers", signed.image, *pages)
    assert digests(scripted.reader().list_referrers_by_api(name, signed.image)) == [signed.bundle, signed.sbom]


@pytest.mark.parametrize(
    "page", [refusal(404), refusal(401), document(b"<html>", "text/html")], ids=["404", "401", "a page"]
)
def test_a_registry_without_the_api_is_requested_once(
    scripted: Source, name: RepositoryName, signed: Signed, page: MemoryResponse
) -> None:
    push(scripted.registry, name, with_fallback_tags(signed.build.content()))
    for subject in (signed.image, signed.plain):
        scripted.registry.on("GET", "referrers", subject, page)
    reader = scripted.reader()
    assert reader.list_referrers_by_api(name, signed.image) is None
    assert reader.list_referrers_by_api(name, signed.plain) is None
    assert scripted.registry.log().count("GET", "referrers") == 1
    assert digests(reader.list_referrers(name, signed.image)) == [signed.bundle, signed.sbom]


@pytest.mark.parametrize("response", [refusal(403), refusal(401, has_challenge=True)], ids=["403", "401"])
def test_a_refusal_means_that_nothing_is_known_and_is_not_repeated(
    scripted: Source, name: RepositoryName, signed: Signed, response: MemoryResponse
) -> None:
    scripted.registry.on("GET", "referrers", signed.image, response)
    reader = scripted.reader()
    for subject in (signed.image, signed.plain):
        error = error_of(lambda subject=subject: reader.list_referrers_by_api(name, subject))
        assert (error["type"], error["is_temporary"]) == ("ReferrersUnavailable", False)
    assert scripted.registry.log().count("GET", "referrers") == 1


@pytest.mark.parametrize(
    ("status", "error"), [(429, "RateLimited"), (500, "ServerUnavailable"), (503, "ServerUnavailable")]
)
def test_an_outage_is_an_error_and_requested_again(
    scripted: Source, name: RepositoryName, signed: Signed, status: int, error: str
) -> None:
    scripted.registry.on("GET", "referrers", signed.image, refusal(status))
    reader = scripted.reader()
    found = error_of(lambda: reader.list_referrers_by_api(name, signed.image))
    assert (found["type"], found["status"], found["is_temporary"]) == (error, status, True)
    assert scripted.registry.log().count("GET", "referrers") == 3


def test_pages_that_break_off_say_nothing_of_the_rest(scripted: Source, name: RepositoryName, signed: Signed) -> None:
    page = referrers_page([signed.build.descriptor(signed.bundle)], has_more=True)
    scripted.registry.on("GET", "referrers", signed.image, page, refusal(404))
    error = error_of(lambda: scripted.reader().list_referrers_by_api(name, signed.image))
    assert (error["type"], error["status"]) == ("ReferrersUnavailable", 404)


def test_an_api_that_is_known_is_doubted_a_few_times(scripted: Source, name: RepositoryName, signed: Signed) -> None:
    for subject in signed.others:
        scripted.registry.on("GET", "referrers", subject, refusal(404))
    reader = scripted.reader()
    for subject in signed.others:
        error = error_of(lambda subject=subject: reader.list_referrers_by_api(name, subject, is_known=True))
        assert (error["type"], error["status"]) == ("ReferrersUnavailable", 404)
    assert scripted.registry.log().count("GET", "referrers") == MAX_DOUBTED


@pytest.mark.parametrize("status", [400, 404])
def test_an_odd_response_of_one_subject_is_of_that_subject_alone(
    scripted: Source, name: RepositoryName, signed: Signed, status: int
) -> None:
    push(scripted.registry, name, signed.build.content())
    odd = signed.others[0]
    scripted.registry.on("GET", "referrers", odd, refusal(status))
    reader = scripted.reader()
    assert len(reader.list_referrers_by_api(name, signed.image) or ()) == 2
    if status == 400:
        assert reader.list_referrers_by_api(name, odd) == (), "nothing can refer to it"
    else:
        error = error_of(lambda: reader.list_referrers_by_api(name, odd))
        assert (error["type"], error["status"]) == ("ReferrersUnavailable", 404)
    assert len(reader.list_referrers_by_api(name, signed.sbom) or ()) == 1
