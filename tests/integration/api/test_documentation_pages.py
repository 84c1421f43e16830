"""The documentation inside Airflow's API server: where the list of providers leads, and every link from there."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import urljoin

import pytest

from registry_sync.api import documentation_pages
from registry_sync.api.documentation_pages import documentation_folder, page
from support.documents import DOCS
from support.rest_api import ROLES, ApiServer

ROOT = "/pulp/documentation/"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
_LINK = re.compile(r'(?:href|src)="([^"]+)"')


def rendered(name: str) -> str:
    return page(DOCS.resolve(), (DOCS / name).resolve())


def test_airflows_list_of_providers_leads_to_it(api_server: ApiServer) -> None:
    url = re.search(r'^Documentation = "(.+)"$', (DOCS.parent / "pyproject.toml").read_text(), re.MULTILINE)
    assert url is not None
    assert url[1] == ROOT
    for role in ROLES:
        response = api_server.client(role).ask("GET", url[1])
        assert response.status_code == 200
        assert '<h1 id="documentation">Documentation</h1>' in response.text
        assert "unsafe-inline" not in response.headers["content-security-policy"].partition("style-src")[0]
        assert "default-src 'none'" in response.headers["content-security-policy"]
    without_slash = api_server.client().ask("GET", ROOT.rstrip("/"))
    assert without_slash.headers["location"] == "documentation/"


def test_nobody_reads_it_without_signing_in(api_server: ApiServer) -> None:
    assert api_server.client(None).ask("GET", ROOT).status_code == 401


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("how-to/schedule-a-sync.md", "text/html"),
        ("images/run.png", "image/png"),
        ("images/benchmarks.svg", "image/svg+xml"),
        ("examples/smallest.py", "text/plain"),
    ],
)
def test_pages_pictures_and_examples_are_served(api_server: ApiServer, path: str, media_type: str) -> None:
    response = api_server.client("viewer").ask("GET", f"{ROOT}{path}")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(media_type)


@pytest.mark.parametrize("path", ["no-such.md", "how-to", "%2e%2e/pyproject.toml", "..%2fREADME.md", "images/%00"])
def test_nothing_else_is(api_server: ApiServer, path: str) -> None:
    assert api_server.client().ask("GET", f"{ROOT}{path}").status_code in (400, 404)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_page_a_title_or_an_address(name: str) -> None:
    for link in _LINK.findall(rendered(name)):
        address, _, title = link.partition("#")
        if "://" in address:
            continue
        if "../pages/" in address:  # of the layout: another test follows them
            place = posixpath.normpath(posixpath.join(posixpath.dirname(name), address))
            assert place.startswith(("../pages/", "../documentation")), link
            continue
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), address)) if address else name
        assert (DOCS / target).is_file(), f"{name} links to {link}"
        assert not title or f'id="{title}"' in rendered(target), f"{name} links to {link}"


@pytest.mark.parametrize("name", ["README.md", "how-to/look-at-repositories.md", "adr/README.md"])
def test_it_looks_like_the_pages_and_leads_back_to_them(api_server: ApiServer, name: str) -> None:
    client = api_server.client()
    at = f"{ROOT}{name}"
    found = [urljoin(at, link) for link in _LINK.findall(client.ask("GET", at).text)]
    expected = ("repositories/", "syncs/", "static/pages.css", "static/pages.js")
    for path in expected:
        assert f"/pulp/pages/{path}" in found
        assert client.ask("GET", f"/pulp/pages/{path}").status_code == 200
    assert f"{ROOT}README.md" in found


@pytest.mark.parametrize("path", ["no-such.md", "how-to/no-such.md"])
def test_an_error_is_a_page(api_server: ApiServer, path: str) -> None:
    response = api_server.client().ask("GET", f"{ROOT}{path}")
    assert (response.status_code, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "/pulp/pages/static/pages.css" in [urljoin(f"{ROOT}{path}", link) for link in _LINK.findall(response.text)]


def test_a_link_out_of_the_documentation_is_its_text() -> None:
    assert "<a><code>dags/registry_sync.py</code></a>" in rendered("reference/operators.md")


def test_where_there_is_none_it_says_so(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation_pages, "_FOLDERS", ())
    assert documentation_folder() is None
    response = api_server.client().ask("GET", ROOT)
    assert (response.status_code, "plugins folder" in response.text) == (404, True)
