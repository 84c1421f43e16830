"""Rules of the pull server that no synced example shows: odd names, long lists, and what wraps the app."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from starlette.middleware.gzip import GZipMiddleware

from registry_sync.db.database import Database
from registry_sync.db.tables import manifests
from registry_sync.domain import media_types
from registry_sync.domain.manifest_documents import Manifest, read_manifest
from registry_sync.domain.serving import DistributionSpec
from registry_sync.hooks.stores import open_blob_store
from registry_sync.serve import pull_api
from registry_sync.serve.pull_api import PullApp
from support.asgi import AsgiResponse, ask_app
from support.metadata import Upstream, artifact, image, index, sync
from support.ready_databases import ready_database

IMAGE = image("base", config="x", note="n" * 2000)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "registry_sync.db") as database:
        yield database


@pytest.fixture
def app(database: Database, tmp_path: Path) -> Iterator[PullApp]:
    app = PullApp(database, open_blob_store((tmp_path / "blobs").as_uri()))
    yield app
    app.close()


def publish(database: Database, base_path: str, upstream: Upstream, *, is_private: bool = False) -> None:
    repository = database.repositories.ensure(f"of-{base_path}")
    sync(database, repository, upstream)
    database.distributions.create(DistributionSpec(base_path, base_path, repository.id, is_private=is_private))


@pytest.fixture
def tagged() -> Upstream:
    """Five tags of one image."""
    upstream = Upstream()
    for name in ("latest", "1", "B", "a2", "a10"):
        upstream.tag(name, IMAGE)
    return upstream


@pytest.mark.rule("B1.1")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_the_root_is_for_who_is_logged_in(app: PullApp, database: Database, method: str, path: str) -> None:
    _, secret = database.robots.create("ci", ["*"])
    login = {"Authorization": f"Basic {base64.b64encode(f'ci:{secret}'.encode()).decode()}"}
    welcome, challenge = ask_app(app, method, path, login), ask_app(app, method, path)
    assert (welcome.status, challenge.status) == (200, 401)
    assert welcome.body == (b"{}" if method == "GET" else b"")
    assert welcome.headers["docker-distribution-api-version"] == "registry/2.0"
    assert challenge.headers["www-authenticate"].startswith('Bearer realm="http://registry.example:80/v2/token"')


@pytest.mark.rule("B1.2")
def test_a_media_type_is_sent_without_parameters(app: PullApp, database: Database, tagged: Upstream) -> None:
    publish(database, "app", tagged)
    with database.writing() as connection:
        connection.execute(update(manifests).values(media_type=f"{media_types.OCI_MANIFEST}; charset=utf-8"))
    for method in ("GET", "HEAD"):
        assert ask_app(app, method, "/v2/app/manifests/latest").headers["content-type"] == media_types.OCI_MANIFEST


@pytest.mark.rule("B1.5")
def test_a_page_is_as_large_as_the_server_allows_and_leads_to_the_next_one(
    app: PullApp, database: Database, tagged: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(database, "app", tagged)
    monkeypatch.setattr(pull_api, "_MOST_TAGS", 2)
    for asked in ("", "?n=4", f"?n={10**30}"):
        read: list[str] = []
        path: str | None = f"/v2/app/tags/list{asked}"
        while path is not None:
            page = ask_app(app, "GET", path)
            assert len(page.json()["tags"]) <= 2
            read += page.json()["tags"]
            path = page.next_page
        assert read == ["1", "B", "a10", "a2", "latest"]
    nothing = ask_app(app, "GET", "/v2/app/tags/list?n=0")
    assert (nothing.json()["tags"], nothing.next_page) == ([], None)


def referrers(app: PullApp, query: str = "") -> AsgiResponse:
    return ask_app(app, "GET", f"/v2/app/referrers/{IMAGE.digest}{query}")


def all_pages(app: PullApp) -> list[list[str]]:
    pages = [page := referrers(app)]
    while page.next_page is not None:
        pages.append(page := ask_app(app, "GET", page.next_page))
    return [[entry["digest"] for entry in page.json()["manifests"]] for page in pages]


@pytest.mark.slow
@pytest.mark.rule("B1.6")
def test_a_list_of_referrers_stays_below_four_mebibytes(app: PullApp, database: Database, tagged: Upstream) -> None:
    """Annotations of a signature may be of any size, and clients stop reading."""
    signatures = []
    for number in range(3):
        document = json.loads(artifact(IMAGE, f"signature {number}", artifact_type="example/signature").data)
        document["annotations"] = {"note": "s" * 1_900_000}
        signatures.append(read_manifest(json.dumps(document).encode()))
        tagged.tag(f"signature-{number}", signatures[-1])
    publish(database, "app", tagged)
    pages = all_pages(app)
    assert [len(page) for page in pages] == [2, 1]
    assert [digest for page in pages for digest in page] == sorted(made.digest for made in signatures)
    assert len(referrers(app).body) < 4 * 1024 * 1024


@pytest.mark.rule("B1.6")
def test_many_referrers_come_in_pages_and_in_order(app: PullApp, database: Database, tagged: Upstream) -> None:
    made = [artifact(IMAGE, f"signature {number}", artifact_type="example/signature") for number in range(230)]
    for number, signature in enumerate(made):
        tagged.tag(f"signature-{number}", signature)
    publish(database, "app", tagged)
    assert all_pages(app) == [sorted(signature.digest for signature in made)]
    page = referrers(app, "?n=150&artifactType=example/signature")
    assert len(page.json()["manifests"]) == 150
    assert page.headers["oci-filters-applied"] == "artifactType"
    assert page.next_page is not None
    assert "artifactType=example%2Fsignature" in page.next_page
    assert len(ask_app(app, "GET", page.next_page).json()["manifests"]) == 80


def typed(document: Manifest, **changes: object) -> Manifest:
    """The manifest with changes, as a referrer of the image."""
    subject = {"mediaType": IMAGE.media_type, "digest": IMAGE.digest, "size": IMAGE.size_bytes}
    return read_manifest(json.dumps({**json.loads(document.data), "subject": subject, **changes}).encode())


@pytest.mark.rule("B1.6")
def test_a_referrer_has_its_own_type_that_of_its_config_or_as_an_index_none(
    app: PullApp, database: Database, tagged: Upstream
) -> None:
    made = {
        "example/own": typed(image("a", config="a"), artifactType="example/own"),
        media_types.OCI_CONFIG: typed(image("b", config="b")),
        "": typed(index(IMAGE)),
    }
    empty = typed(image("c", config="c"), artifactType="")
    for number, manifest in enumerate((*made.values(), empty)):
        tagged.tag(f"referrer-{number}", manifest)
    publish(database, "app", tagged)
    listed = {entry["digest"]: entry for entry in referrers(app).json()["manifests"]}
    assert len(listed) == 4
    for artifact_type, manifest in made.items():
        assert listed[manifest.digest].get("artifactType", "") == artifact_type
    assert listed[empty.digest]["artifactType"] == media_types.OCI_CONFIG
    assert "artifactType" not in listed[made[""].digest]
    unfiltered = referrers(app, "?artifactType=")
    assert (len(unfiltered.json()["manifests"]), "oci-filters-applied" in unfiltered.headers) == (4, False)


@pytest.mark.slow
@pytest.mark.rule("B2.2")
def test_a_failure_of_the_database_is_an_error_of_the_registry_api(app: PullApp, database: Database) -> None:
    database.downgrade("base")
    response = ask_app(app, "GET", "/v2/app/manifests/latest")
    assert (response.status, response.codes) == (503, ["UNAVAILABLE"])
    assert response.headers["content-type"] == "application/json"


@pytest.mark.rule("B2.4")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_manifest_is_not_compressed_by_what_wraps_the_app(
    app: PullApp, database: Database, tagged: Upstream, method: str
) -> None:
    publish(database, "app", tagged)
    wrapped = GZipMiddleware(app, minimum_size=1024)
    response = ask_app(wrapped, method, "/v2/app/manifests/latest", {"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "identity"
    assert response.headers["content-length"] == str(len(IMAGE.data))
    assert response.body == (IMAGE.data if method == "GET" else b"")


@pytest.mark.rule("B2.6")
@pytest.mark.parametrize("base_path", ["team/manifests/tools", "a/tags/list", "blobs/blobs", "x/referrers"])
def test_a_name_may_have_words_of_the_paths(app: PullApp, database: Database, tagged: Upstream, base_path: str) -> None:
    publish(database, base_path, tagged)
    assert ask_app(app, "GET", f"/v2/{base_path}/manifests/latest").body == IMAGE.data
    assert ask_app(app, "GET", f"/v2/{base_path}/tags/list").json()["name"] == base_path
    assert ask_app(app, "GET", f"/v2/{base_path}/referrers/{IMAGE.digest}").json()["manifests"] == []
    assert ask_app(app, "GET", f"/v2/{base_path}/blobs/{IMAGE.digest}").codes == ["BLOB_UNKNOWN"]


@pytest.mark.rule("B2.8")
def test_a_tag_that_moved_and_what_it_led_to_before_are_both_served(app: PullApp, database: Database) -> None:
    """A client that asked for the tag just before a sync asks for the digest just after it."""
    repository, upstream = database.repositories.ensure("app"), Upstream()
    upstream.tag("latest", IMAGE)
    sync(database, repository, upstream)
    database.distributions.create(DistributionSpec("app", "app", repository.id, is_private=False))
    before = ask_app(app, "HEAD", "/v2/app/manifests/latest").headers["docker-content-digest"]
    upstream.tag("latest", moved := image("next"))
    sync(database, repository, upstream)
    assert ask_app(app, "HEAD", "/v2/app/manifests/latest").headers["docker-content-digest"] == moved.digest
    assert ask_app(app, "GET", f"/v2/app/manifests/{before}").body == IMAGE.data


@pytest.mark.rule("B2.12")
def test_an_entry_of_an_index_that_is_not_here_is_unknown(app: PullApp, database: Database) -> None:
    here, missing = image("here"), image("missing")
    upstream = Upstream()
    upstream.tag("sparse", index(here, missing), here)
    publish(database, "app", upstream)
    assert ask_app(app, "GET", "/v2/app/manifests/sparse").status == 200
    assert ask_app(app, "GET", f"/v2/app/manifests/{here.digest}").body == here.data
    assert ask_app(app, "GET", f"/v2/app/manifests/{missing.digest}").codes == ["MANIFEST_UNKNOWN"]
