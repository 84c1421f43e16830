"""Where a question for referrers is refused, sent on or breaks off: what is known then, and what is an error."""

from __future__ import annotations

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.errors import (
    ProtocolError,
    ReferrersUnavailable,
    RegistryError,
)
from registry_sync.oci.referrers import MAX_DOUBTED
from support.hostile_registry import HostileRegistry, Raw, errors_reply, reply
from support.oci import REPOSITORY
from support.referrers import API, FALLBACK, SUBJECT, found, listing

LOGIN_PAGE = reply(200, "<html><title>Sign in</title></html>", content_type="text/html")


def moved(location: str, status: int = 307) -> Raw:
    return reply(status, headers=[("Location", location)])


@pytest.mark.parametrize("redirect", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("is_elsewhere", [True, False], ids=["another host", "another path"])
@pytest.mark.parametrize(
    "response",
    [*map(reply, (400, 401, 403, 404, 405, 406, 410, 501, 204)), errors_reply(404, "NAME_UNKNOWN"), LOGIN_PAGE],
)
def test_a8_02_what_is_no_index_means_no_api_wherever_it_comes_from(
    registry, other_host, client_of, response: Raw, is_elsewhere: bool, redirect: int
) -> None:
    place = other_host if is_elsewhere else registry
    registry.on("GET", API, moved(f"{place.base}/elsewhere?x=y", redirect))
    place.on("GET", "/elsewhere", response)
    registry.on("GET", FALLBACK, listing("a"))
    client = client_of(registry)
    for _ in range(2):
        assert [referrer.digest for referrer in client.list_referrers(REPOSITORY, SUBJECT)] == [Digest.of(b"a")]
    assert client.list_referrers_by_api(REPOSITORY, Digest.of(b"another subject")) is None
    assert len(place.asked(path="/elsewhere")) == 1, "the repository is asked once"


def test_a8_02_an_index_is_read_wherever_it_comes_from(registry, other_host, client_of) -> None:
    registry.on("GET", API, moved(f"{other_host.base}/elsewhere"))
    other_host.on("GET", "/elsewhere", listing("a"))
    assert found(registry, client_of) == [Digest.of(b"a")]


def test_a8_02_a_redirect_to_nowhere_is_no_api(registry, client_of) -> None:
    registry.on("GET", API, reply(307))
    assert client_of(registry).list_referrers_by_api(REPOSITORY, SUBJECT) is None


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a8_02_an_outage_elsewhere_is_an_outage(registry, other_host, client_of, status: int) -> None:
    registry.on("GET", API, moved(f"{other_host.base}/elsewhere"))
    other_host.on("GET", "/elsewhere", reply(status))
    with pytest.raises(RegistryError) as failed:
        client_of(registry).list_referrers_by_api(REPOSITORY, SUBJECT)
    assert failed.value.is_temporary


@pytest.mark.parametrize("target", ["gone", "ftp://x/y", "http://169.254.169.254/latest", "loop"])
def test_a8_02_where_the_question_may_not_or_cannot_go_nothing_is_known(registry, client_of, target: str) -> None:
    """A redirect that the policy refuses, and a host that is not reached, say nothing of referrers or manifests."""
    with HostileRegistry() as gone:
        places = {"gone": f"{gone.base}/x", "loop": f"{registry.base}{API}"}
    registry.on("GET", API, moved(places.get(target, target)))
    client = client_of(registry, max_attempts=2, connect_timeout_seconds=0.3)
    for _ in range(2):
        with pytest.raises(ReferrersUnavailable, match="cannot be listed") as unknown:
            client.list_referrers_by_api(REPOSITORY, SUBJECT)
        assert not unknown.value.is_temporary
    assert len(registry.asked(path=API)) <= (11 if target == "loop" else 2), "the repository is asked once"


def test_a8_02_403_of_the_registry_is_a_refusal_and_requested_once(registry, client_of) -> None:
    registry.on("GET", API, errors_reply(403, "DENIED", "not for you"))
    client = client_of(registry)
    for subject in (SUBJECT, Digest.of(b"another")):
        with pytest.raises(ReferrersUnavailable, match="not for you"):
            client.list_referrers_by_api(REPOSITORY, subject)
    assert len(registry.requests) == 1


@pytest.mark.parametrize("response", [reply(403), reply(404), LOGIN_PAGE, moved("http://169.254.169.254/latest")])
def test_a8_02_one_subject_that_is_refused_hides_no_other(registry, client_of, response: Raw) -> None:
    """Also where that would mean that there is no API, if the API had not been seen before."""
    refused = Digest.of(b"another subject")
    registry.on("GET", API, listing("a"))
    registry.on("GET", f"/v2/{REPOSITORY}/referrers/{refused}", response)
    client = client_of(registry)
    assert client.list_referrers_by_api(REPOSITORY, SUBJECT)
    with pytest.raises(ReferrersUnavailable):
        client.list_referrers_by_api(REPOSITORY, refused)
    assert client.list_referrers_by_api(REPOSITORY, SUBJECT)


def test_a8_02_400_for_one_subject_is_none_of_it_where_there_is_an_api(registry, client_of) -> None:
    """The response of quay for manifests that cannot have referrers."""
    odd = Digest.of(b"of another kind")
    registry.on("GET", API, listing("a"))
    registry.on("GET", f"/v2/{REPOSITORY}/referrers/{odd}", reply(400))
    client = client_of(registry)
    assert client.list_referrers_by_api(REPOSITORY, SUBJECT)
    assert client.list_referrers_by_api(REPOSITORY, odd) == ()
    assert client.list_referrers_by_api(REPOSITORY, SUBJECT)


@pytest.mark.parametrize("response", [reply(400), reply(404), LOGIN_PAGE])
def test_a8_02_an_odd_response_of_a_known_api_is_of_its_subject_alone_until_there_are_too_many(
    registry, client_of, response: Raw
) -> None:
    odd = [Digest.of(b"odd %d" % number) for number in range(6)]
    for subject in odd:
        registry.on("GET", f"/v2/{REPOSITORY}/referrers/{subject}", response)
    registry.on("GET", API, listing("a"))
    client = client_of(registry)
    for _ in range(2):
        with pytest.raises(ReferrersUnavailable, match="which it had in a recent sync"):
            client.list_referrers_by_api(REPOSITORY, odd[0], is_known=True)
    assert client.list_referrers_by_api(REPOSITORY, SUBJECT, is_known=True)
    if response == reply(400):
        assert client.list_referrers_by_api(REPOSITORY, odd[0], is_known=True) == ()
    hidden = client_of(registry)
    registry.requests.clear()
    for subject in (*odd, SUBJECT):
        with pytest.raises(ReferrersUnavailable, match="which it had in a recent sync"):
            hidden.list_referrers_by_api(REPOSITORY, subject, is_known=True)
    assert len(registry.requests) == MAX_DOUBTED


@pytest.mark.parametrize(
    "response",
    [
        *map(reply, (204, 400, 401, 403, 404, 405, 410, 501)),
        LOGIN_PAGE,
        moved("http://169.254.169.254/latest"),
        moved(""),
    ],
)
def test_a8_02_of_a_listing_that_breaks_off_nothing_is_known(registry, client_of, response: Raw) -> None:
    """It is no end of the listing, and nothing that is said of the manifest, or of another one's referrers."""
    other = Digest.of(b"another subject")
    registry.on("GET", API, listing("a", following=f"{API}?page=2"), response)
    registry.on("GET", f"/v2/{REPOSITORY}/referrers/{other}", listing("b"))
    client = client_of(registry)
    with pytest.raises(ReferrersUnavailable, match="cannot be listed"):
        client.list_referrers_by_api(REPOSITORY, SUBJECT)
    assert client.list_referrers_by_api(REPOSITORY, other)


def test_a8_02_a_next_page_elsewhere_is_not_requested_and_nothing_is_known(registry, other_host, client_of) -> None:
    registry.on("GET", API, listing("a", following=f"{other_host.base}{API}?page=2"))
    with pytest.raises(ReferrersUnavailable, match="names a next page at"):
        client_of(registry).list_referrers_by_api(REPOSITORY, SUBJECT)
    assert other_host.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a8_02_an_outage_at_a_later_page_is_an_outage(registry, client_of, status: int) -> None:
    registry.on("GET", API, listing("a", following=f"{API}?page=2"), reply(status))
    with pytest.raises(RegistryError) as failed:
        client_of(registry).list_referrers_by_api(REPOSITORY, SUBJECT)
    assert failed.value.is_temporary


@pytest.mark.parametrize("status", [400, 404, 405, 406, 501])
def test_a8_02_a_token_service_that_refuses_says_nothing_of_the_api(registry, client_of, status: int) -> None:
    registry.on("GET", API, reply(401, headers=[("WWW-Authenticate", f'Bearer realm="{registry.base}/token"')]))
    registry.on("GET", "/token", reply(status))
    with pytest.raises(RegistryError):
        client_of(registry).list_referrers_by_api(REPOSITORY, SUBJECT)


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


@pytest.mark.parametrize(
    "document",
    [
        '{"schemaVersion": 2, "manifests": 7}',
        '{"schemaVersion": 2, "manifests": {}}',
        '{"schemaVersion": 2, "manifests": [null]}',
        '{"schemaVersion": 2}',
        '{"errors": [{"code": "UNKNOWN"}]}',
        '{"schemaVersion": 2, "manifests": [], "errors": [{"code": "UNKNOWN"}]}',
        "{}",
        "",
    ],
)
@pytest.mark.parametrize("is_later", [False, True])
def test_a8_02_an_index_that_cannot_be_read_is_an_error(registry, client_of, document: str, is_later: bool) -> None:
    first = [listing("a", following=f"{API}?page=2")] if is_later else []
    registry.on("GET", API, *first, reply(200, document, content_type=media_types.OCI_INDEX))
    with pytest.raises(ProtocolError):
        found(registry, client_of)
