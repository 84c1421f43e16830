"""The next page is found whatever a ``Link`` looks like, and is never somebody else's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.errors import PaginationError, RedirectRefused
from registry_sync.oci.http.link_headers import WebLink, next_page, parse_links
from registry_sync.oci.http.origins import Origin, Target

OWN = Origin("https", "registry.example", 443)
ASKED = Target(OWN, "/v2/docker/a/b/tags/list?n=1000")
NEXT = Target(OWN, "/v2/docker/a/b/tags/list?last=b&n=2")
REFERENCE = "</v2/docker/a/b/tags/list?last=b&n=2>"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('</x?last=b&n=1>; rel="next"', [("/x?last=b&n=1", {"next"})]),
        ("</x>; rel=next", [("/x", {"next"})]),
        ('</x>;title="a; b, c";REL="Prev  NEXT"', [("/x", {"prev", "next"})]),
        ('</a>; rel=prev, </b>; rel="next"; type="x"', [("/a", {"prev"}), ("/b", {"next"})]),
        ('</a,b;c>; rel="next"', [("/a,b;c", {"next"})]),
        ("</a>", [("/a", set())]),
        ('</a>; rel="next"; rel="prev"', [("/a", {"next"})]),
        ("< /a >;rel=next", [("/a", {"next"})]),
        ("</a>; ; rel=next", [("/a", {"next"})]),
        ("</a>; rel", [("/a", set())]),
        ("</a>; rel='prev next'", [("/a", {"prev", "next"})]),
        ('</a>; rel="next', [("/a", {"next"})]),
        ("</a>; rel='next", [("/a", {"next"})]),
        ('</a>; rel="prev, </b>; rel=next', [("/a", {"prev"}), ("/b", {"next"})]),
        ("/a?last=b; rel=next", [("/a?last=b", {"next"})]),
        ("</a?last=b; rel=next", [("/a?last=b", {"next"})]),
        ("nonsense, </a>; rel=next", [("/a", {"next"})]),
        ("</a>; rel=next and more, </b>; rel=prev", [("/a", {"next"}), ("/b", {"prev"})]),
        ("nonsense", []),
        ("", []),
    ],
)
def test_a7_02_links_are_read_by_their_grammar(header: str, expected: list[tuple[str, set[str]]]) -> None:
    expected_links = tuple(WebLink(reference, frozenset(relations)) for reference, relations in expected)
    assert parse_links(header).links == expected_links


@pytest.mark.parametrize(
    "reference",
    [
        "/v2/docker/a/b/tags/list?last=x%2Fy&n=1000",
        "https://registry.example/v2/docker/a/b/tags/list?last=x%2Fy&n=1000",
        "https://registry.example:443/v2/docker/a/b/tags/list?last=x%2Fy&n=1000",
        "//registry.example/v2/docker/a/b/tags/list?last=x%2Fy&n=1000",
        "list?last=x%2Fy&n=1000",
        "?last=x%2Fy&n=1000",
    ],
)
def test_a7_02_a_link_to_the_same_listing_is_followed_with_its_query_untouched(reference: str) -> None:
    assert next_page(f'<{reference}>; rel="next"', ASKED) == Target(OWN, "/v2/docker/a/b/tags/list?last=x%2Fy&n=1000")


@pytest.mark.parametrize(
    "reference",
    [
        "/v2/a/b/tags/list?last=10000&n=10000",
        "/v2/b/tags/list?last=10000&n=10000",
        "/repository/docker/v2/docker/a/b/tags/list?last=10000&n=10000",
        "/v2/repo-key/docker/a/b/tags/list?last=10000&n=10000",
        "/v2/wrong/tags/list?last=10000&n=10000",
        "https://registry.example/tags/list?last=10000&n=10000",
    ],
)
def test_a7_03_of_a_link_that_a_proxy_wrote_for_itself_only_the_query_is_used(reference: str) -> None:
    assert next_page(f'<{reference}>; rel="next"', ASKED) == Target(OWN, "/v2/docker/a/b/tags/list?last=10000&n=10000")


@pytest.mark.parametrize(
    "reference",
    [
        "https://169.254.169.254/v2/docker/a/b/tags/list?n=1",
        "//evil.example/v2/docker/a/b/tags/list?n=1",
        "http://registry.example/v2/docker/a/b/tags/list?n=1",
        "https://registry.example:8443/v2/docker/a/b/tags/list?n=1",
        "https://user@registry.example/v2/docker/a/b/tags/list?n=1",
        "/v2/docker/a/other/tags/list",
        "/v2/docker/a/b/manifests/latest",
        "/v2/docker/a/b/manifests/latest?last=x",
        "/v2/_catalog?last=x",
        "/v2/list?last=x",
    ],
)
def test_a7_02_a_link_to_anything_else_is_refused(reference: str) -> None:
    with pytest.raises(RedirectRefused):
        next_page(f'<{reference}>; rel="next"', ASKED)


def test_a7_08_a_continuation_of_any_name_is_carried_on_the_same_path() -> None:
    following = next_page("<?cursor=gAAA%3D>; rel=next", ASKED)
    assert following == Target(OWN, "/v2/docker/a/b/tags/list?cursor=gAAA%3D")


def test_a8_01_of_referrers_the_query_is_used_and_no_other_subject_is_followed() -> None:
    asked = Target(OWN, "/v2/docker/a/b/referrers/sha256:00")
    following = Target(OWN, "/v2/docker/a/b/referrers/sha256:00?n=2")
    assert next_page("</v2/docker/a/b/referrers/sha256:00?n=2>; rel=next", asked) == following
    assert next_page("</v2/a/b/referrers/sha256:00?n=2>; rel=next", asked) == following
    for other in ("/v2/docker/a/b/referrers/sha256:01?n=2", "/v2/docker/a/b/tags/list?last=x"):
        with pytest.raises(RedirectRefused):
            next_page(f"<{other}>; rel=next", asked)


@pytest.mark.parametrize(
    "header",
    [
        f"{REFERENCE}; rel='next'",
        f'{REFERENCE}; rel="next',
        f"{REFERENCE}; rel='next",
        f"{REFERENCE}; rel=\"'next'\"",
        f'{REFERENCE}; rel=\\"next\\"',
        f"{REFERENCE}; rel=next",
        f'{REFERENCE}; REL = "NEXT"',
        f'{REFERENCE}; rel="prev next"',
        f'{REFERENCE}; title="x"; rel="next"',
        f"{REFERENCE}; rel",
        f'{REFERENCE}; rel=""',
        REFERENCE,
        REFERENCE[:-1] + '; rel="next"',
        REFERENCE[1:-1] + '; rel="next"',
        f'nonsense, {REFERENCE}; rel="next"',
        f'<unreadable, {REFERENCE}; rel="next"',
        f'{REFERENCE}; rel="next", nonsense',
        f'</v2/docker/a/b/tags/list?n=2>; rel="first", {REFERENCE}',
        f'{REFERENCE}; rel="next", {REFERENCE}; rel="next"',
        f'{REFERENCE}; rel="first"; rel="next"',
        f'{REFERENCE}; rel="next", </v2/docker/a/b/tags/list?last=y&n=2>; rel="last"',
    ],
)
def test_a7_02_what_a_link_means_is_read_however_it_is_written(header: str) -> None:
    assert next_page(header, ASKED) == NEXT


@pytest.mark.parametrize(
    "header",
    [
        "nonsense",
        "</x>",
        "</v2/docker/a/b/tags/list?n=1000>",
        '</x>; rel=""',
        "</v2/_catalog?last=x>; type=json",
        '</x>; rel="prev", nonsense',
        '</x>; rel="prev", </y>',
        f'{REFERENCE}; rel="onwards"',
        *(f'{REFERENCE}; rel="{name}"' for name in ("last", "start", "self", "up", "current", "first", "collection")),
        f'</v2/docker/a/b/tags/list?n=2>; rel="first", {REFERENCE}; rel="last"',
        "next",
        "<>",
        "rel=next",
        ", ;",
        " " * 20_000 + f"{REFERENCE}; rel=next",
    ],
)
def test_a7_11_a_link_in_which_nothing_can_be_read_is_an_error_and_no_end(header: str) -> None:
    with pytest.raises(PaginationError, match=r"registry\.example sends a Link"):
        next_page(header, ASKED)


def test_a7_11_two_next_pages_are_an_error() -> None:
    with pytest.raises(PaginationError, match="two next pages"):
        next_page(f"{REFERENCE}; rel=next, </v2/docker/a/b/tags/list?last=c>; rel=next", ASKED)


def test_the_queries_of_a_link_are_not_shown() -> None:
    with pytest.raises(PaginationError) as refused:
        next_page("</x?token=secret>; rel=onwards, nonsense", ASKED)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "header",
    [None, "", " ", '</x>; rel="prev"', "</x>; rel='prev", '</x>; rel=first, </y>; rel="last"', "</s.css>; rel=icon"],
)
def test_a7_01_no_next_link_is_no_next_page(header: str | None) -> None:
    assert next_page(header, ASKED) is None


@pytest.mark.parametrize(
    "header",
    [
        '</v2/docker/a/b/tags/list?n=2&last=b>; rel="last"',
        '</v2/docker/a/b/tags/list?last=b&n=2>; rel="self"',
        '</v2/docker/a/b/tags/list?n=2>; rel="first", </v2/docker/a/b/tags/list?last=a&n=2>; rel="prev"',
        '</v2/docker/a/b/tags/list?n=2>; rel="start"',
    ],
)
def test_a7_01_a_last_page_that_names_itself_and_those_before_is_an_end(header: str) -> None:
    assert next_page(header, NEXT) is None


@given(st.text(max_size=200))
def test_any_text_gives_links_and_a_page_of_this_listing_or_a_refusal(header: str) -> None:
    parse_links(header)
    try:
        page = next_page(f"<{header}>; rel=next", ASKED)
    except (RedirectRefused, PaginationError):
        return
    if page is not None:
        assert page.origin == OWN
        assert page.path.partition("?")[0] == ASKED.path.partition("?")[0]


@given(st.text('<>;,=" relnxt/?\\', max_size=300))
def test_text_made_of_the_grammars_own_characters_does_not_hang(header: str) -> None:
    assert len(parse_links(header).links) <= 300
