"""The server as processes: TLS, workers, and how it ends."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import requests

from registry_sync.domain.serving import DistributionSpec
from support.certificates import CertificateAuthority
from support.filling import place
from support.images import ContentBuilder
from support.pull_server import PullServer
from support.registry import RegistryServer
from support.syncing import Installation

_LARGE_BYTES = 24 * 1024 * 1024


def _installation(folder: Path, layer_bytes: int) -> tuple[Installation, str]:
    build = ContentBuilder(41)
    layer = build.blob(layer_bytes)
    build.tag("latest", build.image([layer]))
    here = Installation.embedded(folder)
    with RegistryServer(folder / "upstream") as upstream:
        place(upstream, "app", build.content())
        here.sync("app", upstream.url, "app")
    repository = here.database.repositories.by_name("app")
    here.database.distributions.create(DistributionSpec("app", "app", repository.id, is_private=False))
    return here, layer


def test_a_download_under_way_ends_when_the_server_is_stopped(tmp_path: Path) -> None:
    here, layer = _installation(tmp_path, _LARGE_BYTES)
    with PullServer(tmp_path) as server:
        response = requests.get(f"{server.url}/v2/app/blobs/{layer}", stream=True, timeout=60)
        first = response.raw.read(1024)
        server.ask_to_stop()
        rest = response.raw.read()
    assert len(first) + len(rest) == _LARGE_BYTES
    here.database.close()


@pytest.mark.rule("B2.10")
def test_https_is_served_and_challenges_name_it(tmp_path: Path) -> None:
    here, _ = _installation(tmp_path, 100)
    authority = CertificateAuthority(tmp_path)
    with PullServer(tmp_path, certificate=authority.server()) as server:
        root = requests.get(f"{server.url}/v2/", verify=str(authority.certificate_path), timeout=30)
        assert f'realm="https://{server.netloc}/v2/token"' in root.headers["WWW-Authenticate"]
    here.database.close()


def test_workers_accept_each_others_tokens_and_see_a_commit_at_once(tmp_path: Path) -> None:
    here, _ = _installation(tmp_path, 100)
    repository = here.database.repositories.by_name("app")
    private = here.database.distributions.create(DistributionSpec("private", "private", repository.id))
    _, secret = here.database.robots.create("ci", ["*"])
    log = tmp_path / "access.jsonl"
    with PullServer(tmp_path, workers=2, metrics="127.0.0.1:0", access_log=str(log)) as server:
        token = server.token("private", ("ci", secret))
        statuses: list[int] = []

        def pull() -> None:
            with requests.Session() as session:  # a connection of its own, to whichever worker takes it
                found = session.get(f"{server.url}/v2/private/manifests/latest", headers=token, timeout=30)
                statuses.append(found.status_code)

        threads = [threading.Thread(target=pull) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 16
        assert len(server.metrics_ports) == 2
        for port in server.metrics_ports:  # each worker has the sum of both
            text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
            assert 'registry_sync_pulls_total{by="tag"} 16' in text
        here.database.distributions.delete(private.id)
        assert server.ask("GET", "/v2/private/manifests/latest", token).status_code == 404
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["account"] for line in lines if line.get("digest")] == ["robot:ci"] * 16
    here.database.close()
