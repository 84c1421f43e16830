"""crane, oras and regctl follow redirects to signed URLs of an object store, and keep their tokens from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.serve.conftest import Redirecting
from support.go_clients import GoClients


@pytest.mark.parametrize("program", ["crane", "oras", "regctl"])
def test_bytes_come_from_the_store_and_tokens_stay_here(redirecting: Redirecting, tmp_path: Path, program: str) -> None:
    layout, netloc = tmp_path / "layout", redirecting.server.netloc
    if program == "regctl":  # it keeps tokens from other hosts alone, by their names without ports
        netloc = netloc.replace("127.0.0.1", "localhost")
    clients, (name, secret) = GoClients.at(tmp_path / "home", netloc), redirecting.robot
    source = clients.named("team/private:oci-image")
    login, pull = {
        "crane": (
            ("auth", "login", netloc, "-u", name, "--password-stdin"),
            ("pull", "--format=oci", source, str(layout)),
        ),
        "oras": (
            ("login", "--plain-http", "-u", name, "--password-stdin", netloc),
            ("cp", "--from-plain-http", "--to-oci-layout", source, f"{layout}:it"),
        ),
        "regctl": (
            ("registry", "login", "-u", name, "--pass-stdin", netloc),
            ("image", "copy", source, f"ocidir://{layout}:it"),
        ),
    }[program]
    clients(program, *login, stdin=secret)
    with redirecting.recorded(tmp_path) as recorded:
        clients(program, *pull)
    held = {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}
    wanted = redirecting.content.manifests[redirecting.content.tags["oci-image"]].blobs
    assert {digest.encoded: redirecting.content.blobs[digest].data for digest in wanted}.items() <= held.items()
    assert "X-Amz-Signature" in recorded[0]
    assert "Bearer" not in recorded[0]
