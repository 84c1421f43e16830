"""A token is requested for reading one repository, whatever scope a registry offers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.oci.auth.challenges import canonical_scopes, scopes_to_request, split_scope

WANTED = "repository:library/demo:pull"


def test_a4_08_a_name_with_a_port_is_read_from_the_right() -> None:
    assert split_scope("repository:reg:5000/a/b:pull,push") == (
        "repository",
        "reg:5000/a/b",
        frozenset({"pull", "push"}),
    )


@pytest.mark.parametrize("text", ["", "repository", "repository:a", "::", ":a:pull", "repository::pull"])
def test_a4_08_what_is_no_scope_is_reported(text: str) -> None:
    with pytest.raises(ValueError, match="not a scope"):
        split_scope(text)


def test_a4_08_actions_of_one_name_are_merged_sorted_and_absorbed() -> None:
    scopes = ["repository:b:push,pull", "repository:a:pull", "repository:b:pull", "repository:c:pull,*", "odd"]
    assert canonical_scopes(scopes) == ("odd", "repository:a:pull", "repository:b:pull,push", "repository:c:*")


@given(st.lists(st.text(max_size=20), max_size=6))
def test_a4_08_the_canonical_spelling_is_its_own(scopes: list[str]) -> None:
    assert canonical_scopes(canonical_scopes(scopes)) == canonical_scopes(scopes)


def test_a4_10_pull_is_requested_although_the_challenge_has_no_scope() -> None:
    assert scopes_to_request("", WANTED) == (WANTED,)


def test_a4_10_the_registrys_own_spelling_comes_first() -> None:
    assert scopes_to_request("repository(plugin):library/demo:pull", WANTED) == (
        "repository(plugin):library/demo:pull",
        WANTED,
    )


@pytest.mark.parametrize(
    "offered",
    [
        "repository:library/demo:pull,push",
        "repository:library/demo:*",
        "repository:other/repo:pull",
        "registry:catalog:*",
        "registry:library/demo:pull",
        "nonsense",
        "repository:library/demo:",
    ],
)
def test_a4_11_more_than_reading_this_repository_is_not_requested(offered: str) -> None:
    assert scopes_to_request(offered, WANTED) == (WANTED,)


def test_a4_11_without_a_repository_no_scope_is_requested() -> None:
    assert scopes_to_request("registry:catalog:*", None) == ()
