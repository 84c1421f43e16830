"""Targets keep a path byte for byte and name a host in one way only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.oci.http.origins import Origin, Target

HERE = Target(Origin("https", "registry.example", 443), "/v2/a/blobs/x?y=1")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("https://cdn.example/a%7Eb%2dc|d?sig=a%2Fb+c~&x=%e4", "/a%7Eb%2dc|d?sig=a%2Fb+c~&x=%e4"),
        ("https://cdn.example?x=1", "/?x=1"),
        ("https://cdn.example", "/"),
        ("https://cdn.example/a/../b//c?q=/../", "/a/../b//c?q=/../"),
        ("https://cdn.example/a#fragment", "/a"),
    ],
)
def test_a5_02_the_path_and_query_stay_as_they_were_sent(text: str, path: str) -> None:
    assert Target.parse(text) == Target(Origin("https", "cdn.example", 443), path)


def test_a5_02_what_no_request_line_can_carry_is_encoded_and_nothing_else() -> None:
    assert Target.parse("https://cdn.example/a b\xe4%20").path == "/a%20b%C3%A4%20"


def test_relative_references_are_resolved_against_the_request() -> None:
    assert Target.parse("/other?z", relative_to=HERE) == HERE._replace(path="/other?z")
    assert Target.parse("?n=2", relative_to=HERE) == HERE._replace(path="/v2/a/blobs/x?n=2")
    assert Target.parse("//cdn.example:444/z", relative_to=HERE).origin == Origin("https", "cdn.example", 444)


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "https://", "https://a@b/", "https://a b/", "file:///etc/passwd", "https://x:0/", "https://x:70000/",
     "https://ex\xe4mple/", "https://[::1", "https://./", "https://" + "x" * 20000],
)  # fmt: skip
def test_what_is_no_web_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it"):
        Target.parse(text)


def test_hosts_are_compared_in_lower_case_with_their_port() -> None:
    assert Target.parse("HTTPS://Registry.Example:443/").origin == HERE.origin
    assert Target.parse("https://registry.example./").origin == HERE.origin
    assert Target.parse("http://[::1]:5000/").origin == Origin("http", "::1", 5000)
    assert str(Origin("http", "::1", 5000)) == "http://[::1]:5000"
    assert HERE.origin.netloc == "registry.example"


@given(st.text(max_size=100))
def test_any_text_gives_a_target_or_its_own_error(text: str) -> None:
    for candidate in (text, f"https://{text}", f"https://x/{text}"):
        try:
            target = Target.parse(candidate)
        except ValueError:
            continue
        assert target.path.isascii()
        assert " " not in target.path
        assert Target.parse(target.url) == target


@given(st.text(max_size=60))
def test_any_relative_text_gives_a_target_or_its_own_error(text: str) -> None:
    try:
        target = Target.parse(text, relative_to=HERE)
    except ValueError:
        return
    assert target.path.startswith("/")
