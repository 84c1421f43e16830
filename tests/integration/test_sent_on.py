"""What the places say that a registry redirects to loses no tag, and no signature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from registry_sync.errors import NotARegistry
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.referrers import MAX_DOUBTED
from support import serving
from support.certificates import CertificateAuthority, ServerCertificate
from support.choosing import NAME, held, sync
from support.held import Held
from support.hostile_registry import HostileRegistry, Raw, reply
from support.images import ContentBuilder
from support.lookalikes import known
from support.lookalikes.quirks import Habit, ManifestAnswers, Referrers
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.memory_registry import ANY, MemoryRegistry, document, referrers_page, refusal
from support.shapes import every_kind, signed_application
from support.signatures import Signer, with_fallback_tags
from support.syncing import Installation

LOGIN = "<html><head><title>Sign in</title></head></html>"


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return CertificateAuthority(tmp_path_factory.mktemp("ca")).server(hosts=HOSTS)


@pytest.mark.rule("A6.4")
@pytest.mark.parametrize(("status", "is_anonymous"), [(401, True), (403, True), (403, False), (404, True)])
def test_no_tag_is_lost_by_a_head_that_is_refused_where_it_leads(
    here: Installation, certificate: ServerCertificate, status: int, is_anonymous: bool
) -> None:
    content = every_kind(seed=status, releases=3)
    auth = replace(known.SIGNING.auth, takes_anonymous=is_anonymous)
    kind = replace(known.SIGNING, auth=auth, manifests=ManifestAnswers(head_refusal=status))
    with LookAlikeServer(kind, content, certificate) as server:
        assert here.sync("signing", server.url, kind.repository, client=server.client) is not None
        assert set(Held.read(here.database, here.store, "signing").tags) == set(content.tags)
        server.forget()
        assert here.sync("signing", server.url, kind.repository, client=server.client) is None
        assert sorted(server.manifests.pulled) == sorted(content.tags), "each tag is asked once by GET, and hashed"
        assert sorted(server.manifests.headed) == sorted(content.tags)
    assert server.witness.violations == []


@pytest.mark.rule("A8.2")
@pytest.mark.parametrize(("redirect", "status"), [(303, 404), (307, 403), (303, 200), (307, 501)])
def test_a_registry_that_sends_the_question_for_referrers_elsewhere_is_one_without_the_api(
    here: Installation, certificate: ServerCertificate, redirect: int, status: int
) -> None:
    referrers = Referrers(status, redirect=redirect, page=LOGIN if status == 200 else None)
    kind = replace(known.GHCR, referrers=referrers)
    content = with_fallback_tags(signed_application(seed=redirect))
    with LookAlikeServer(kind, content, certificate) as server:
        first = here.sync("sent-on", server.url, kind.repository, client=server.client)
        assert first is not None
        assert first.is_complete
        assert len(server.referrers_asked) == 1
        assert set(Held.read(here.database, here.store, "sent-on").tags) == set(content.tags)
        assert here.sync("sent-on", server.url, kind.repository, client=server.client) is None
        assert len(server.referrers_asked) == 1, "the run after knows it"


@pytest.mark.rule("A8.2")
@pytest.mark.parametrize(
    "status", sorted({kind.referrers.status for kind in known.KNOWN if Habit.LACKS_REFERRERS in kind.habits})
)
def test_known_registries_without_the_api_are_requested_once_in_the_first_sync_and_never_in_the_next(
    here: Installation, registry: MemoryRegistry, status: int
) -> None:
    here.has_tasks = True
    registry.on("GET", "referrers", ANY, refusal(status))
    registry.serve(NAME, every_kind(seed=57, releases=3))
    first = here.sync("known", registry.url, NAME)
    assert first is not None
    assert (first.is_complete, first.referrers_problem) == (True, None)
    asked = [request.reference for request in registry.log().select("GET", "referrers")]
    here.sync("known", registry.url, NAME)
    assert (len(set(asked)), registry.log().count("GET", "referrers") - len(asked)) == (1, 0)
    assert len(asked) == 1


WORDS = "cannot be listed"


@pytest.fixture
def plain() -> Iterator[HostileRegistry]:
    with HostileRegistry() as server:
        yield server


def untold(response: str) -> Raw:
    """What is answered in place of a list of referrers."""
    locations = {"refused by policy": "http://169.254.169.254/latest", "not reached": "http://127.0.0.1:1/x"}
    if response == "login":
        return reply(200, LOGIN, content_type="text/html")
    return reply(int(response)) if response.isdigit() else reply(307, headers=[("Location", locations[response])])


def refuse_referrers(registry: HostileRegistry, build: ContentBuilder, response: str) -> None:
    for subject in build.content().manifests:
        registry.on("GET", f"/v2/{NAME}/referrers/{subject}", untold(response))


def asked_for_referrers(registry: HostileRegistry) -> int:
    return sum("/referrers/" in request.path for request in registry.requests)


@pytest.mark.rule("A8.2")
@pytest.mark.parametrize("response", ["refused by policy", "not reached", "403"])
def test_referrers_that_cannot_be_looked_up_hurt_no_tag_and_the_version_says_so(
    here: Installation, plain: HostileRegistry, response: str
) -> None:
    build = ContentBuilder(seed=48)
    signer = Signer(build)
    index = build.index([build.image([build.blob(60)])])
    build.tag("v1", index)
    serving.serve(plain, NAME, build.content())
    refuse_referrers(plain, build, response)
    first = sync(here, plain)
    assert first is not None
    assert (first.holds, first.is_complete) == ((), False)
    assert WORDS in (first.referrers_problem or "")
    assert asked_for_referrers(plain) <= 2, "it is asked once, and again where nothing was reached"
    assert any("may lack referrers" in line for line in here.lines)
    signed = signer.bundle(index)
    serving.serve(plain, NAME, build.content())
    serving.serve_referrers(plain, NAME, build.content())
    second = sync(here, plain)
    assert second is not None
    assert signed in held(here, second), "it is looked up as soon as it can be"
    assert (second.referrers_problem, second.is_complete) == (None, True)
    build.tag("v2", build.image([build.blob(61)]))
    refuse_referrers(plain, build, response)
    serving.serve(plain, NAME, build.content())
    third = sync(here, plain, allow_sparse=True)
    assert third is not None
    assert third.holds == ()
    assert signed in held(here, third), "what could not be looked up stays as it was, also of a tag that is read again"
    assert WORDS in (third.referrers_problem or "")


def ask_in_vain(registry: MemoryRegistry, response: str) -> None:
    page = document(LOGIN, "text/html") if response == "login" else refusal(int(response))
    registry.on("GET", "referrers", ANY, page)


def serve_referrers(registry: MemoryRegistry) -> None:
    registry.has_referrers_api = True
    registry.forget("referrers")


@pytest.mark.rule("A8.2")
@pytest.mark.parametrize("response", ["400", "404"])
@pytest.mark.parametrize("odd", [0, 1])
def test_a_known_api_with_one_odd_response_is_asked_about_other_manifests(
    here: Installation, registry: MemoryRegistry, response: str, odd: int
) -> None:
    """As quay does of some kinds of manifests; whichever of the new ones is asked about first."""
    here.has_tasks = True
    build = ContentBuilder(seed=54)
    signer = Signer(build)
    build.tag("v1", first := build.image([build.blob(60)]))
    signer.bundle(first)
    registry.serve(NAME, build.content())
    serve_referrers(registry)
    assert sync(here, registry) is not None
    images = [build.image([build.blob(61 + number)]) for number in range(2)]
    for number, image in enumerate(images):
        build.tag(f"v{number + 2}", image)
    signed = signer.bundle(images[1 - odd])
    registry.serve(NAME, build.content())
    serve_referrers(registry)
    registry.on("GET", "referrers", images[odd], refusal(int(response)))
    version = sync(here, registry)
    assert version is not None
    assert version.holds == ()
    assert signed in held(here, version)
    if response == "400":
        assert (version.is_complete, version.referrers_problem) == (True, None), "nothing can refer to it"
    else:
        assert f"responds 404 for those of {images[odd]}" in (version.referrers_problem or "")
    asked = Counter(request.reference for request in registry.log().select("GET", "referrers"))
    assert max(asked.values()) <= 3, "the listing, one that doubts, and one that knows"


@pytest.mark.rule("A8.2")
@pytest.mark.parametrize("has_signatures", [True, False])
def test_the_latest_version_shows_whether_the_only_new_manifest_is_the_odd_one(
    here: Installation, registry: MemoryRegistry, has_signatures: bool
) -> None:
    here.has_tasks = True
    build = ContentBuilder(seed=55)
    build.tag("v1", first := build.image([build.blob(60)]))
    if has_signatures:
        Signer(build).bundle(first)
    registry.serve(NAME, build.content())
    serve_referrers(registry)
    assert sync(here, registry) is not None
    build.tag("v2", image := build.image([build.blob(61)]))
    registry.serve(NAME, build.content())
    registry.on("GET", "referrers", image, refusal(400))
    version = sync(here, registry)
    assert version is not None
    assert (version.is_complete, version.referrers_problem) == (True, None)


@pytest.mark.rule("A8.2")
def test_a_known_api_that_is_hidden_is_requested_a_few_times_in_each_task(
    here: Installation, registry: MemoryRegistry
) -> None:
    here.has_tasks = True
    build = ContentBuilder(seed=56)
    build.tag("v1", build.image([build.blob(60)]))
    registry.serve(NAME, build.content())
    serve_referrers(registry)
    assert sync(here, registry) is not None
    for number in range(20):
        build.tag(f"n{number}", build.image([build.blob(61 + number)]))
    ask_in_vain(registry, "400")
    registry.serve(NAME, build.content())
    version = sync(here, registry)
    assert version is not None
    assert "responds 400 as if it had no referrers API, which it had in a recent sync" in str(version.referrers_problem)
    assert registry.log().count("GET", "referrers") <= 1 + MAX_DOUBTED, "once while listing, for what was there before"


@pytest.mark.rule("A8.2")
def test_an_api_that_is_gone_takes_no_signature_with_it(here: Installation, registry: MemoryRegistry) -> None:
    build = ContentBuilder(seed=49)
    index = build.index([build.image([build.blob(60)])])
    build.tag("v1", index)
    signed = Signer(build).bundle(index)
    of_it = Signer(build).notation(signed)
    registry.serve(NAME, build.content())
    serve_referrers(registry)
    assert sync(here, registry) is not None
    build.tag("v2", build.image([build.blob(61)]))
    ask_in_vain(registry, "login")
    registry.serve(NAME, build.content())
    version = sync(here, registry, allow_sparse=True)
    assert version is not None
    assert {signed, of_it} <= held(here, version)
    assert "had in a recent sync" in (version.referrers_problem or "")
    assert not version.is_complete


@pytest.mark.rule("A8.2")
@pytest.mark.parametrize("response", ["login", "404"])
def test_the_signature_of_a_new_image_is_not_lost_to_one_response_that_hides_the_api(
    here: Installation, registry: MemoryRegistry, response: str
) -> None:
    build = ContentBuilder(seed=51)
    signer = Signer(build)
    for name in ("v1", "v2"):
        image = build.image([build.blob(60)])
        build.tag(name, image)
        signed = signer.bundle(image)
        registry.serve(NAME, build.content())
        if name == "v1":
            serve_referrers(registry)
            assert sync(here, registry) is not None
    ask_in_vain(registry, response)
    hidden = sync(here, registry)
    assert hidden is not None
    assert (hidden.is_complete, hidden.holds) == (False, ())
    assert "had in a recent sync" in (hidden.referrers_problem or "")
    serve_referrers(registry)
    version = sync(here, registry)
    assert version is not None
    assert signed in held(here, version)
    assert version.is_complete


@pytest.mark.rule("A8.2")
@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_listing_of_referrers_that_breaks_off_makes_no_image_missing(
    here: Installation, registry: MemoryRegistry, is_sparse: bool
) -> None:
    build = ContentBuilder(seed=52)
    image = build.image([build.blob(60)])
    build.tag("v1", build.index([image]))
    registry.serve(NAME, build.content())
    serve_referrers(registry)
    registry.on("GET", "referrers", image, referrers_page([], has_more=True), refusal(404))
    version = sync(here, registry, allow_sparse=is_sparse)
    assert version is not None
    assert (version.holds, version.is_complete) == ((), False)
    assert WORDS in (version.referrers_problem or "")
    assert image in held(here, version)


@pytest.mark.rule("A8.2")
def test_that_there_is_no_api_is_known_of_one_source_and_not_of_the_next(
    here: Installation, registry: MemoryRegistry
) -> None:
    """A remote that comes to stand for another repository is asked anew."""
    build = ContentBuilder(seed=50)
    index = build.index([build.image([build.blob(60)])])
    build.tag("v1", index)
    signed = Signer(build).bundle(index)
    registry.serve(NAME, build.content())
    ask_in_vain(registry, "404")
    assert sync(here, registry) is not None
    other = MemoryRegistry(has_referrers_api=True)
    build.tag("v2", index)
    other.serve(NAME, build.content())
    version = sync(here, other, allow_sparse=True)
    assert version is not None
    assert signed in held(here, version)


@pytest.mark.rule("A2.1")
@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("include_tags", [None, ("1.0",)], ids=["listed", "named"])
def test_a_sync_of_a_web_page_says_what_the_test_of_a_connection_says(
    here: Installation, status: int, include_tags: tuple[str, ...] | None
) -> None:
    page = reply(status, LOGIN, content_type="text/html")
    with HostileRegistry(otherwise=lambda _request: page) as site:
        with (
            RegistryClient(site.url) as client,
            pytest.raises(NotARegistry, match="does not respond as a registry at /v2/") as tested,
        ):
            client.ping()
        with pytest.raises(NotARegistry) as synced:
            sync(here, site, include_tags=include_tags)
    assert str(synced.value) == str(tested.value)
    assert "a web page ('Sign in')" in str(synced.value)
