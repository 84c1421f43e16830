"""The User-Agent is the same for every request and says whom to write to; nothing can be smuggled into it."""

from __future__ import annotations

import re

import pytest

from registry_sync import __version__
from registry_sync.oci.http.options import is_contact, user_agent
from support.hostile_registry import json_reply
from support.oci import REPOSITORY

pytestmark = pytest.mark.rule("A9.10")
TAGS = f"/v2/{REPOSITORY}/tags/list"


def test_it_names_the_project_its_release_and_the_contact() -> None:
    assert user_agent() == f"registry-sync/{__version__} (Apache Airflow)"
    assert user_agent("mirrors@example.org") == f"registry-sync/{__version__} (Apache Airflow; +mirrors@example.org)"


@pytest.mark.parametrize("text", ["a@b", "mirrors@example.org", "https://example.org/mirrors?x=1", "http://x"])
def test_a_mail_address_or_url_is_a_contact(text: str) -> None:
    assert is_contact(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "me",
        "a@b c",
        "a@b\r\nAuthorization: x",
        "a@b)",
        "(a@b",
        "ftp://x",
        "https://",
        "ü@example.org",
        "a@" + "b" * 200,
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert not is_contact(text)
    if text:
        with pytest.raises(ValueError, match="mail address"):
            user_agent(text)


def test_every_request_carries_it_and_no_cookie(registry, client_of) -> None:
    first = json_reply({"tags": ["a"]}, headers=[("Set-Cookie", "a=b"), ("Link", f'<{TAGS}?last=a>; rel="next"')])
    registry.on("GET", TAGS, first, json_reply({"tags": ["b"]}, headers=[("Set-Cookie", "a=b")]))
    client = client_of(registry, user_agent=user_agent("https://example.org/mirrors"))
    client.list_tags(REPOSITORY)
    client.session().get(f"{registry.base}{TAGS}", timeout=5)
    agents = [request.header("user-agent") or "" for request in registry.requests]
    assert len(agents) == 3
    assert all(
        re.fullmatch(r"registry-sync/\S+ \(Apache Airflow; \+https://example\.org/mirrors\)", it) for it in agents
    )
    assert {request.header("cookie") for request in registry.requests} == {None}
