"""containerd, which Kubernetes and Docker pull with, pulls by its own names and through ``hosts.toml``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from integration.serve.conftest import Served
from registry_sync.domain.serving import DistributionSpec
from support.containerd import Containerd, own_containerd
from support.images import RepositoryContent
from support.pull_server import PullServer

pytestmark = [
    pytest.mark.parametrize("served", [PullServer], indirect=True, ids=["granian"], scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containerd runs as root"),
]


@pytest.fixture
def containerd() -> Iterator[Containerd]:
    with own_containerd() as own:
        yield own


def _ok(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


def _below(content: RepositoryContent, tag: str) -> dict[str, bytes]:
    manifests = content.below([content.tags[tag]]) | {content.tags[tag]}
    found: dict[str, bytes] = {digest: content.manifests[digest].data for digest in manifests}
    for digest in manifests:
        found |= {blob: content.blobs[blob].data for blob in content.manifests[digest].blobs}
    return found


@pytest.mark.parametrize("tag", ["oci-index", "docker-list"])
def test_containerd_fetches_an_image_byte_for_byte(served: Served, containerd: Containerd, tag: str) -> None:
    _ok(containerd("content", "fetch", "--plain-http", "--all-platforms", f"{served.server.netloc}/kinds:{tag}"))
    assert containerd.content() == _below(served.kinds, tag)


def test_containerd_logs_in_to_what_is_private(served: Served, containerd: Containerd) -> None:
    image = f"{served.server.netloc}/team/private:oci-image"
    words = ("content", "fetch", "--plain-http", "--all-platforms")
    refused = containerd(*words, image)
    assert refused.returncode != 0
    assert b"authorization failed" in refused.stderr
    _ok(containerd(*words, f"--user={':'.join(served.robot)}", image))
    assert containerd.content() == _below(served.kinds, "oci-image")


def test_containerd_pulls_names_of_docker_hub_from_here(served: Served, containerd: Containerd) -> None:
    """It says with ``?ns=`` which registry it means."""
    database = served.here.database
    repository = database.repositories.by_name("kinds")
    database.distributions.create(DistributionSpec("hub", "library/kinds", repository.id, is_private=False))
    (containerd.hosts / "docker.io").mkdir()
    (containerd.hosts / "docker.io" / "hosts.toml").write_text(
        f"""server = "https://registry-1.docker.io"

[host."http://{served.server.netloc}"]
  capabilities = ["pull", "resolve"]
"""
    )
    words = ("content", "fetch", f"--hosts-dir={containerd.hosts}", "--all-platforms")
    _ok(containerd(*words, "docker.io/library/kinds:oci-index"))
    assert containerd.content() == _below(served.kinds, "oci-index")
