"""A real registry that keeps its blobs in an S3 server and sends its clients there, by URLs that it signs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.oci.auth.credentials import Credentials
from support.filling import push
from support.held import Held
from support.object_store import s3_server
from support.registry import PASSWORD, USERNAME, RegistryServer
from support.shapes import documented_example
from support.syncing import Installation


@pytest.fixture
def redirecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryServer]:
    # The registry refuses to start with a CA bundle for AWS that somebody's environment names.
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with s3_server() as store:
        s3 = {
            "accesskey": "testing",
            "secretkey": "testing",
            "region": "us-east-1",
            "regionendpoint": store.endpoint,
            "bucket": store.new_bucket(),
            "secure": False,
        }
        storage = {"s3": s3, "redirect": {"disable": False}, "cache": {"blobdescriptor": "inmemory"}}
        with RegistryServer(tmp_path / "registry", basic_auth=True, config={"storage": storage}) as server:
            yield server


@pytest.mark.rule("A5.1", "A5.2")
def test_blobs_come_from_where_a_registry_redirects_to(here: Installation, redirecting: RegistryServer) -> None:
    content = documented_example()
    push(redirecting, "team/app", content)
    redirecting.reset_counts()
    credentials = Credentials(username=USERNAME, password=PASSWORD)
    assert here.sync("redirected", redirecting.url, "team/app", credentials=credentials) is not None
    held = Held.read(here.database, here.store, "redirected")
    assert held.tags == content.tags
    assert held.blobs == {digest: blob.data for digest, blob in content.blobs.items()}
    log = redirecting.log()
    assert log.count("GET", "blob", status=307) == len(content.blobs)
    assert log.count("GET", "blob", status=200) == 0
