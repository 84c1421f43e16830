"""The pages in Airflow: what they show, to whom, and that strangers' texts stay texts."""

from __future__ import annotations

import posixpath
import re
import secrets
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import requests

from registry_sync.api.pages.rendering import STATIC, run_path
from registry_sync.api.pages.routes import PER_PAGE
from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Annotation, Repository, RepositorySpec
from registry_sync.domain.runs import LOCAL_DAG_ID, DagRunEnd, RunKey
from registry_sync.domain.serving import DistributionSpec
from registry_sync.errors import DatabaseOutdated
from support.metadata import Upstream, image, open_run, stopped_run, sync, two_versions
from support.rest_api import DAG_ID, ROLES, ApiServer, RestClient
from support.statements import executed_statements

ROOT = "/pulp/pages/"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"


class _Page(HTMLParser):
    """What a page links to, loads and runs, and its visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.bad: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a":
            self.links.append(given["href"])
        if "src" in given or tag == "link":
            self.loaded.append(given.get("src", "") or given.get("href", ""))
        if tag in ("img", "style", "iframe", "object", "base") or (tag == "script" and "src" not in given):
            self.bad.append(tag)
        self.bad += [name for name in given if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def shown(client: RestClient, path: str, status: int = 200) -> _Page:
    """A page, after checks that hold for all of them."""
    response = client.ask("GET", urljoin(ROOT, path))
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    for part in ("default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'self'"):
        assert part in policy.split("; ")
    assert "frame-ancestors 'none'" not in policy
    page = _Page(response.text)
    assert page.bad == []
    for link in [*page.links, *page.loaded]:
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc, parts.path[:1] != "/") == ("", "", True), link
    return page


@dataclass(frozen=True)
class Shown:
    repository: Repository
    path: str


@pytest.fixture
def app(api_server: ApiServer, name: str) -> Shown:
    """A repository with two versions, a held tag, a failed sync, and a distribution."""
    database = api_server.database
    repository = two_versions(database, name)
    run = open_run(database, repository, key=RunKey(DAG_ID, f"sync__{name}__1"))
    database.run_ends.end(DAG_ID, run.key.run_id, DagRunEnd.FAILED.state, "the registry is down", started_at=utc_now())
    database.distributions.create(DistributionSpec(name, f"pull/{name}", repository.id))
    return Shown(repository, f"repositories/{repository.id}/")


def test_airflow_has_them_in_its_menu(admin: RestClient) -> None:
    plugins = {plugin["name"]: plugin for plugin in admin.get("/api/v2/plugins")["plugins"]}
    (view,) = plugins["registry_sync"]["external_views"]
    assert (view["name"], view["destination"], view["nav_top_level"]) == ("Registry", "nav", True)
    assert admin.ask("GET", f"/{view['href']}").status_code == 200


def test_who_may_list_repositories_may_look(api_server: ApiServer, app: Shown) -> None:
    for path in ("repositories/", "syncs/", app.path, f"{app.path}versions/1/"):
        for role in ROLES:
            shown(api_server.client(role), path)
        assert api_server.client(None).ask("GET", ROOT + path).status_code == 401
        foreign = {"Origin": "https://elsewhere.example"}
        assert api_server.client().ask("GET", ROOT + path, headers=foreign).status_code == 403
    assert api_server.client().ask("GET", ROOT).headers["location"] == "repositories/"


def test_a_repository_in_the_list_says_what_became_of_it(admin: RestClient, app: Shown) -> None:
    page = shown(admin, f"repositories/?q={app.repository.name[5:]}")
    for words in ("1 repository.", app.repository.name, "failed", "the registry is down", "just now", "registry_sync"):
        assert words in page.text
    assert f"{app.repository.id}/" in page.links
    run = "../../../dags/registry_sync/runs/" + f"sync__{app.repository.name}__1"
    assert run in page.links


def test_a_repository_has_a_page_with_versions_syncs_and_where_to_pull(
    api_server: ApiServer, admin: RestClient, app: Shown
) -> None:
    page = shown(admin, app.path)
    host = api_server.url.partition("//")[2]
    assert f"docker pull {host}/pull/{app.repository.name}:latest" in page.text
    for words in ("after a login", "+2 \N{MINUS SIGN}2", "+2 \N{MINUS SIGN}0", "the registry is down", "completed"):
        assert words in page.text
    version = shown(admin, f"{app.path}versions/2/").text
    assert "1 added, 1 moved, 1 removed, 0 the same" in version
    for tag, change in (("latest", "moved"), ("new", "added"), ("old", "removed")):
        assert f"{tag} {change}" in version
    first = shown(admin, f"{app.path}versions/1/").text
    assert "2 added" in first
    assert "nothing: it is the first" in first


def test_held_tags_are_shown_with_their_reasons(api_server: ApiServer, admin: RestClient, app: Shown) -> None:
    upstream = Upstream()
    upstream.tag("latest", image("d"))
    upstream.tag("new", image("e"))
    sync(api_server.database, app.repository, upstream, held={"new": "manifest unknown"})
    assert "1 held" in shown(admin, f"repositories/?q={app.repository.name}").text
    page = shown(admin, f"{app.path}versions/3/").text
    assert f"new {image('a').digest} manifest unknown" in page


def test_every_link_leads_somewhere(admin: RestClient, app: Shown) -> None:
    waiting, seen = [f"{ROOT}repositories/?q={app.repository.name}", f"{ROOT}syncs/?q={app.repository.name}"], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        page = shown(admin, path)
        if app.repository.name not in path and app.repository.id not in path:
            continue  # it leads on to what other tests have made
        for link in page.links:
            target = urljoin(path, link)
            if target.startswith(ROOT):
                waiting.append(target)
            elif target.startswith("/pulp/documentation/"):
                assert admin.ask("GET", target).status_code == 200, target
            else:
                assert target.startswith("/dags/registry_sync"), target
        for loaded in page.loaded:
            assert posixpath.dirname(urljoin(path, loaded)) == f"{ROOT}static"
    assert len(seen) > 8
    for file in STATIC.iterdir():
        response = admin.ask("GET", f"{ROOT}static/{file.name}")
        assert (response.status_code, response.content) == (200, file.read_bytes())
    for missing in ("pages.html", "..%2f__init__.py", "%00"):
        assert admin.ask("GET", f"{ROOT}static/{missing}").status_code == 404


def test_texts_of_strangers_stay_texts(api_server: ApiServer, admin: RestClient, name: str) -> None:
    database = api_server.database
    repository = two_versions(database, name)
    database.repositories.update(
        repository.id, RepositorySpec(name, description=HOSTILE, labels={HOSTILE: HOSTILE, "plain": ""})
    )
    database.versions.annotate(repository.id, 2, lambda _: Annotation(HOSTILE))
    database.distributions.create(DistributionSpec(f"{HOSTILE}{name}", f"h/{name}", repository.id))
    upstream = Upstream()
    upstream.tag("latest", image("d"))
    upstream.tag("new", image("e"))
    sync(database, repository, upstream, held={"new": HOSTILE})
    run = open_run(database, repository, key=RunKey(HOSTILE, f"{HOSTILE}{name}"))
    database.run_ends.end(HOSTILE, run.key.run_id, DagRunEnd.FAILED.state, HOSTILE, started_at=utc_now())
    found = {}
    for path in ("repositories/", "syncs/", "", "versions/2/", "versions/3/"):
        at = f"{path}?q={name}" if path in ("repositories/", "syncs/") else f"repositories/{repository.id}/{path}"
        found[path] = shown(admin, at).text
        assert "<script>alert(1)" in found[path]
    at = utc_now()
    result = MirrorResult("d", "r", "t", name, 0, MirrorOutcome.FAILED, at, at, error=HOSTILE)
    database.mirror_results.record(result)
    assert "failed" in shown(admin, f"repositories/?q={name}").text
    # Also what somebody types or sends in a link.
    for query in ("q", "page", "state", "ordering"):
        response = admin.ask("GET", f"{ROOT}repositories/", params={query: HOSTILE})
        assert "<script>alert" not in response.text
        assert "<img" not in response.text


def test_lists_are_searched_and_paged(api_server: ApiServer, admin: RestClient) -> None:
    prefix = f"paged-{secrets.token_hex(4)}"
    for number in range(PER_PAGE + 2):
        one = api_server.database.repositories.ensure(f"{prefix}/{number:03}")
    first = shown(admin, f"repositories/?q={prefix.upper()}&ordering=-name")
    assert "27 repositories." in first.text
    assert "Page 1 of 2" in first.text
    assert next(word for word in first.text.split() if word.startswith(prefix)) == f"{prefix}/026"
    (following,) = [link for link in first.links if "page=2" in link]
    second = shown(admin, urljoin(f"{ROOT}repositories/", following))
    assert [word for word in second.text.split() if word.startswith(prefix)] == [f"{prefix}/001", f"{prefix}/000"]
    assert "no sync yet" in second.text
    assert "No repository is like that" in shown(admin, f"repositories/?q={prefix}&state=failed").text
    assert "No sync is like that" in shown(admin, f"syncs/?q={prefix}").text
    for path, last in ((f"repositories/?q={prefix}", 2), (f"syncs/?q={prefix}", 1), (f"repositories/{one.id}/?", 1)):
        beyond = shown(admin, f"{path}&page=99")
        assert f"There is no page 99. The last is page {last}" in beyond.text
        assert "like that" not in beyond.text
        assert "No sync has made" not in beyond.text
        (target,) = [link for link in beyond.links if "page=2" in link or (last == 1 and link.startswith("?"))]
        assert "There is no page" not in shown(admin, urljoin(urljoin(ROOT, path), target)).text


def test_what_is_wider_than_a_window_scrolls(admin: RestClient, app: Shown) -> None:
    for path in ("repositories/", "syncs/", app.path, f"{app.path}versions/2/"):
        text = admin.ask("GET", ROOT + path).text
        assert text.count("<table>") == text.count('tabindex="0"><table>') > 0
        assert len(re.findall(r'<div class="wide" role="region" aria-label="[^"]+" tabindex="0"><table>', text)) == (
            text.count("</table></div>")
        )
    assert ".wide { overflow-x: auto" in (STATIC / "pages.css").read_text()


def test_what_is_not_there_is_a_page_as_well(admin: RestClient, app: Shown) -> None:
    nobody = "00000000-0000-4000-8000-000000000000"
    for path in (f"repositories/{nobody}/", f"repositories/{nobody}/versions/1/", f"{app.path}versions/99/"):
        assert "Not Found" in shown(admin, path, 404).text
    for path in ("nonsense", "repositories/none/", "static/pages.html", f"{app.path}versions/x/", "a/b/c/d", "%2Fx"):
        page = shown(admin, path, 404)
        assert "Not Found" in page.text
        (style,) = {loaded for loaded in page.loaded if loaded.endswith(".css")}
        assert urljoin(ROOT + path, style) == f"{ROOT}static/pages.css", path


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=abc", "page=", "state=bogus", "q=" + 256 * "a", "q=%00", "q=a%00b", "ordering=evil"],
)
def test_parameters_that_are_none_are_said_on_a_page(admin: RestClient, app: Shown, query: str) -> None:
    for path in ("repositories/", "syncs/", app.path):
        if path == "repositories/" or query.startswith("page") or (path == "syncs/" and "ordering" not in query):
            page = shown(admin, f"{path}?{query}", 400)
            assert page.text.count(f"{query.partition('=')[0]}: ") == 1, page.text
            assert f"{ROOT}repositories/" in [urljoin(ROOT + path, link) for link in page.links]


def test_an_address_without_its_last_slash_leads_to_the_page(admin: RestClient, app: Shown) -> None:
    for path in ("", "repositories/", "syncs/", app.path, f"{app.path}versions/1/"):
        without = (ROOT + path).removesuffix("/")
        response = admin.ask("GET", f"{without}?q=a%26b")
        assert response.status_code == 307, without
        assert urljoin(without, response.headers["location"]) == f"{ROOT}{path}?q=a%26b"


def test_nobody_is_asked_to_sign_in_on_a_page_with_its_style(api_server: ApiServer, app: Shown) -> None:
    nobody = api_server.client(None)
    for path in ("repositories/?q=a%26b", f"{app.path}versions/1/", "/pulp/documentation/how-to/schedule-a-sync.md"):
        response = nobody.ask("GET", urljoin(ROOT, path))
        assert response.headers["www-authenticate"]
        page = shown(nobody, path, 401)
        assert "Not signed in." in page.text
        (login,) = [urljoin(urljoin(ROOT, path), link) for link in page.links if "auth/login" in link]
        sent = nobody.ask("GET", login)
        assert sent.status_code == 307, login
        assert parse_qs(urlsplit(sent.headers["location"]).query)["next"] == [urljoin(ROOT, path)]
        assert nobody.ask("HEAD", urljoin(ROOT, path)).content == b""
        for loaded in page.loaded:
            assert nobody.ask("GET", urljoin(urljoin(ROOT, path), loaded)).status_code == 200, loaded
    bad = RestClient(api_server.url, "no token")
    assert "auth/login" in " ".join(shown(bad, "repositories/", 401).links)
    for path in ("/pulp/pages/static/%2e%2e/", "/pulp/pages/static/no.css", "/pulp/pages/static/..%2froutes.py"):
        assert nobody.ask("GET", path).status_code in (401, 404)
    assert nobody.ask("GET", "/pulp/api/v3/repositories/").json() == {"detail": "Not signed in."}


def test_a_link_of_another_site_leads_to_a_page_and_to_nothing_else(api_server: ApiServer, app: Shown) -> None:
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    client = api_server.client()
    for path in (ROOT, f"{ROOT}repositories/", f"{ROOT}{app.path}", "/pulp/documentation/"):
        for method in ("GET", "HEAD"):
            response = client.ask(method, path, headers=opened)
            assert response.status_code in (200, 307), path
        if response.status_code == 200:
            assert response.headers["cross-origin-opener-policy"] == "same-origin"
        assert "frame-ancestors 'self'" in response.headers["content-security-policy"]
        for other in (
            {"Sec-Fetch-Dest": "iframe"},
            {"Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"},
            {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors"},
            {"Origin": "https://elsewhere.example"},
        ):
            refused = client.ask("GET", path, headers={**opened, **other})
            assert (refused.status_code, "not allowed" in refused.text) == (403, True), other
        assert client.ask("POST", path, headers=opened).status_code == 403
    for path in ("/pulp/api/v3/repositories/", "/pulp/api/v3/docs/", "/pulp/pagesx", "/pulp/api/v3/pages/"):
        refused = client.ask("GET", path, headers=opened)
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/json"


def test_a_sync_that_waits_for_an_approval_says_so(api_server: ApiServer, admin: RestClient, name: str) -> None:
    database = api_server.database
    run = stopped_run(database, name)
    for path in ("repositories/", "syncs/", f"repositories/{run.repository_id}/"):
        page = shown(admin, f"{path}?q={name}")
        assert re.search(r"waits for approval (1 held )?TooManyRemovals: ", page.text), page.text
    for path in ("repositories/", "syncs/"):
        assert "TooManyRemovals" in shown(admin, f"{path}?q={name}&state=waiting").text
        for other in ("running", "failed"):
            assert "is like that" in shown(admin, f"{path}?q={name}&state={other}").text
    database.runs.approve_removals(run.id, "anna")
    for path in ("repositories/", "syncs/"):
        assert "is like that" in shown(admin, f"{path}?q={name}&state=waiting").text
        approved = shown(admin, f"{path}?q={name}&state=running").text
        assert "TooManyRemovals" not in approved


def test_errors_are_pages_that_say_what_to_do(
    api_server: ApiServer, admin: RestClient, app: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.api_fastapi.app import get_auth_manager

    def refuse(*_: object, **__: object) -> None:
        raise DatabaseOutdated("the metadata database is at schema 0001; run: <it>")

    with monkeypatch.context() as patch:
        patch.setattr(api_server.database.overviews.__class__, "repositories", refuse)
        assert "at schema 0001; run: <it>" in shown(admin, "repositories/", 503).text
    with monkeypatch.context() as patch:
        patch.setattr(api_server.database.overviews.__class__, "syncs", lambda *_, **__: 1 // 0)
        alone = RestClient(api_server.url, admin.token)  # after a defect the connection is closed
        assert "the log of the API server says what" in shown(alone, "syncs/", 500).text
    monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", lambda **_: False)
    for path in ("repositories/", app.path, f"{app.path}versions/1/"):
        assert "it takes the right to read the DAG that syncs" in shown(admin, path, 403).text


def test_the_mirror_of_a_fleet_shows_its_schedule_and_owner(
    api_server: ApiServer, admin: RestClient, app: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        dag = session.get(DagModel, "registry_sync_scrub")
        assert dag is not None
        dag.owners, dag.timetable_summary = "team <a>", "17 3 * * 0"
    at = utc_now()
    result = MirrorResult(
        "registry_sync_scrub", "r-1", "t", app.repository.name, 0, MirrorOutcome.THROTTLED, at, at, error="later"
    )
    api_server.database.mirror_results.record(replace(result, finished_at=utc_now()))
    page = shown(admin, app.path).text
    assert "throttled later" in page
    assert "Mirror of registry_sync_scrub 17 3 * * 0 · team <a>" in page
    # A DAG that the viewer may not see is named by the sync alone.
    from airflow.api_fastapi.app import get_auth_manager

    monkeypatch.setattr(get_auth_manager(), "filter_authorized_dag_ids", lambda **_: set())
    hidden = shown(admin, app.path)
    assert "team <a>" not in hidden.text
    assert [link for link in hidden.links if "/dags/" in link] == []


def test_a_page_takes_few_statements(api_server: ApiServer, admin: RestClient, app: Shown) -> None:
    counts = {}
    for path in ("repositories/", f"repositories/?q={app.repository.name}", "syncs/", app.path):
        with executed_statements() as statements:
            shown(admin, path)
        counts[path] = len([text for text in statements if text.startswith("SELECT")])
    assert max(counts.values()) <= 24, counts
    assert counts["repositories/"] <= counts[f"repositories/?q={app.repository.name}"] + 1


def test_a_sync_of_a_command_has_no_page_in_airflow() -> None:
    assert run_path(LOCAL_DAG_ID, "local__1") is None
    assert run_path("a/b", "x+y/../z") == "dags/a%2Fb/runs/x%2By%2F..%2Fz"


def test_a_browser_may_keep_nothing_that_another_user_sees(admin: RestClient) -> None:
    response: requests.Response = admin.ask("GET", f"{ROOT}repositories/")
    assert response.headers["cache-control"] == "private, no-cache"
    assert re.search(r"\bCookie\b", response.headers["vary"])
