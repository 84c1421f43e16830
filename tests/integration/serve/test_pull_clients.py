"""Real container clients, and registry-sync itself, pull what was synced."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from integration.serve.conftest import Served
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.serving import DistributionSpec
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from support.images import RepositoryContent
from support.memory_client import MemoryClient
from support.podman import CAN_RUN, GREETING, Podman, greeting_archive, own_podman
from support.pull_server import PullServer
from support.registry import RegistryServer
from support.syncing import Installation, new_client

#: Clients pull from the server that is meant for them.
pytestmark = pytest.mark.parametrize("served", [PullServer], indirect=True, ids=["granian"], scope="module")


def _run(*words: str, home: Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    values = {**os.environ, "HOME": str(home), "REGISTRY_AUTH_FILE": str(home / "auth.json"), **(environment or {})}
    return subprocess.run(words, check=False, env=values, capture_output=True, text=True, timeout=120)


def _skopeo(served: Served, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _run("skopeo", *words, home=home)


def _blobs(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


def _below(content: RepositoryContent, tag: str) -> dict[str, bytes]:
    """Every manifest and blob below a tag, by the hexadecimal of its digest."""
    found: dict[str, bytes] = {}
    waiting = [content.tags[tag]]
    while waiting:
        manifest = content.manifests[waiting.pop()]
        found[manifest.digest.encoded] = manifest.data
        waiting += manifest.children
        found |= {digest.encoded: content.blobs[digest].data for digest in manifest.blobs}
    return found


@pytest.mark.rule("B2.5")
def test_skopeo_lists_inspects_and_copies_byte_for_byte(served: Served, clients_home: Path, tmp_path: Path) -> None:
    source = f"docker://{served.server.netloc}/kinds"
    listed = _skopeo(served, clients_home, "list-tags", "--tls-verify=false", source)
    assert sorted(json.loads(listed.stdout)["Tags"]) == sorted(served.kinds.tags), listed.stderr
    inspected = _skopeo(served, clients_home, "inspect", "--tls-verify=false", f"{source}:oci-image")
    assert json.loads(inspected.stdout)["Digest"] == served.kinds.tags["oci-image"], inspected.stderr
    for tag in ("oci-index", "docker-image"):
        target = tmp_path / tag
        words = ("copy", "--all", "--preserve-digests", "--src-tls-verify=false", f"{source}:{tag}")
        copied = _skopeo(served, clients_home, *words, f"dir:{target}")
        assert copied.returncode == 0, copied.stderr
        held = {path.read_bytes() for path in target.iterdir() if path.name != "version"}
        assert set(_below(served.kinds, tag).values()) == held


def test_skopeo_logs_in_to_what_is_private(served: Served, clients_home: Path, tmp_path: Path) -> None:
    source = f"docker://{served.server.netloc}/team/private:oci-image"
    refused = _skopeo(served, clients_home, "inspect", "--tls-verify=false", source)
    assert refused.returncode != 0
    assert "unauthorized" in refused.stderr
    creds = ":".join(served.robot)
    inspected = _skopeo(served, clients_home, "inspect", "--tls-verify=false", f"--creds={creds}", source)
    assert json.loads(inspected.stdout)["Digest"] == served.kinds.tags["oci-image"], inspected.stderr
    wrong = _skopeo(served, clients_home, "inspect", "--tls-verify=false", "--creds=ci:wrong", source)
    assert "wrong name or password" in wrong.stderr


def test_skopeo_mirrors_a_repository_and_what_a_file_lists(served: Served, clients_home: Path, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(
        f"""{served.server.netloc}:
  tls-verify: false
  credentials: {{username: {served.robot[0]}, password: {served.robot[1]}}}
  images: {{team/private: [oci-image]}}
"""
    )
    whole = ("--src=docker", "--src-tls-verify=false", f"{served.server.netloc}/signed")
    listed = ("--src=yaml", str(tmp_path / "list.yaml"))
    for name, words in (("whole", whole), ("listed", listed)):
        (tmp_path / name).mkdir()
        done = _skopeo(served, clients_home, "sync", "--all", "--dest=dir", *words, str(tmp_path / name))
        assert done.returncode == 0, done.stderr
    held = {path.read_bytes() for path in (tmp_path / "whole").rglob("*") if path.is_file() and path.name != "version"}
    for tag in ("1.0", "2.0"):  # but for the index, which this command writes again in its own words
        index = served.signed.manifests[served.signed.tags[tag]].data
        assert held >= set(_below(served.signed, tag).values()) - {index}
    held = {path.read_bytes() for path in (tmp_path / "listed").rglob("*") if path.is_file()}
    assert held >= set(_below(served.kinds, "oci-image").values())


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with own_podman() as own:
        yield own


def _ok(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.skipif(not CAN_RUN, reason="the program in the image is for x86_64")
def test_podman_runs_an_image_that_was_built_pushed_synced_and_pulled(
    served: Served, podman: Podman, tmp_path: Path
) -> None:
    database = served.here.database
    with RegistryServer(tmp_path / "upstream") as upstream:
        origin = f"{upstream.netloc}/tools/hello:latest"
        _ok(podman("import", "--change", 'CMD ["/hello"]', "-", origin, stdin=greeting_archive()))
        _ok(podman("push", "--tls-verify=false", origin))
        served.here.sync("hello", upstream.url, "tools/hello")
    database.distributions.create(DistributionSpec("hello", "team/hello", database.repositories.by_name("hello").id))
    _ok(podman("rmi", "--force", origin))
    image = f"{served.server.netloc}/team/hello:latest"
    refused = podman("pull", "--tls-verify=false", image)
    assert refused.returncode != 0
    assert b"unauthorized" in refused.stderr
    name, secret = served.robot
    said = _ok(
        podman(
            "login", "--tls-verify=false", f"-u={name}", "--password-stdin", served.server.netloc, stdin=secret.encode()
        )
    )
    assert "Login Succeeded" in said
    _ok(podman("pull", "--tls-verify=false", image))
    assert podman.run(image).stdout == GREETING


@pytest.mark.skipif(not CAN_RUN, reason="the program in the image is for x86_64")
def test_podman_pulls_through_a_mirror_of_its_configuration(served: Served, podman: Podman, tmp_path: Path) -> None:
    """As images of Docker Hub are pulled from here without another name in any file (containers-registries.conf)."""
    database = served.here.database
    with RegistryServer(tmp_path / "upstream") as upstream:
        origin = f"{upstream.netloc}/library/greeting:1"
        _ok(podman("import", "--change", 'CMD ["/hello"]', "-", origin, stdin=greeting_archive()))
        _ok(podman("push", "--tls-verify=false", origin))
        served.here.sync("greeting", upstream.url, "library/greeting")
    _ok(podman("rmi", "--force", origin))
    repository = database.repositories.by_name("greeting")
    database.distributions.create(DistributionSpec("greeting", "library/greeting", repository.id, is_private=False))
    (podman.folder / "registries.conf").write_text(
        f"""[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "{served.server.netloc}"
insecure = true
"""
    )
    _ok(podman("pull", "docker.io/library/greeting:1"))
    assert podman.run("docker.io/library/greeting:1").stdout == GREETING


@pytest.mark.parametrize("is_private", [False, True])
def test_registry_sync_syncs_from_registry_sync(served: Served, tmp_path: Path, *, is_private: bool) -> None:
    name, content = ("team/private", served.kinds) if is_private else ("signed", served.signed)
    credentials = Credentials(*served.robot) if is_private else None
    there = Installation.embedded(tmp_path)
    version = there.sync("copy", served.server.url, name, credentials=credentials)
    assert version is not None
    origin = served.here.database.repositories.by_name("kinds" if is_private else "signed")
    original = served.here.database.versions.latest(origin.id)
    assert original is not None
    assert version.summary.present == original.summary.present
    copy = there.database.repositories.by_name("copy")
    assert there.database.versions.tags(copy.id) == served.here.database.versions.tags(origin.id)
    assert {blob.digest for blob in there.store.entries()} >= set(content.blobs)
    opened: list[RegistryClient | MemoryClient] = []

    def noted(remote: RemoteSpec) -> RegistryClient | MemoryClient:
        opened.append(new_client(remote, credentials))
        return opened[-1]

    assert there.sync("copy", served.server.url, name, client=noted) is None
    heads = opened[0].usage.counts().head_count
    assert heads == min(3, len(content.tags)), "the list of tags shows that the others have not moved"
    there.database.close()
