"""A layer that the server sends by another way than smaller ones, and with the end of the connection."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry_sync.serve.file_sender import LARGE_BYTES
from support.go_clients import GoClients
from support.pull_server import PullServer, published_image


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (("crane", "pull", "--insecure", "--format=oci", "{name}:latest", "{target}"), "blobs/sha256"),
        (("oras", "cp", "--from-plain-http", "--to-oci-layout", "{name}:latest", "{target}:latest"), "blobs/sha256"),
        (("regctl", "image", "copy", "{name}:latest", "ocidir://{target}"), "blobs/sha256"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_large_layer_arrives(tmp_path: Path, command: tuple[str, ...], folder: str) -> None:
    here, layer = published_image(tmp_path, LARGE_BYTES + 1)
    with PullServer(tmp_path) as server:
        clients = GoClients.at(tmp_path / "home", server.netloc)
        target = tmp_path / "target"
        clients(*(word.format(name=clients.named("app"), target=target) for word in command))
        assert (target / folder / layer.encoded).stat().st_size == LARGE_BYTES + 1
    here.database.close()
