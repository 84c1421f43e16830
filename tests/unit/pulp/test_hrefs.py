"""Paths of the REST API, made and read back."""

from __future__ import annotations

import pytest

from registry_sync.errors import InvalidReference
from registry_sync.pulp import hrefs

ID = "fcf03266-f0e4-4497-8434-0fe9d94c8053"
BASE = "/pulp/api/v3"


def test_paths_are_the_documented_ones() -> None:
    assert hrefs.repository_href(ID) == f"{BASE}/repositories/docker/docker/{ID}/"
    assert hrefs.versions_href(ID) == f"{BASE}/repositories/docker/docker/{ID}/versions/"
    assert hrefs.version_href(ID, 1) == f"{BASE}/repositories/docker/docker/{ID}/versions/1/"
    assert hrefs.remote_href(ID) == f"{BASE}/remotes/docker/docker/{ID}/"
    assert hrefs.task_href(ID) == f"{BASE}/tasks/{ID}/"
    assert hrefs.sync_href(ID) == f"{BASE}/syncs/{ID}/"
    assert hrefs.units_href("docker.tag") == f"{BASE}/content/docker/tags/"
    assert hrefs.unit_href("docker.blob", 7) == f"{BASE}/content/docker/blobs/7/"


def test_a_path_that_was_made_is_read_back() -> None:
    assert hrefs.read_repository_href(hrefs.repository_href(ID)) == ID
    assert hrefs.read_remote_href(hrefs.remote_href(ID)) == ID
    assert hrefs.read_version_href(hrefs.version_href(ID, 12)) == (ID, 12)


@pytest.mark.parametrize(
    "href",
    [
        "", ID, f"{BASE}/repositories/docker/docker/{ID}", f"{BASE}/repositories/docker/docker/{ID.upper()}/",
        f"{BASE}/repositories/docker/docker/{ID}/versions/", f" {BASE}/repositories/docker/docker/{ID}/",
        f"{BASE}/repositories/docker/docker/{ID}/\n", f"https://here.example{BASE}/repositories/docker/docker/{ID}/",
        f"{BASE}/remotes/docker/docker/{ID}/", f"{BASE}/repositories/docker/docker/../docker/{ID}/",
    ],
)  # fmt: skip
def test_the_path_of_something_else_is_refused(href: str) -> None:
    with pytest.raises(InvalidReference, match="repository"):
        hrefs.read_repository_href(href)


@pytest.mark.parametrize("number", ["0", "01", "-1", "x", "2147483648", "99999999999", "1/2"])
def test_a_number_that_no_version_has_is_refused(number: str) -> None:
    with pytest.raises(InvalidReference):
        hrefs.read_version_href(f"{hrefs.versions_href(ID)}{number}/")
