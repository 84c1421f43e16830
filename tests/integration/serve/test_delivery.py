"""Blobs that an object store or nginx sends in place of the server, after the server has checked the request."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import fsspec
import pytest
import requests

from integration.serve.conftest import Published, Redirecting, publish
from registry_sync.blobs.layout import blob_name
from registry_sync.domain.serving import DistributionSpec
from registry_sync.errors import ConfigurationError
from registry_sync.serve.server import ServerOptions, serve
from support.certificates import CertificateAuthority
from support.images import RepositoryContent
from support.nginx import Nginx
from support.podman import CAN_RUN, GREETING, greeting_archive, own_podman
from support.pull_server import PullServer
from support.registry import RegistryServer
from support.syncing import Installation

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "serve-behind-nginx.md"
#: What differs between two responses though nothing else does.
CHANGING = {"date"}


def _skopeo(home: Path, *words: str) -> None:
    environment = {**os.environ, "HOME": str(home), "REGISTRY_AUTH_FILE": str(home / "auth.json")}
    done = subprocess.run(["skopeo", *words], check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def _copied(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.iterdir() if path.name not in ("version", "manifest.json")}


def _blobs_of(content: RepositoryContent, tag: str) -> set[bytes]:
    return {content.blobs[digest].data for digest in content.manifests[content.tags[tag]].blobs}


# -- signed URLs ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("B2.9")
def test_a_get_is_sent_to_a_signed_url_that_ends_and_gives_the_bytes_alone(redirecting: Redirecting) -> None:
    response = redirecting.server.ask("GET", f"/v2/public/blobs/{redirecting.blob.digest}")
    assert (response.status_code, response.content) == (307, b"")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Docker-Content-Digest"] == redirecting.blob.digest
    location = response.headers["Location"]
    query = parse_qs(urlsplit(location).query)
    assert query["X-Amz-Expires"] == ["60"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-SignedHeaders"] == ["host"]
    stored = requests.get(location, timeout=30)
    assert stored.content == redirecting.blob.data
    assert stored.headers["Content-Disposition"] == "attachment"
    assert requests.get(location, headers={"Range": "bytes=2-5"}, timeout=30).content == redirecting.blob.data[2:6]
    assert query["X-Amz-Signature"][0] not in redirecting.server.log


@pytest.mark.rule("B2.9")
def test_head_and_unchanged_blobs_are_answered_here(redirecting: Redirecting) -> None:
    path = f"/v2/public/blobs/{redirecting.blob.digest}"
    head = redirecting.server.ask("HEAD", path)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(redirecting.blob.size_bytes))
    known = {"If-None-Match": head.headers["ETag"]}
    assert redirecting.server.ask("GET", path, known).status_code == 304


def test_what_may_not_be_seen_has_no_url(redirecting: Redirecting) -> None:
    path = f"/v2/team/private/blobs/{redirecting.blob.digest}"
    refused = redirecting.server.ask("GET", path)
    assert refused.status_code == 401
    assert "Location" not in refused.headers
    pull = redirecting.server.token("team/private", redirecting.robot)
    assert redirecting.server.ask("GET", path, pull).status_code == 307


def test_skopeo_follows_and_keeps_its_token_from_the_store(redirecting: Redirecting, tmp_path: Path) -> None:
    source = f"docker://{redirecting.server.netloc}/team/private:oci-image"
    creds = f"--src-creds={':'.join(redirecting.robot)}"
    with redirecting.recorded(tmp_path) as recorded:
        _skopeo(tmp_path, "copy", "--src-tls-verify=false", creds, source, f"dir:{tmp_path / 'copied'}")
    assert _copied(tmp_path / "copied") == _blobs_of(redirecting.content, "oci-image")
    assert "X-Amz-Signature" in recorded[0]
    assert "Bearer" not in recorded[0]


@pytest.mark.skipif(not CAN_RUN, reason="the program in the image is for x86_64")
def test_podman_follows_and_runs_what_the_store_sent(redirecting: Redirecting, tmp_path: Path) -> None:
    database = redirecting.here.database
    with own_podman() as podman:
        with RegistryServer(tmp_path / "upstream") as upstream:
            origin = f"{upstream.netloc}/tools/hello:latest"
            import_words = ("import", "--change", 'CMD ["/hello"]', "-", origin)
            for words, stdin in ((import_words, greeting_archive()), (("push", "--tls-verify=false", origin), b"")):
                done = podman(*words, stdin=stdin)
                assert done.returncode == 0, done.stderr
            redirecting.here.sync("hello", upstream.url, "tools/hello")
        assert podman("rmi", "--force", origin).returncode == 0
        repository = database.repositories.by_name("hello")
        database.distributions.create(DistributionSpec("hello", "team/hello", repository.id))
        image = f"{redirecting.server.netloc}/team/hello:latest"
        words = ("pull", "--tls-verify=false", f"--creds={':'.join(redirecting.robot)}", image)
        with redirecting.recorded(tmp_path) as recorded:
            pulled = podman(*words)
        assert pulled.returncode == 0, pulled.stderr
        assert podman.run(image).stdout == GREETING
    assert "X-Amz-Signature" in recorded[0]
    assert "Bearer" not in recorded[0]


def test_a_blob_that_is_lost_or_cut_has_no_url(redirecting: Redirecting) -> None:
    """Its upstream is down, so that it cannot be fetched again either."""
    digest = redirecting.content.manifests[redirecting.content.tags["docker-image"]].blobs[-1]
    stored = redirecting.content.blobs[digest]
    filesystem, root = fsspec.core.url_to_fs(redirecting.server.blob_store)
    filesystem.pipe_file(f"{root}/{blob_name(digest)}", b"")
    assert redirecting.server.ask("GET", f"/v2/public/blobs/{digest}").status_code == 503
    filesystem.rm_file(f"{root}/{blob_name(digest)}")
    assert redirecting.server.ask("GET", f"/v2/public/blobs/{digest}").status_code == 503
    filesystem.pipe_file(f"{root}/{blob_name(digest)}", stored.data)
    assert redirecting.server.ask("GET", f"/v2/public/blobs/{digest}").status_code == 307


@pytest.mark.parametrize(
    ("blob_store", "delivery", "reason"),
    [
        ("memory://blobs", "redirect", r"signs no URLs \(NotImplementedError\)"),
        ("file:///blobs", "redirect", "needs an object store"),
        ("memory://blobs", "nginx", "sends files of a folder"),
    ],
)
def test_the_start_says_what_a_store_cannot_do(blob_store: str, delivery: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        serve(ServerOptions("sqlite:///unused.db", blob_store, host="nowhere.invalid", blob_delivery=delivery))


def test_the_start_refuses_a_store_that_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True, "endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(ConfigurationError, match="without a signature"):
        serve(ServerOptions("sqlite:///unused.db", "s3://bucket", host="nowhere.invalid", blob_delivery="redirect"))


# -- nginx ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Behind(Published):
    """``direct`` is the server that ``nginx`` stands in front of, at ``url``."""

    direct: PullServer
    nginx: Nginx
    url: str
    session: requests.Session
    authority: CertificateAuthority

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> requests.Response:
        given = {"Accept-Encoding": "identity", **(headers or {})}
        return self.session.request(method, self.url + path, headers=given, allow_redirects=False, timeout=30)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """With the configuration of the documentation, whose places are those of this machine."""
    folder = tmp_path_factory.mktemp("behind")
    here = Installation.embedded(folder)
    published = publish(here)
    authority = CertificateAuthority(folder / "certificates")
    certificate = authority.server()
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    with PullServer(folder, blob_delivery="nginx") as direct:

        def blocks(port: int) -> str:
            text = found[1]
            for theirs, ours in (
                ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
                ("/etc/nginx/registry.example.org.pem", str(certificate.chain_path)),
                ("/etc/nginx/registry.example.org.key", str(certificate.key_path)),
                ("127.0.0.1:5050", direct.netloc),
                ("/home/airflow/airflow/registry_sync/blobs/", f"{folder / 'blobs'}/"),
            ):
                assert text.count(theirs) == 1, theirs
                text = text.replace(theirs, ours)
            return text

        with Nginx(folder / "nginx", blocks) as nginx, requests.Session() as session:
            session.trust_env = False
            session.verify = str(authority.certificate_path)
            url = f"https://127.0.0.1:{nginx.port}"
            yield Behind(published.content, published.robot, direct, nginx, url, session, authority)
    here.database.close()


def _unlike_the_connection(response: requests.Response) -> dict[str, str]:
    ignored = CHANGING | {"server", "connection"}
    return {name.lower(): value for name, value in response.headers.items() if name.lower() not in ignored}


def test_nginx_sends_what_the_server_lets_it_send(behind: Behind) -> None:
    path = f"/v2/public/blobs/{behind.blob.digest}"
    handed_over = behind.direct.ask("GET", path, {"X-Sendfile-Type": "X-Accel-Redirect"})
    assert handed_over.content == b""
    assert handed_over.headers["X-Accel-Redirect"] == f"/registry-sync-blobs/{blob_name(behind.blob.digest)}"
    sent = behind.ask("GET", path)
    assert (sent.status_code, sent.content) == (200, behind.blob.data), behind.nginx.log
    assert "X-Accel-Redirect" not in sent.headers
    past_nginx = behind.direct.ask("GET", path)
    assert past_nginx.content == behind.blob.data
    assert _unlike_the_connection(sent) == _unlike_the_connection(past_nginx)
    assert _unlike_the_connection(sent) == _unlike_the_connection(behind.ask("HEAD", path))


def test_nginx_sends_ranges_and_leaves_out_what_is_unchanged(behind: Behind) -> None:
    path, data = f"/v2/public/blobs/{behind.blob.digest}", behind.blob.data
    part = behind.ask("GET", path, {"Range": "bytes=3-9"})
    assert (part.status_code, part.content) == (206, data[3:10])
    assert part.headers["Content-Range"] == f"bytes 3-9/{len(data)}"
    etag = part.headers["ETag"]
    assert behind.ask("GET", path, {"Range": "bytes=3-9", "If-Range": etag}).content == data[3:10]
    assert behind.ask("GET", path, {"Range": "bytes=3-9", "If-Range": '"other"'}).content == data
    assert behind.ask("GET", path, {"Range": f"bytes={len(data)}-"}).status_code == 416
    assert behind.ask("GET", path, {"Range": "bytes=0-1,4-5"}).content == data
    assert behind.ask("GET", path, {"If-None-Match": etag}).status_code == 304


def test_nobody_reaches_the_files_past_the_server(behind: Behind) -> None:
    location = f"/registry-sync-blobs/{blob_name(behind.blob.digest)}"
    assert behind.ask("GET", location).status_code == 404
    path = f"/v2/team/private/blobs/{behind.blob.digest}"
    refused = behind.ask("GET", path, {"X-Accel-Redirect": location})
    assert refused.status_code == 401


@pytest.mark.rule("B2.10")
def test_a_challenge_names_the_address_of_nginx_whatever_the_client_claims(behind: Behind) -> None:
    challenge = behind.ask("GET", "/v2/", {"X-Forwarded-Proto": "http"}).headers["WWW-Authenticate"]
    assert challenge.startswith(f'Bearer realm="{behind.url}/v2/token"')
    claimed = behind.direct.ask("GET", "/v2/", {"X-Forwarded-Proto": 'https",x="'}).headers["WWW-Authenticate"]
    assert claimed.startswith(f'Bearer realm="{behind.direct.url}/v2/token"')
    claimed = behind.direct.ask("GET", "/v2/", {"Host": 'evil",x="'}).headers["WWW-Authenticate"]
    assert claimed.startswith(f'Bearer realm="{behind.direct.url}/v2/token"')


def test_skopeo_logs_in_and_copies_through_nginx(behind: Behind, tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "ca.crt").write_bytes(behind.authority.certificate_path.read_bytes())
    source = f"docker://{behind.url.removeprefix('https://')}/team/private:oci-image"
    words = (f"--src-cert-dir={tmp_path / 'ca'}", f"--src-creds={':'.join(behind.robot)}")
    _skopeo(tmp_path, "copy", *words, source, f"dir:{tmp_path / 'copied'}")
    assert _copied(tmp_path / "copied") == _blobs_of(behind.content, "oci-image")
