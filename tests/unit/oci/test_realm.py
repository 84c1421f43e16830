"""Credentials go where their connection says, and a registry cannot send them elsewhere."""

from __future__ import annotations

import pytest

from registry_sync.errors import RealmRefused
from registry_sync.oci.auth.credentials import RealmPolicy
from registry_sync.oci.http.origins import Origin, Target

OWN = Origin("https", "registry.example", 443)
ASKED_AT = Target(OWN, "/v2/a/tags/list")


def policy(own: Origin = OWN, *trusted: str, allow_insecure: bool = False) -> RealmPolicy:
    return RealmPolicy(own, frozenset(trusted), allow_insecure=allow_insecure)


def test_a3_01_a_plain_http_realm_of_an_https_registry_is_refused_and_says_what_to_fix() -> None:
    with pytest.raises(RealmRefused, match="operator must set an https realm"):
        policy().check("http://registry.example/token", ASKED_AT, has_secret=False)


@pytest.mark.parametrize(
    "realm",
    [
        "https://user:password@registry.example/token",
        "https://registry.example/token#x",
        "https:///token",
        "ftp://registry.example/token",
        "https://registry.example:99999/token",
        "https://①⑥⑨.254.169.254/token",
        "https://registry.example\\@evil.example/",
    ],
)
def test_a3_01_a_realm_that_is_no_plain_url_is_refused(realm: str) -> None:
    with pytest.raises(RealmRefused):
        policy().check(realm, ASKED_AT, has_secret=False)


def test_a3_02_the_registry_itself_may_be_given_the_password() -> None:
    target = policy().check("https://registry.example/token?tenant=1", ASKED_AT, has_secret=True)
    assert target == Target(OWN, "/token?tenant=1")


@pytest.mark.parametrize(
    ("own", "realm"),
    [
        ("registry-1.docker.io", "https://auth.docker.io/token"),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth"),
    ],
)
def test_a3_02_token_services_known_to_belong_to_a_registry_are_trusted(own: str, realm: str) -> None:
    origin = Origin("https", own, 443)
    assert policy(origin).check(realm, Target(origin, "/v2/"), has_secret=True).url == realm


@pytest.mark.parametrize(
    "realm",
    [
        "https://auth.example/token",
        "https://registry.example.evil.example/token",
        "https://evil-registry.example/token",
        "https://registry.example:8443/token",
        "https://sub.registry.example/token",
    ],
)
def test_a3_02_any_other_host_is_refused_and_named_with_the_setting(realm: str) -> None:
    with pytest.raises(RealmRefused, match="trusted_realm_hosts") as refused:
        policy().check(realm, ASKED_AT, has_secret=True)
    assert Target.parse(realm).origin.netloc in str(refused.value)


def test_a3_02_a_listed_host_is_trusted_at_its_port_only() -> None:
    listed = policy(OWN, "auth.example", "other.example:8443")
    assert listed.check("https://auth.example/t", ASKED_AT, has_secret=True)
    assert listed.check("https://other.example:8443/t", ASKED_AT, has_secret=True)
    for realm in ("https://auth.example:8443/t", "https://other.example/t", "https://xauth.example/t"):
        with pytest.raises(RealmRefused):
            listed.check(realm, ASKED_AT, has_secret=True)


def test_a3_03_an_anonymous_request_may_go_to_any_https_realm() -> None:
    assert policy().check("https://tokens.example/t", ASKED_AT, has_secret=False).origin.host == "tokens.example"


def test_a3_06_a_password_does_not_travel_over_plain_http_unless_allowed() -> None:
    plain = Origin("http", "registry.example", 80)
    with pytest.raises(RealmRefused, match="allow_insecure_credentials"):
        policy(plain).check_basic()
    with pytest.raises(RealmRefused, match="allow_insecure_credentials"):
        policy(plain).check("http://registry.example/token", Target(plain, "/v2/"), has_secret=True)
    policy(plain, allow_insecure=True).check_basic()
    policy().check_basic()


def test_a2_08_a_relative_realm_is_resolved_against_the_request() -> None:
    assert policy().check("/service/token", ASKED_AT, has_secret=True) == Target(OWN, "/service/token")


@pytest.mark.parametrize("realm", ["//evil.example/token", "//evil.example", "//registry.example:8443/x"])
def test_a2_08_a_relative_realm_that_leaves_the_registry_is_refused(realm: str) -> None:
    with pytest.raises(RealmRefused, match="relative"):
        policy().check(realm, ASKED_AT, has_secret=False)
