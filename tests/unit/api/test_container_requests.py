"""What Pulp's clients of today send, read into the values of the documented form; and what is refused, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from registry_sync.api.container_requests import (
    CONTAINER_REQUESTS,
    ChangedContainerDistribution,
    ChangedContainerRemote,
    ChangedContainerRepository,
    NewContainerRemote,
    NewContainerRepository,
    SyncOfContainerRepository,
)
from registry_sync.api.remote_routes import NewRemote
from support.certificates import CertificateAuthority

REMOTE = {"name": "hub", "url": "https://registry-1.docker.io", "upstream_name": "library/hello-world"}
HREF = "/pulp/api/v3/remotes/container/container/fcf03266-f0e4-4497-8434-0fe9d94c8053/"


def _refused(model: Any, **fields: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


def test_a_remote_of_today_is_read_as_the_documented_one() -> None:
    today = NewContainerRemote.model_validate(
        {**REMOTE, "tls_validation": False, "includes": ["v*", "latest"], "excludes": ["*-rc"], "username": "ana"}
    )
    then = NewRemote.model_validate(
        {**REMOTE, "ssl_validation": False, "whitelist_tags": "v*,latest", "exclude_tags": "*-rc", "username": "ana"}
    )
    for only_given in (True, False):
        assert today.spec_values(only_given=only_given) == then.spec_values(only_given=only_given)
    assert today.secrets() == then.secrets() == {"username": "ana"}


@pytest.mark.parametrize("name", ["includes", "include_tags", "whitelist_tags"])
def test_tags_have_the_name_of_each_release(name: str) -> None:
    for tags, read in ((["v*"], ("v*",)), (None, None)):
        values = ChangedContainerRemote.model_validate({name: tags}).spec_values(only_given=True)
        assert values == {"include_tags": read}


def test_two_names_of_one_list_are_the_same_list() -> None:
    same = {"includes": ["a"], "include_tags": ["a"], "excludes": None, "exclude_tags": None}
    values = ChangedContainerRemote.model_validate(same).spec_values(only_given=True)
    assert values == {"include_tags": ("a",), "exclude_tags": ()}
    assert "send one of them" in _refused(ChangedContainerRemote, includes=["a"], include_tags=["b"])[""]


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("max_retries", 3, "max_attempts"),
        ("total_timeout", 60.0, "timeout"),
        ("connect_timeout", 10, "timeout"),
        ("sock_connect_timeout", 10, "timeout"),
        ("sock_read_timeout", 10, "timeout"),
        ("rate_limit", 4, "requests_per_second"),
        ("rate_limit", False, "requests_per_second"),
        ("headers", [{"X-A": "b"}], "headers"),
        ("sigstore", "https://sigstore.example", "registry itself"),
        ("proxy_username", "ana", "proxy"),
        ("proxy_password", "hunter22", "proxy"),
    ],
)
def test_what_has_no_meaning_here_is_refused_when_it_is_set(name: str, value: Any, instead: str) -> None:
    (message,) = _refused(ChangedContainerRemote, **{name: value}).values()
    assert message.startswith("This cannot be set here.")
    assert instead in message
    assert "hunter22" not in message
    assert ChangedContainerRemote.model_validate({name: None}).spec_values(only_given=True) == {}


def test_documented_names_are_unknown_in_this_form(tmp_path: Path) -> None:
    assert _refused(ChangedContainerRemote, ssl_validation=True).keys() == {"ssl_validation"}
    assert _refused(ChangedContainerRemote, ca_cert="no certificate") == {"ca_cert": "Send certificates in PEM format."}
    pem = CertificateAuthority(tmp_path).certificate_path.read_text()
    values = ChangedContainerRemote.model_validate({"ca_cert": pem}).spec_values(only_given=True)
    assert values == {"ssl_ca_certificate": pem}


def test_a_repository_has_a_remote_and_no_signing_service() -> None:
    given = NewContainerRepository.model_validate({"name": "app", "remote": HREF, "manifest_signing_service": None})
    assert given.spec().remote_id == "fcf03266-f0e4-4497-8434-0fe9d94c8053"
    documented = NewContainerRepository.model_validate({"name": "app", "remote": HREF.replace("container", "docker")})
    assert documented.spec() == given.spec()
    unset = ChangedContainerRepository.model_validate({"remote": None})
    assert unset.spec_values(only_given=True) == {"remote_id": None}
    assert ChangedContainerRepository.model_validate({"description": "x"}).spec_values(only_given=True).keys() == {
        "description"
    }
    assert _refused(NewContainerRepository, name="app", manifest_signing_service="/x/").keys() == {
        "manifest_signing_service"
    }


def test_a_sync_needs_no_remote_and_is_not_by_signature() -> None:
    assert SyncOfContainerRepository.model_validate({"signed_only": False, "mirror": True}).remote is None
    assert _refused(SyncOfContainerRepository, signed_only=True).keys() == {"signed_only"}


def test_an_empty_text_takes_away_what_a_distribution_serves() -> None:
    given = ChangedContainerDistribution.model_validate({"repository": "", "content_guard": None, "hidden": False})
    assert given.spec_values(only_given=True) == {}
    assert given.model_fields_set >= {"repository"}
    assert _refused(ChangedContainerDistribution, content_guard="/guard/").keys() == {"content_guard"}
    assert _refused(ChangedContainerDistribution, hidden=0).keys() == {"hidden"}


def test_every_request_of_this_form_is_one_of_the_documented_form() -> None:
    assert all(issubclass(today, documented) for documented, today in CONTAINER_REQUESTS.items())
