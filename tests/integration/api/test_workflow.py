"""The documented workflow against the API server, up to the run that it begins."""

from __future__ import annotations

from support.rest_api import RestClient


def test_a_repository_is_made_and_read_back_as_documented(admin: RestClient, name: str) -> None:
    made = admin.post("repositories/docker/docker/", name=name)
    read = admin.get(made["pulp_href"])
    assert read == made
    assert list(read)[:6] == [
        "pulp_created", "pulp_href", "latest_version_href", "versions_href", "description", "name",
    ]  # fmt: skip
    assert read["latest_version_href"] is None
    assert read["versions_href"] == made["pulp_href"] + "versions/"
    assert admin.get(read["versions_href"]) == {"count": 0, "next": None, "previous": None, "results": []}
