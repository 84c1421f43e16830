"""The registry API, read only, as a real server sends it: statuses, headers and bytes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from sqlalchemy import text

from integration.serve.conftest import Served
from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from support.images import Blob
from support.signatures import subject_of

UNKNOWN = Digest.of(b"nobody has this")
#: What differs between two responses though nothing else does.
CHANGING = {"date"}


def _codes(response: Any) -> list[str]:
    return [error["code"] for error in response.json()["errors"]]


def _largest(served: Served) -> Blob:
    return max(served.kinds.blobs.values(), key=lambda blob: blob.size_bytes)


@pytest.mark.rule("B1.2", "B2.1")
def test_every_manifest_is_sent_byte_for_byte_by_tag_and_by_digest(served: Served) -> None:
    pull = served.server.token("kinds")
    for tag, digest in served.kinds.tags.items():
        manifest = served.kinds.manifests[digest]
        for reference in (tag, digest):
            response = served.server.ask("GET", f"/v2/kinds/manifests/{reference}", pull)
            assert response.content == manifest.data
            assert response.headers["Content-Type"] == manifest.media_type
            assert response.headers["Docker-Content-Digest"] == digest
            assert response.headers["ETag"] == f'"{digest}"'
            assert ("no-cache" in response.headers["Cache-Control"]) == (reference == tag)


def test_public_content_is_had_without_any_login_as_well(served: Served) -> None:
    assert served.server.ask("GET", "/v2/kinds/manifests/oci-image").status_code == 200


@pytest.mark.rule("B2.1")
def test_an_accept_header_changes_nothing(served: Served) -> None:
    """Another form would have another digest."""
    wanted = {"Accept": media_types.DOCKER_MANIFEST}
    response = served.server.ask("GET", "/v2/kinds/manifests/oci-index", wanted)
    assert response.headers["Content-Type"] == media_types.OCI_INDEX


@pytest.mark.rule("B2.3")
@pytest.mark.parametrize("headers", [{}, {"Accept-Encoding": "gzip"}, {"Range": "bytes=2-5"}])
@pytest.mark.parametrize(
    "path",
    ["manifests/oci-index", "blobs/{blob}", "tags/list", "referrers/{blob}", "manifests/none", "blobs/{unknown}"],
)
def test_head_has_every_header_of_get(served: Served, path: str, headers: dict[str, str]) -> None:
    filled = "/v2/kinds/" + path.format(blob=_largest(served).digest, unknown=UNKNOWN)
    get, head = (served.server.ask(method, filled, headers) for method in ("GET", "HEAD"))
    assert head.status_code == get.status_code
    assert head.content == b""
    assert {n: v for n, v in head.headers.items() if n not in CHANGING} == {
        n: v for n, v in get.headers.items() if n not in CHANGING
    }
    assert int(get.headers["Content-Length"]) == len(get.content)


@pytest.mark.rule("B1.3", "B2.4", "B2.13")
def test_every_blob_is_sent_whole_and_as_it_is(served: Served) -> None:
    for digest, blob in served.kinds.blobs.items():
        response = served.server.ask("GET", f"/v2/kinds/blobs/{digest}", {"Accept-Encoding": "gzip"})
        assert response.content == blob.data
        assert response.headers["Docker-Content-Digest"] == digest
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Disposition"] == "attachment"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


@pytest.mark.rule("B1.4")
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=3-", 3, None),
        ("bytes=-5", -5, None),
        ("bytes=2-99999999", 2, None),
        ("Bytes=1-3", 1, 3),
        ("bytes=00000000000000000000001-" + "9" * 5000, 1, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_range_is_sent_alone(served: Served, asked: str, first: int, last: int | None) -> None:
    blob = _largest(served)
    response = served.server.ask("GET", f"/v2/kinds/blobs/{blob.digest}", {"Range": asked})
    wanted = blob.data[first:] if last is None else blob.data[first : last + 1]
    offset = first % blob.size_bytes
    assert response.status_code == 206
    assert response.content == wanted
    assert response.headers["Content-Range"] == f"bytes {offset}-{offset + len(wanted) - 1}/{blob.size_bytes}"


@pytest.mark.rule("B1.4")
@pytest.mark.parametrize(
    "asked", ["lines=1-2", "bytes=a-b", "bytes=0-1,4-5", "bytes=5-2", "bytes", "bytes=" + "0-0," * 1000 + "0-0"]
)
def test_a_range_that_cannot_be_read_is_ignored(served: Served, asked: str) -> None:
    blob = _largest(served)
    response = served.server.ask("GET", f"/v2/kinds/blobs/{blob.digest}", {"Range": asked})
    assert (response.status_code, response.content) == (200, blob.data)


@pytest.mark.rule("B1.4")
@pytest.mark.parametrize("asked", ["bytes={size}-", "bytes=99999999-", "bytes=-0", "bytes=99999999999999999999-"])
def test_a_range_behind_the_end_is_refused_with_the_size(served: Served, asked: str) -> None:
    blob = _largest(served)
    headers = {"Range": asked.format(size=blob.size_bytes)}
    response = served.server.ask("GET", f"/v2/kinds/blobs/{blob.digest}", headers)
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{blob.size_bytes}"


@pytest.mark.rule("B1.4")
def test_if_range_decides_whether_a_part_is_enough(served: Served) -> None:
    blob = _largest(served)
    for condition, status in ((f'"{blob.digest}"', 206), (f'W/"{blob.digest}"', 200), ('"other"', 200)):
        headers = {"Range": "bytes=1-2", "If-Range": condition}
        assert served.server.ask("GET", f"/v2/kinds/blobs/{blob.digest}", headers).status_code == status


@pytest.mark.rule("B2.11")
@pytest.mark.parametrize("path", ["manifests/oci-image", "blobs"])
def test_what_a_client_has_is_not_sent_again(served: Served, path: str) -> None:
    path = f"blobs/{_largest(served).digest}" if path == "blobs" else path
    etag = served.server.ask("HEAD", f"/v2/kinds/{path}").headers["ETag"]
    for given in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        response = served.server.ask("GET", f"/v2/kinds/{path}", {"If-None-Match": given})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == etag
    assert served.server.ask("GET", f"/v2/kinds/{path}", {"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.rule("B1.2", "B1.3", "B1.5", "B1.6", "B2.2", "B2.6")
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/kinds/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("/v2/kinds/manifests/.INVALID", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/kinds/manifests/{UNKNOWN}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/kinds/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        (f"/v2/kinds/blobs/{UNKNOWN}", 404, "BLOB_UNKNOWN"),
        ("/v2/kinds/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/kinds/referrers/sha256:abc", 400, "DIGEST_INVALID"),
        ("/v2/Kinds/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/kinds/..%2f..%2fetc/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/kinds/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/kinds/tags/list?n=many", 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/kinds/tags/other", 404, "NOT_FOUND"),
        ("/v2/nothing", 404, "NOT_FOUND"),
        ("/elsewhere", 404, "NOT_FOUND"),
    ],
)
def test_what_is_wrong_is_said_in_the_registrys_form(served: Served, path: str, status: int, code: str) -> None:
    response = served.server.ask("GET", path)
    assert (response.status_code, _codes(response)) == (status, [code])
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.rule("B1.8")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_is_written(served: Served, method: str) -> None:
    response = served.server.ask(method, "/v2/kinds/blobs/uploads/")
    assert (response.status_code, _codes(response)) == (405, ["UNSUPPORTED"])
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.rule("B1.5")
def test_tags_are_listed_in_order_and_in_pages(served: Served) -> None:
    everything = sorted(served.kinds.tags)
    whole = served.server.ask("GET", "/v2/kinds/tags/list")
    assert (whole.json()["name"], whole.json()["tags"]) == ("kinds", everything)
    assert "Link" not in whole.headers
    read: list[str] = []
    path = "/v2/kinds/tags/list?n=4"
    while path:
        response = served.server.ask("GET", path)
        read += response.json()["tags"]
        path = response.links["next"]["url"] if "next" in response.links else ""
    assert read == everything
    none = served.server.ask("GET", "/v2/kinds/tags/list?n=0")
    assert none.json()["tags"] == []
    assert "Link" not in none.headers
    after = served.server.ask("GET", "/v2/kinds/tags/list?last=never-there")
    assert after.json()["tags"] == [tag for tag in everything if tag > "never-there"]


@pytest.mark.rule("B1.9")
def test_a_page_of_tags_has_the_digest_of_each(served: Served) -> None:
    page = served.server.ask("GET", "/v2/kinds/tags/list?n=5").json()
    found = {tag: (digest, image["mediaType"]) for digest, image in page["manifest"].items() for tag in image["tag"]}
    manifests = served.kinds.manifests
    assert sorted(found) == page["tags"]
    assert found == {
        tag: (digest, manifests[digest].media_type) for tag, digest in served.kinds.tags.items() if tag in found
    }


@pytest.mark.rule("B1.6")
def test_referrers_are_listed_filtered_and_paged(served: Served) -> None:
    subjects = {subject_of(manifest) for manifest in served.signed.manifests.values()} - {None}
    assert subjects
    for subject in subjects:
        known = {d for d, manifest in served.signed.manifests.items() if subject_of(manifest) == subject}
        response = served.server.ask("GET", f"/v2/signed/referrers/{subject}")
        assert response.headers["Content-Type"] == media_types.OCI_INDEX
        entries = response.json()["manifests"]
        assert {entry["digest"] for entry in entries} == known
        for entry in entries:
            manifest = served.signed.manifests[entry["digest"]]
            document = json.loads(manifest.data)
            assert (entry["mediaType"], entry["size"]) == (manifest.media_type, len(manifest.data))
            assert entry["artifactType"] == document.get("artifactType", document["config"]["mediaType"])
            assert entry.get("annotations", {}) == document.get("annotations", {})
        kind = entries[0]["artifactType"]
        filtered = served.server.ask("GET", f"/v2/signed/referrers/{subject}", params={"artifactType": kind})
        assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
        assert filtered.json()["manifests"] == [entry for entry in entries if entry["artifactType"] == kind]
        read, path = [], f"/v2/signed/referrers/{subject}?n=1"
        while path:
            page = served.server.ask("GET", path)
            read += page.json()["manifests"]
            path = page.links["next"]["url"] if "next" in page.links else ""
        assert read == entries


@pytest.mark.rule("B1.6")
def test_what_nothing_refers_to_has_an_empty_list_of_referrers(served: Served) -> None:
    response = served.server.ask("GET", f"/v2/kinds/referrers/{UNKNOWN}")
    assert response.json() == {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}


def test_a_version_is_had_by_its_number(served: Served) -> None:
    digest = served.kinds.tags["oci-image"]
    assert served.server.ask("HEAD", "/v2/kinds/versions/1/manifests/oci-image").headers["ETag"] == f'"{digest}"'
    token = served.server.token("kinds/versions/2")
    assert _codes(served.server.ask("GET", "/v2/kinds/versions/2/manifests/oci-image", token)) == ["UNAUTHORIZED"]


def test_containerd_says_which_registry_it_means_and_is_served(served: Served) -> None:
    assert served.server.ask("GET", "/v2/kinds/manifests/oci-image?ns=docker.io").status_code == 200


# -- who may pull ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("B1.1", "B2.10")
def test_a_login_begins_with_a_challenge_at_the_root(served: Served) -> None:
    response = served.server.ask("GET", "/v2/")
    assert response.status_code == 401
    wanted = f'Bearer realm="{served.server.url}/v2/token",service="registry-sync"'
    assert response.headers["WWW-Authenticate"] == wanted
    assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert served.server.ask("GET", "/v2/", served.server.token("kinds")).status_code == 200
    assert served.server.ask("GET", "/v2/", auth=served.robot).json() == {}


def test_private_content_is_had_with_a_token_of_a_robot_or_with_its_secret(served: Served) -> None:
    path = "/v2/team/private/manifests/oci-image"
    assert served.server.ask("GET", path, served.server.token("team/private", served.robot)).status_code == 200
    assert served.server.ask("GET", path, auth=served.robot).status_code == 200
    for path in (f"/v2/team/private/blobs/{_largest(served).digest}", "/v2/team/private/tags/list"):
        assert served.server.ask("GET", path, auth=served.robot).status_code == 200
        assert served.server.ask("GET", path).status_code == 401


@pytest.mark.rule("B2.14")
def test_what_one_may_not_see_and_what_does_not_exist_look_alike(served: Served) -> None:
    """Else names of private repositories could be found out one by one."""
    seen = {}
    for name in ("team/private", "team/missing"):
        for way in ("nobody", "token of nobody"):
            headers = {} if way == "nobody" else served.server.token(name)
            response = served.server.ask("GET", f"/v2/{name}/manifests/latest", headers)
            assert response.status_code == 401
            said = response.headers["WWW-Authenticate"].replace(name, "NAME")
            assert seen.setdefault(way, (said, response.content)) == (said, response.content)
    _, secret = served.here.database.robots.create("other", ["elsewhere/*"])
    other = ("other", secret)
    for name in ("team/private", "team/missing"):
        response = served.server.ask("GET", f"/v2/{name}/manifests/latest", auth=other)
        assert (response.status_code, _codes(response)) == (404, ["NAME_UNKNOWN"])


def test_a_token_is_valid_for_the_requested_scopes_alone(served: Served) -> None:
    token = served.server.token("kinds", served.robot)
    assert served.server.ask("GET", "/v2/team/private/tags/list", token).status_code != 200
    head, claims, signature = token["Authorization"].split(".")
    wider = json.loads(base64.urlsafe_b64decode(claims + "=="))
    wider["access"] = [{"type": "repository", "name": "team/private", "actions": ["pull"]}]
    forged = base64.urlsafe_b64encode(json.dumps(wider).encode()).decode().rstrip("=")
    for value in (f"{head}.{forged}.{signature}", "Bearer x", "Bearer ", "Negotiate abc"):
        response = served.server.ask("GET", "/v2/team/private/tags/list", {"Authorization": value})
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.rule("B2.14")
@pytest.mark.parametrize("auth", [("ci", "wrong"), ("nobody", "wrong"), ("", "wrong"), ("ci", "")])
def test_a_wrong_login_gets_no_token(served: Served, auth: tuple[str, str]) -> None:
    response = served.server.ask("GET", "/v2/token?scope=repository:kinds:pull", auth=auth)
    assert (response.status_code, _codes(response)) == (401, ["UNAUTHORIZED"])


def test_an_empty_login_is_that_of_nobody(served: Served) -> None:
    """As clients send it that were given no name and no secret, the conformance suite among them."""
    token = served.server.token("kinds", ("", ""))
    assert served.server.ask("GET", "/v2/kinds/manifests/oci-image", token).status_code == 200
    assert served.server.ask("GET", "/v2/kinds/manifests/oci-image", auth=("", "")).status_code == 200
    token = served.server.token("team/private", ("", ""))
    assert served.server.ask("GET", "/v2/team/private/manifests/oci-image", token).status_code == 401
    assert served.server.ask("GET", "/v2/", auth=("", "")).status_code == 401


@pytest.mark.rule("B1.7")
def test_the_catalog_lists_what_one_may_pull(served: Served) -> None:
    nobody = served.server.ask("GET", "/v2/_catalog", served.server.token("kinds"))
    assert nobody.json() == {"repositories": ["kinds", "signed"]}
    robot = served.server.ask("GET", "/v2/_catalog", auth=served.robot)
    assert robot.json() == {"repositories": ["kinds", "signed", "team/private"]}
    first = served.server.ask("GET", "/v2/_catalog?n=2", auth=served.robot)
    assert first.json() == {"repositories": ["kinds", "signed"]}
    assert served.server.ask("GET", first.links["next"]["url"], auth=served.robot).json()["repositories"] == [
        "team/private"
    ]


# -- bytes that are not as they should be ------------------------------------------------------------------------------


def test_a_blob_whose_bytes_are_gone_or_cut_is_an_error_before_the_first_byte(served: Served) -> None:
    """Its upstream is down, so that it cannot be fetched again."""
    store = served.here.store
    blobs = sorted((b for b in served.signed.blobs.values() if b.size_bytes > 10), key=lambda b: b.digest)
    gone, cut = blobs[0], blobs[1]
    paths = [store.path(blob.digest) for blob in (gone, cut)]  # type: ignore[attr-defined]
    kept = [path.read_bytes() for path in paths]
    paths[0].unlink()
    paths[1].write_bytes(kept[1][:5])
    try:
        for blob in (gone, cut):
            response = served.server.ask("GET", f"/v2/signed/blobs/{blob.digest}")
            assert (response.status_code, _codes(response)) == (503, ["UNAVAILABLE"])
            assert int(response.headers["Retry-After"]) > 0
            assert str(blob.digest) in served.server.log
    finally:
        for path, data in zip(paths, kept, strict=True):
            path.write_bytes(data)
    assert served.server.ask("GET", f"/v2/signed/blobs/{gone.digest}").content == gone.data


@pytest.mark.rule("B2.12")
def test_a_lost_blob_that_comes_from_nowhere_is_unknown(served: Served) -> None:
    store, blob = served.here.store, _largest(served)
    path = store.path(blob.digest)  # type: ignore[attr-defined]
    kept = path.read_bytes()
    with served.here.database.writing() as connection:
        runs = connection.execute(text("SELECT id, state FROM sync_runs")).all()
        connection.execute(text("UPDATE sync_runs SET state = 'failed'"))
    path.unlink()
    try:
        response = served.server.ask("GET", f"/v2/kinds/blobs/{blob.digest}")
        assert (response.status_code, _codes(response)) == (404, ["BLOB_UNKNOWN"])
    finally:
        path.write_bytes(kept)
        with served.here.database.writing() as connection:
            for run in runs:
                connection.execute(text("UPDATE sync_runs SET state = :state WHERE id = :id"), run._asdict())
